"""Exits 0 when a worker on this host has told Redis within a minute that it lives; the image's HEALTHCHECK runs it."""

import socket
import sys
from datetime import UTC, datetime, timedelta

from rq.utils import utcparse
from rq.worker_registration import REDIS_WORKER_KEYS

from flowtilla import config
from flowtilla.connection import connect

#: Many heartbeats, and more than one maintenance of a busy machine.
PATIENCE = timedelta(minutes=1)


def main() -> int:
    """Returns the exit code."""
    with connect(config.load().redis, socket_timeout=5, socket_connect_timeout=5) as connection:
        pipeline = connection.pipeline(transaction=False)
        for key in connection.smembers(REDIS_WORKER_KEYS):
            pipeline.hmget(key, "hostname", "last_heartbeat", "death")
        alive = any(_is_ours(*fields) for fields in pipeline.execute())
    print("a worker beats here" if alive else "no worker beats here")
    return 0 if alive else 1


def _is_ours(host: bytes | None, beat: bytes | None, death: bytes | None) -> bool:
    if host is None or beat is None or death is not None or host.decode() != socket.gethostname():
        return False
    return datetime.now(UTC) - utcparse(beat.decode()) < PATIENCE


if __name__ == "__main__":
    sys.exit(main())
