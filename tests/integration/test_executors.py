"""The conformance suite of the executors, on every row of `backends`."""

import sys
from pathlib import Path

import pytest

# Suite and stages are no test modules: they are found, by child processes too, on the path.
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("executor_bench", "executor_suite", "executor_suite_running")

from executor_bench import executor, fresh, isolated  # noqa: E402, F401
from executor_suite import *  # noqa: E402, F403
from executor_suite_running import *  # noqa: E402, F403
