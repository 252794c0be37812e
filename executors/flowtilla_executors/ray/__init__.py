"""The Ray executor: stages run as Ray tasks, on a cluster of their own or on one that is there.

Ray lives in a process of its own, the driver process: it may end the process that it is in when its cluster dies,
blocks whoever calls it for seconds, and takes signal handlers for itself. The worker talks to it over a socket and
never imports Ray.
"""

from importlib.util import find_spec

if find_spec("ray") is None:
    raise ImportError("No module named 'ray'")

from flowtilla_executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
