"""A stage that holds its worker's interpreter, in C, keeps its run: a deputy renews for the worker."""


from redis import Redis

from fleet import LEASE, Fleet

#: Seconds that a stage holds the interpreter for.
HELD = 4 * int(LEASE)


def hold(fleet: Fleet, seconds: int = HELD):
    """Submits a run whose stage holds the interpreter, and waits until it does."""
    run = fleet.submit({"name": "holds"}, input={"folder": str(fleet.folder), "seconds": seconds})
    fleet.begun()
    return run


def test_a_stage_that_holds_the_interpreter_keeps_its_run(fleet: Fleet, redis: Redis) -> None:
    """For four leases nothing of the worker runs, and yet no other worker gets the run, which ends in one attempt."""
    fleet.start("holder", concurrency=1)
    run = hold(fleet)
    fleet.start("other")

    assert run.result(timeout=60) == HELD
    assert (run.record.attempt, run.record.worker, run.record.losses) == (1, "holder", 0)
