"""What Redis says when it is there and will not do as asked, and what to do about it."""

import re

from redis.exceptions import ConnectionError, TimeoutError

#: How redis-py tells it, its error's class in front; what that means, and what to do next.
_REFUSALS = (
    ("AuthenticationError", "it asks for another user or password: correct redis.url, or redis.sentinel"),
    ("NoPermissionError|.*ACL failure in script", "its user's rules forbid that: compare them with deploy/users.acl"),
    ("ReadOnlyError|MasterDownError", "it is a replica: redis.url must lead to the master, or redis.sentinel find it"),
    ("OutOfMemoryError", "its memory is full: raise maxmemory, or wait until runs have ended and expired"),
    ("BusyLoadingError", "it is still reading its data: wait until it has"),
    ("ResponseError: MISCONF ", "it cannot write to its disk: make room there; its log says more"),
    ("ResponseError: NOREPLICAS ", "it has fewer replicas than min-replicas-to-write: start them"),
    ("ResponseError: BUSY ", "somebody's script keeps it busy: SCRIPT KILL ends that"),
    ("ResponseError: UNBLOCKED ", "it has become a replica: try again, once there is another master"),
    ("ResponseError: DB index ", "it has fewer databases: correct the number that follows the host in redis.url"),
    (".*CERTIFICATE_VERIFY_FAILED", "its certificate is of another name, or not signed by who is in redis.tls.ca"),
    (".*ALERT_CERTIFICATE_REQUIRED", "it asks for a certificate: give redis.tls.cert and redis.tls.key"),
)

#: Those of them that end by themselves, and soon.
_PASSING = re.compile("BusyLoadingError|MasterDownError|ResponseError: (BUSY|UNBLOCKED) ")

#: What redis-py puts before the error of one of several commands: that command, which says nothing to anybody.
_OF_SEVERAL = re.compile(r"Command # \d+ \(.*?\) of pipeline caused error: ", re.DOTALL)


def told(error: Exception) -> str:
    """Returns an error's class and what it says."""
    return f"{type(error).__name__}: {_OF_SEVERAL.sub('', str(error))}".rstrip(".")


def advice(error: Exception) -> str:
    """Returns why Redis refuses everybody or this user, and what to do; empty for any other error."""
    return next((advised for pattern, advised in _REFUSALS if re.match(pattern, told(error))), "")


def passes(error: Exception) -> bool:
    """Returns whether an error is of an outage: a restart, a failover, a wire that is cut for a while."""
    away = isinstance(error, (ConnectionError, TimeoutError)) and not advice(error)
    return away or _PASSING.match(told(error)) is not None
