"""What somebody tells workers and queues: one conversation per verb."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flowtilla import keys
from flowtilla.errors import InvalidName, QueueNotFound, WorkerNotFound
from flowtilla.names import check_name
from flowtilla.steps import Steps, pipeline
from flowtilla.workers import Order, WorkerRecord, list_workers

#: Seconds that an order is kept once its worker does not ask for it any more.
_KEPT = 86_400

#: One command of a round trip.
_Command = Callable[[Any], Any]


@dataclass(frozen=True)
class Whom:
    """Whom an order is for.

    Args:
        workers: live workers, by name.
        queues: queues.
        all: the whole fleet.

    Raises:
        ValueError: it is for nobody.
    """

    workers: Collection[str] = ()
    queues: Collection[str] = ()
    all: bool = False

    def __post_init__(self) -> None:
        if not (self.workers or self.queues or self.all):
            raise ValueError("name workers or queues, or say all=True")

    def among(self, live: Sequence[WorkerRecord]) -> list[WorkerRecord]:
        """Returns the live workers that it concerns.

        Raises:
            WorkerNotFound: one that is named is not among them.
        """
        names = {worker.name for worker in live}
        for name in self.workers:
            if name not in names:
                raise WorkerNotFound(f"no live worker is named {name!r}: {_listed('workers', names)}")
        return [one for one in live if self.all or one.name in self.workers or {*one.queues} & {*self.queues}]


def drain(whom: Whom) -> Steps[list[WorkerRecord]]:
    """Tells workers to take no more runs, and to end when they have none left; returns them.

    Raises:
        WorkerNotFound: no live worker has the name, or works on the queue.
    """
    live = yield from list_workers()
    concerned = whom.among(live)
    served = {queue for worker in live for queue in worker.queues}
    for queue in whom.queues:
        if queue not in served:
            raise WorkerNotFound(f"no live worker works on queue {queue!r}: {_listed('queues worked on', served)}")
    yield from _tell([_order(one.name, Order.DRAIN) for one in concerned], concerned)
    # They may have ended by now.
    return [replace(one, state="draining") for one in concerned]


def suspend(whom: Whom) -> Steps[list[WorkerRecord]]:
    """Tells workers to take no runs, or that nobody is to take any from queues; returns the workers it concerns.

    Raises:
        WorkerNotFound: no live worker has the name.
        QueueNotFound: there is no such queue.
    """
    live = yield from list_workers()
    concerned = whom.among(live)
    yield from _check_queues(whom, live)
    commands = [_order(name, Order.SUSPEND) for name in whom.workers]
    for queue in whom.queues:
        # Known for as long as it is suspended, whoever works on it.
        commands += [partial(_add, keys.QUEUES, keys.queue(queue)), partial(_set, keys.suspended(queue), "1", None)]
    if whom.all:
        commands.append(partial(_set, keys.SUSPENDED, "1", None))
    yield from _tell(commands, concerned)
    return whom.among((yield from list_workers()))


def resume(whom: Whom) -> Steps[list[WorkerRecord]]:
    """Takes back what workers, queues or the fleet were told; for the fleet, whatever any of them was told.

    Returns:
        The workers it concerns.

    Raises:
        WorkerNotFound: no live worker has the name.
        QueueNotFound: there is no such queue.
    """
    live = yield from list_workers()
    concerned = whom.among(live)
    known = yield from _check_queues(whom, live)
    workers, queues = ([one.name for one in live], known) if whom.all else (whom.workers, whom.queues)
    switches = [*map(keys.order, workers), *map(keys.suspended, queues), *([keys.SUSPENDED] if whom.all else [])]
    yield from _tell([partial(_delete, key) for key in switches], concerned)
    return whom.among((yield from list_workers()))


def _check_queues(whom: Whom, live: Sequence[WorkerRecord]) -> Steps[set[str]]:
    """Returns every queue that is known, those that an order names among them.

    Raises:
        QueueNotFound: one of those is not known.
    """
    known = {queue for worker in live for queue in worker.queues}
    for key in (yield lambda redis: redis.smembers(keys.QUEUES)):
        with suppress(InvalidName):
            known.add(keys.line_name(key.decode(errors="replace"))[0])
    for queue in whom.queues:
        if check_name(queue, "queue") not in known:
            raise QueueNotFound(f"there is no queue {queue!r}, no run was ever in it: {_listed('queues', known)}")
    return known


def _tell(commands: Sequence[_Command], concerned: Sequence[WorkerRecord]) -> Steps[None]:
    """Sends commands, and wakes the workers that they concern; one that misses that hears within a second too."""
    queues = sorted({queue for worker in concerned for queue in worker.queues})
    waking = [partial(_publish, keys.wake(queue)) for queue in queues]
    if commands or waking:
        yield from pipeline(*commands, *waking)


def _order(worker: str, order: Order) -> _Command:
    return partial(_set, keys.order(worker), order.value, _KEPT)


def _set(key: str, value: str, seconds: int | None, redis: Any) -> Any:
    return redis.set(key, value, ex=seconds)


def _add(key: str, member: str, redis: Any) -> Any:
    return redis.sadd(key, member)


def _delete(key: str, redis: Any) -> Any:
    return redis.delete(key)


def _publish(channel: str, redis: Any) -> Any:
    return redis.publish(channel, "")


def _listed(what: str, names: Collection[str]) -> str:
    return f"{what}: {', '.join(sorted(names)) or 'none'}"
