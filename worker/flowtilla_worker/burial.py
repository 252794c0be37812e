"""What is done for a worker that died by whoever saw it die: its runs need not wait until their leases run out."""

import logging

from redis.exceptions import RedisError

from flowtilla import keys
from flowtilla.redis_settings import RedisSettings
from flowtilla_worker.connections import Connections
from flowtilla_worker.scripts import BURY

_log = logging.getLogger("flowtilla.supervisor")

#: Seconds for a Redis to answer; without it the leases run out by themselves.
_PATIENCE = 2.0


def bury(redis: RedisSettings, worker: str, ending: str, successor: str) -> None:
    """Notes how a worker ended, lets the leases of its runs run out at once, and hands on what it was told.

    Args:
        redis: where its runs are.
        worker: its name.
        ending: how it ended, such as `signal SIGKILL`.
        successor: the worker that is started in its place, if one is.
    """
    connection = Connections(redis).blocking(patience=_PATIENCE)
    try:
        names = (keys.LEASES, keys.worker(worker), keys.order(worker), keys.order(successor))
        held = connection.eval(BURY.text, len(names), *names, worker, ending, keys.job(""))
    except (RedisError, OSError) as error:
        _log.warning("the runs of worker %s wait until their leases run out: %s", worker, error)
    else:
        if held:
            _log.warning("%d runs of worker %s are taken over", held, worker)
    finally:
        connection.close()
