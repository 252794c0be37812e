"""What a worker that was told to stop has time for."""

import pytest

from flowtilla_worker.stopping import CLAIMED, CLOSED, GIVEN_UP, GONE, HANDED_BACK, Stopping, killed_after


@pytest.mark.parametrize(
    ("grace", "for_runs", "within"), [(60, 55, 60), (25, 20, 25), (16, 12, 16), (8, 5, 8), (3, 0, 3), (0, 0, 3)]
)
def test_runs_have_most_of_the_grace(grace: float, for_runs: float, within: float) -> None:
    """A quarter is kept back, at least 3 s and at most 5; what is printed is what holds."""
    stopping = Stopping(grace, lambda seconds: None)

    assert stopping.for_runs == for_runs
    assert str(stopping) == f"on SIGTERM runs have {for_runs} s to end, and the worker ends within {within} s"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("grace", [0.0, 4.0, 25.0, 600.0])
def test_each_step_ends_before_the_next_and_all_before_the_grace(grace: float, times: int) -> None:
    """Claim, runs, executor, the rest, then force by the process itself and by its supervisor; told twice, soon."""
    forced: list[float] = []
    stopping = Stopping(grace, forced.append)

    for _ in range(times):
        stopping.tell()

    steps = [stopping.left(share) for share in (CLAIMED, HANDED_BACK, GIVEN_UP, CLOSED, GONE)]
    ends = [*steps, forced[-1], killed_after(grace), max(grace, 3.0)]
    assert ends == sorted(ends)
    assert steps[0] > stopping.for_runs * (times == 1)
    assert times == 1 or forced[-1] < 5


def test_who_is_not_told_is_in_no_hurry() -> None:
    """A burst that ends by itself has patience, and nobody ends its process."""
    stopping = Stopping(1.0, lambda seconds: pytest.fail("nobody told it"))

    assert stopping.left(GONE) == stopping.left(CLAIMED) == 10
