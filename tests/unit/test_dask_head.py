"""What the process that holds a local Dask cluster makes of its worker processes."""

import os
from types import SimpleNamespace

import distributed  # noqa: F401 - its settings
import psutil
import pytest

from flowtilla_executors.dask import head


@pytest.mark.parametrize(("times", "room"), [(0.5, False), (1 / 0.9, False), (2, True), (0, True)])
def test_a_worker_process_must_have_more_memory_than_it_takes_at_rest(times: float, room: bool) -> None:
    """Beyond 80% Dask would give it no work, beyond 95% it would end it; without a limit nothing is refused."""
    limit = round(times * psutil.Process().memory_info().rss) or None
    nanny = SimpleNamespace(pid=os.getpid(), memory_manager=SimpleNamespace(memory_limit=limit))

    if room:
        head._check_room(nanny)
    else:
        with pytest.raises(head.TooLittleMemory, match=rf"with nothing to do, and has a limit of {limit:,}"):
            head._check_room(nanny)
