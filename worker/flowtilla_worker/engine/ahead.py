"""Submits stages before their parents have ended, where the executor itself runs a call after those it refers to."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flowtilla.errors import FlowtillaError
from flowtilla_worker.engine.calls import Caller
from flowtilla_worker.engine.value import Parents, Value
from flowtilla_worker.plan.plan import Plan

#: How many stages of a run may be submitted that could not begin yet.
_MOST = 64


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A stage's call, and the calls of its parents that it follows, by stage."""

    handle: Any
    follows: Mapping[str, Any]


class Ahead:
    """The stages of one attempt that were submitted ahead.

    Args:
        plan: the workflow.
        caller: makes the calls.
        values: the values of the stages that are done.
    """

    def __init__(self, plan: Plan, caller: Caller, values: Mapping[str, Value]) -> None:
        self._plan = plan
        self._caller = caller
        self._values = values
        self._running: dict[str, Any] = {}
        self._submitted: dict[str, _Submitted] = {}

    def follow(self, name: str, handle: Any) -> None:
        """Submits what can follow a stage that has just been submitted itself."""
        if self._caller.submits_ahead:
            self._running[name] = handle
            for child in self._plan.stages[name].children:
                if len(self._submitted) < _MOST:
                    self._submit(child)

    def take(self, name: str) -> Any:
        """Returns the handle of a stage that begins now; None when it was not submitted, or follows the wrong calls."""
        submitted = self._submitted.pop(name, None)
        if submitted is None:
            return None
        # A parent that was tried again has another handle by now.
        right = all(self._values[parent].handle is handle for parent, handle in submitted.follows.items())
        return submitted.handle if right else None

    def ended(self, name: str) -> None:
        """Forgets a stage that has ended, or will not run."""
        self._running.pop(name, None)
        # If it was submitted, it sees itself that it cannot follow its parents.
        self._submitted.pop(name, None)

    async def close(self) -> None:
        """Stops what was submitted and has not begun."""
        await asyncio.gather(*[self._caller.cancel(one.handle) for one in self._submitted.values()])

    def _submit(self, name: str) -> None:
        planned = self._plan.stages[name]
        follows = {parent: self._running[parent] for parent in planned.parents if parent in self._running}
        if planned.mapped or any(one not in follows and one not in self._values for one in planned.parents):
            return
        values = [Value(follows[one]) if one in follows else self._values[one] for one in planned.stage.depends_on]
        parents = Parents()
        call = self._caller.stage_call(planned, values, parents)
        # It follows all its parents, those whose values it does not take too.
        parents.handles += follows.values()
        try:
            handle = self._caller.submit(replace(call, ahead=True), parents.handles)
        except FlowtillaError:
            return  # it says so again when its turn has come
        self._submitted[name] = _Submitted(handle, follows)
        self.follow(name, handle)
