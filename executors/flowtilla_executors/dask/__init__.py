"""The Dask executor: stages run on a Dask cluster, started here or elsewhere."""

from flowtilla_executors.dask.executor import DaskExecutor

__all__ = ["DaskExecutor"]
