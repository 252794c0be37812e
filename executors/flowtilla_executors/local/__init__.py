"""The Local executor: stages run on this machine, in child processes or in threads."""

from flowtilla_executors.local.executor import LocalExecutor

__all__ = ["LocalExecutor"]
