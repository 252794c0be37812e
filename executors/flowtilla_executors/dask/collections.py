"""Dask's own collections as values of stages: computed on the cluster, and left there in their parts."""

import pickle
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dask.base import unpack_collections
from distributed import Client, Future, futures_of, get_client, secede

from flowtilla_executors.dask.owning import alone
from flowtilla_executors.values import Snapshot, Uncomputed, lent, snapshot

#: Seconds until a wait for the parts of a collection looks whether its stage was stopped.
_LOOK = 0.5

#: Before calls that wait: what they wait for may be these parts.
_PRIORITY = 1_000_000


@dataclass(frozen=True, slots=True)
class Persisted:
    """The snapshot of a value that holds Dask collections, which lie on the cluster in parts.

    Args:
        stream: its pickle; in place of each part stands the part's key.
        keys: of the parts, which somebody must ask the scheduler to keep.
        nbytes: of all parts together.
    """

    stream: bytes
    keys: tuple[Any, ...]
    nbytes: int
    #: Keeps the parts until the flowtilla process does; in no pickle.
    futures: Sequence[Future] = field(default=(), repr=False, compare=False)

    @property
    def size(self) -> int:
        # Of what a worker holds for this value alone.
        return len(self.stream)

    def load(self, readonly: bool = False) -> Any:
        return pickle.loads(self.stream)

    def __reduce__(self) -> tuple[Any, ...]:
        return Persisted, (self.stream, self.keys, self.nbytes)


def keep(value: Any) -> Snapshot:
    """Returns the value as it is now; a Dask collection is computed first, an array that nobody holds is not copied.

    Raises:
        Uncomputed: a part of a collection raised.
        Exception: the value cannot be pickled.
    """
    references = sys.getrefcount(value)
    if _holds_collection(value):
        return _persisted(value)
    return lent(value) if alone(value, references) else snapshot(value)


def held(client: Client, keys: Sequence[Any]) -> list[Future]:
    """Returns futures of parts, which the cluster keeps as long as they live."""
    client._send_to_scheduler({"op": "client-desires-keys", "keys": list(keys), "client": client.id})
    return [Future(key, client) for key in keys]


def _persisted(value: Any) -> Persisted:
    client = get_client()
    collections, repack = unpack_collections(value)
    (persisted,) = repack(client.persist(collections, priority=_PRIORITY))
    futures = futures_of(persisted)
    # Others may use this thread meanwhile: the parts, if there is no other one.
    secede()
    if (error := next(filter(None, map(_error, futures)), None)) is not None:
        for future in futures:
            future.release()  # the traceback holds them
        raise Uncomputed(error)
    keys = tuple(future.key for future in futures)
    nbytes = sum(client.nbytes(list(keys), summary=False).values())
    return Persisted(pickle.dumps(persisted, protocol=5), keys, nbytes, futures)


def _error(future: Future) -> BaseException | None:
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    # Not Dask's own `wait`: what that raises when time is up holds all parts until the garbage is collected.
    while not ended.wait(_LOOK):
        continue
    error: BaseException | None = future.exception()
    return error


def _holds_collection(value: Any) -> bool:
    """Returns whether a value is a collection, or a plain list, tuple or mapping with some in it."""
    if type(value) in (list, tuple):
        return any(hasattr(kind, "__dask_graph__") for kind in set(map(type, value)))
    if type(value) is dict:
        return any(hasattr(kind, "__dask_graph__") for kind in set(map(type, value.values())))
    return hasattr(type(value), "__dask_graph__")
