"""Submits stages before their parents have ended, where the executor itself runs a call after those it refers to."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowtilla.errors import FlowtillaError
from flowtilla_executors import Call
from flowtilla_worker.engine.calls import Caller
from flowtilla_worker.engine.value import Parents, Value
from flowtilla_worker.plan.plan import Plan

#: How many stages of a run may be submitted that could not begin yet.
_MOST = 64


@dataclass(frozen=True, slots=True)
class Submitted:
    """A stage's call that was submitted ahead.

    Args:
        handle: the call's.
        call: the call.
        parents: the handles it refers to.
        follows: of them, by stage, those that had not ended.
    """

    handle: Any
    call: Call
    parents: Sequence[Any]
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
        self._submitted: dict[str, Submitted] = {}

    def __bool__(self) -> bool:
        return bool(self._submitted)

    def follow(self, name: str, handle: Any) -> None:
        """Submits what can follow a stage that has just been submitted itself."""
        if self._caller.submits_ahead:
            self._running[name] = handle
            for child in self._plan.stages[name].children:
                if len(self._submitted) < _MOST:
                    self._submit(child)

    def take(self, name: str) -> Submitted | None:
        """Returns the call of a stage that begins now; None when it was not submitted, or follows the wrong calls."""
        submitted = self._submitted.pop(name, None)
        if submitted is None:
            return None
        # A parent that was tried again has another handle by now.
        right = all(self._values[parent].handle is handle for parent, handle in submitted.follows.items())
        return submitted if right else None

    def ended(self, name: str) -> None:
        """Forgets a stage that has ended, or will not run."""
        self._running.pop(name, None)
        # If it was submitted, it sees itself that it cannot follow its parents.
        self._submitted.pop(name, None)

    async def close(self) -> None:
        """Stops what was submitted and has not begun."""
        await asyncio.gather(*[self._caller.cancel(one.handle, name) for name, one in self._submitted.items()])

    def _submit(self, name: str) -> None:
        planned = self._plan.stages[name]
        follows = {parent: self._running[parent] for parent in planned.parents if parent in self._running}
        # One with a stage_timeout is to know when that is over, which nobody can say before it begins.
        if planned.mapped or planned.options.stage_timeout is not None:
            return
        if any(one not in follows and one not in self._values for one in planned.parents):
            return
        values = [Value(follows[one]) if one in follows else self._values[one] for one in planned.stage.depends_on]
        parents = Parents()
        call = replace(self._caller.stage_call(planned, values, parents), ahead=True)
        # It follows all its parents, those whose values it does not take too.
        parents.handles += [handle for handle in follows.values() if handle not in parents.handles]
        try:
            handle = self._caller.submit(call, parents.handles)
        except FlowtillaError:
            return  # it says so again when its turn has come
        self._submitted[name] = Submitted(handle, call, parents.handles, follows)
        self.follow(name, handle)
