"""The conformance suite of the executors, on every row of `backends`."""

from executor_bench import executor, fresh, isolated  # noqa: F401
from executor_suite import *  # noqa: F403
from executor_suite_running import *  # noqa: F403
from executor_suite_stopping import *  # noqa: F403
