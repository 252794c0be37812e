#!/bin/sh
# Starts Redis with the users of users.acl, whose passwords are in the environment; arguments are further options.
# What is written holds their SHA-256 only, and lies with the data, which the image hands to the user of Redis.
set -eu
: "${REDIS_WORKER_PASSWORD:?must be set}" "${REDIS_PRODUCER_PASSWORD:?must be set}" "${REDIS_DASHBOARD_PASSWORD:?must be set}"
hash() {
    printf %s "$1" | sha256sum | cut -d ' ' -f 1
}
sed -e "s/REDIS_WORKER_PASSWORD/$(hash "$REDIS_WORKER_PASSWORD")/" \
    -e "s/REDIS_PRODUCER_PASSWORD/$(hash "$REDIS_PRODUCER_PASSWORD")/" \
    -e "s/REDIS_DASHBOARD_PASSWORD/$(hash "$REDIS_DASHBOARD_PASSWORD")/" \
    "$(dirname "$0")/users.acl" >users.acl
exec docker-entrypoint.sh redis-server --aclfile "$PWD/users.acl" "$@"
