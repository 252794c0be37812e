"""What a stage can learn about where it runs."""

import copy
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flowtilla.cancellation import Cancellation
from flowtilla.errors import NotInStage
from flowtilla.settings import StorageSettings


@dataclass(frozen=True)
class Context:
    """The run, stage and item that the current code belongs to.

    Args:
        run_id: the run's id, which is also the RQ job's.
        namespace: where the run's artifacts and objects live.
        workflow: the workflow's name.
        stage: the stage's name.
        item: the index of the mapped item, or None for a simple stage.
        attempt: which attempt of the run this is, from 1.
        executor: the executor's kind: `local`, `ray`, `dask`.
        timeout: seconds this stage or item may take, or None.
    """

    run_id: str
    namespace: str
    workflow: str
    stage: str
    attempt: int
    executor: str
    item: int | None = None
    timeout: float | None = None
    _input: dict[str, Any] = field(default_factory=dict, repr=False)
    _config: dict[str, Any] = field(default_factory=dict, repr=False)
    _storage: StorageSettings | None = field(default=None, repr=False)
    # Records of what the stage stored; published when the stage is committed, discarded when it fails.
    _staged: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)
    _started: float = field(default_factory=time.time, repr=False)
    _cancellation: Cancellation | None = field(default=None, repr=False, compare=False)
    # When the time of the whole stage or of the run is over, by the worker's clock.
    _over: float | None = field(default=None, repr=False)

    # Copies, since stages that share a process must not share a mutable value.
    @cached_property
    def input(self) -> dict[str, Any]:
        """The run's whole input, keys that no parameter takes included."""
        return copy.deepcopy(self._input)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The mapping given to `submit(config=...)`."""
        return copy.deepcopy(self._config)

    @property
    def logger(self) -> logging.Logger:
        """A logger whose records reach the run's log; so do those of any other logger, print and stderr."""
        return logging.getLogger(f"flowtilla.stage.{self.stage}")

    @property
    def deadline(self) -> float | None:
        """When the time of this stage or item is over, or that of the whole stage or run if that is sooner.

        In seconds since the epoch; None when none of them has a limit.
        """
        own = None if self.timeout is None else self._started + self.timeout
        return min((one for one in (own, self._over) if one is not None), default=None)

    @property
    def cancelled(self) -> bool:
        """Whether this stage or item is to stop: its run was cancelled or is handed back, or its time is over.

        Long loops may look at it and return; what they return then nobody takes.
        """
        return self._cancellation is not None and self._cancellation.look()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Registers clean-up for when this stage or item is to stop; it runs then, once, in the stage's process.

        Args:
            callback: a plain function without arguments. It runs on a thread of its own while the stage still does, the
                last one registered first, and is forgotten when the stage's function, or that of the item, has ended.

        Raises:
            TypeError: it is not a plain function.
        """
        if self._cancellation is not None:
            self._cancellation.on_request(callback)


_current: ContextVar[Context | None] = ContextVar("flowtilla_context", default=None)


def context() -> Context:
    """Returns the context of the stage that is running.

    Raises:
        NotInStage: no stage is running here.
    """
    found = _current.get()
    if found is None:
        raise NotInStage(
            "flowtilla.context() was called outside a stage: it works in functions that a worker runs as a stage; "
            "in a test, run the workflow with flowtilla_worker.testing.run_workflow"
        )
    return found


def current() -> Context | None:
    """Returns the context of the stage that is running, or None outside one."""
    return _current.get()


class entered:
    """Makes a context the current one while it is entered; its clock starts then.

    On the way of every item of every map, so it does without `replace`, which is several times slower.

    Args:
        base: the context.
        changes: replace its fields.
    """

    __slots__ = ("_context", "_token")

    def __init__(self, base: Context, **changes: Any) -> None:
        self._context = object.__new__(Context)
        self._context.__dict__.update(base.__dict__ | changes)

    def __enter__(self) -> Context:
        self._context.__dict__["_started"] = time.time()
        self._token = _current.set(self._context)
        return self._context

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)
