"""The conformance suite on the table's rows."""

import sys
from pathlib import Path

import pytest

# Suite and stages are no test modules: they are found, by child processes too, on the path.
sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("executor_bench", "executor_suite", "executor_suite_running")

from executor_bench import backend, fresh, isolated, shared, executor  # noqa: E402, F401, I001
from executor_suite import *  # noqa: E402, F403
from executor_suite_running import *  # noqa: E402, F403
