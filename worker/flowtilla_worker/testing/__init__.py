"""For your own tests: runs a workflow through the very same engine, with no server.

    from flowtilla_worker.testing import run_workflow

    def test_features():
        run = run_workflow("workflow.yaml", input={"n": 5}, executor="local")
        assert run.result() == 30

Needs the extra `flowtilla[testing]`. The pytest fixture `run_workflow` does the same with storage under `tmp_path`.
"""

from flowtilla_worker.testing.executors import started_executor
from flowtilla_worker.testing.running import run_workflow

__all__ = ["run_workflow", "started_executor"]
