"""In which words a call on Dask ends that did not come to its own end."""

import asyncio

from flowtilla.context import Context
from flowtilla.errors import ClusterLost
from flowtilla_executors import Call, Outcome
from flowtilla_executors.dask.endings import Endings
from flowtilla_executors.dask.handle import Handle


class EndedTask:
    """The future of a task that has its value."""

    status = "finished"

    async def exception(self) -> None:
        return None


def test_a_call_of_whose_end_nothing_was_heard_makes_its_run_be_tried_again() -> None:
    """No process died of it, and nobody says so."""

    async def never() -> ClusterLost:
        raise AssertionError("nobody asks")

    async def ended() -> Outcome | None:
        context = Context(run_id="r1", namespace="n", workflow="w", stage="stage", attempt=1, executor="dask")
        handle = Handle(Call("builtins.dict", context), ())
        handle.future = EndedTask()
        return await Endings(never).of(handle)

    outcome = asyncio.run(ended())

    assert outcome is not None and outcome.failure is not None
    assert not outcome.failure.lost
    assert outcome.failure.error == "flowtilla.errors.ValueLost"
    assert outcome.failure.message == (
        "stage 'stage' of run r1 cannot go on where it is: it ended, but how was not heard: the scheduler may be "
        "overloaded"
    )
