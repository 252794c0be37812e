"""Starting a Ray cluster of one's own, and joining one that is there."""

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import dropwhile
from typing import Any

from flowtilla.errors import ClusterMismatch, ClusterUnreachable, ExecutorError
from flowtilla_executors import handshake
from flowtilla_executors.outcome import LIVES
from flowtilla_executors.ray import probe
from flowtilla_executors.ray.options import Options

#: What must be the same on all nodes.
_PACKAGES = (*handshake.PACKAGES, "ray")

#: What a Ray Client server says when it cannot give our process what `runtime_env` asks for.
_UNPREPARED = "Failed to create runtime_env"

#: What Ray says when none of a cluster's nodes is on this machine.
_NODELESS = "No node info found"

_EVERYWHERE = {
    # A call may go down with so many processes, whatever ends them.
    "RAY_task_oom_retries": str(LIVES - 1),
    # As our own handshake has it.
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

_JOINING = {
    # Seconds in which a node must be found on this machine; ours to join are 30.
    "RAY_gcs_server_request_timeout_seconds": "12",
    # Seconds in which Ray Client connects again; then our watch has given it up, and its server need not wait longer.
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "5",
}

# Despite its name: whether Ray may use an address that other machines can reach.
_OUTWARD = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

_LOCAL = {
    _OUTWARD: "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # What a call started goes with its process.
    "RAY_process_group_cleanup_enabled": "1",
    # Free ones, in place of fixed.
    "AUTOSCALER_METRIC_PORT": "0",
    "DASHBOARD_METRIC_PORT": "0",
}

#: What a server listens on to be reached at each address of its machine.
_EVERY_ADDRESS = ("0.0.0.0", "::")

# Ray keeps what became of the last 100,000 tasks, some 400 MiB, for a dashboard to show.
_UNWATCHED = {"RAY_task_events_report_interval_ms": "0"}


@contextmanager
def join(options: Options, warn: Callable[[str], None]) -> Iterator[tuple[str | None, str]]:
    """Starts or joins the cluster, makes sure that it can run our calls, and leaves it.

    A local cluster is left to the worker, who kills it as a whole.

    Args:
        options: the executor's.
        warn: takes what an operator should know.

    Returns:
        The address of its control store, None behind Ray Client; and what there is to say of the cluster.

    Raises:
        ClusterUnreachable: it does not answer.
        ClusterMismatch: it has other versions, or lacks a module.
        ExecutorError: Ray cannot give a stage's process what the options ask for.
    """
    os.environ.update(_EVERYWHERE)
    if options.address == "auto":
        options = replace(options, address=probe.find())
    given = _start(options) if options.address is None else _connect(options, options.address, warn)
    # Only now, since Ray reads the environment when it is imported.
    import ray

    from flowtilla_executors.ray import client

    initialise = partial(
        ray.init, namespace="flowtilla", log_to_driver=options.log_to_driver, logging_level=logging.ERROR, **given
    )
    try:
        context: Any = client.begin(initialise, _UNPREPARED) if _is_client(options) else initialise()
    except (ConnectionError, RuntimeError) as error:
        raise _named(options, error) from error
    _compare(options)
    if _is_client(options):
        client.keep()
        yield None, f"Ray {ray.__version__}"
    else:
        found = context.address_info
        yield found["gcs_address"], f"Ray {ray.__version__}{_dashboard(options, found['webui_url'] or '')}"
    if options.address is not None:
        ray.shutdown()


def _start(options: Options) -> dict[str, Any]:
    """Returns what makes `ray.init` start a cluster, and sets the environment for it."""
    assert options.folder is not None
    token = options.folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)
    unwatched = _UNWATCHED if options.dashboard is None else {}
    os.environ.update(_LOCAL | unwatched | options.env_vars, RAY_AUTH_TOKEN_PATH=str(token))
    if options.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(options.gpus)
    host, port = options.dashboard or (None, None)
    return {
        "address": "local",
        "runtime_env": options.runtime_env or None,
        "num_cpus": options.cpus,
        "num_gpus": len(options.gpus),
        "resources": options.resources or None,
        "_memory": options.memory,
        "object_store_memory": options.object_store_memory,
        "include_dashboard": options.dashboard is not None,
        "dashboard_host": host or "127.0.0.1",
        "dashboard_port": port,
        "job_config": _job(options),
        "_temp_dir": str(options.folder),
        "_node_ip_address": "127.0.0.1",
    }


def _connect(options: Options, address: str, warn: Callable[[str], None]) -> dict[str, Any]:
    """Returns what makes `ray.init` join a cluster, and sets the environment for it."""
    token, path = probe.find_token(options)
    guarded = probe.ask(options, address, token)
    if not guarded and not probe.is_private(address):
        warn(
            f"{options.name} asks for no token: whoever reaches it can run code there. Start it with "
            "RAY_AUTH_MODE=token"
        )
    if probe.hides(address):
        os.environ[_OUTWARD] = "0"
    os.environ.update(_JOINING, RAY_AUTH_MODE="token" if guarded else "disabled")
    if guarded and path is not None:
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    environment = options.runtime_env | ({"env_vars": options.env_vars} if options.env_vars else {})
    given = {"address": address, "runtime_env": environment or None}
    return given if _is_client(options) else given | {"job_config": _job(options)}


def _dashboard(options: Options, url: str) -> str:
    """Returns where a local cluster's dashboard is, which asks for the cluster's token."""
    if options.dashboard is None or options.folder is None:
        return ""
    host, port = options.dashboard[0], url.rpartition(":")[2]
    if host in _EVERY_ADDRESS:
        host = "127.0.0.1"
    # Ray says 127.0.0.1 wherever it listens.
    return f", dashboard at http://{host}:{port}, which asks for the token in {options.folder / 'token'}"


def _job(options: Options) -> Any:
    """Returns the job's settings, with this process's own folders of modules, unless others are shipped."""
    from ray.job_config import JobConfig

    shipped = options.runtime_env.keys() & {"working_dir", "py_modules"}
    python = (sys.prefix, sys.base_prefix)
    return JobConfig(_py_driver_sys_path=[] if shipped else [path for path in sys.path if not path.startswith(python)])


def _compare(options: Options) -> None:
    """Makes sure that every node has what this process has."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray_nodes: Any = ray.nodes
    look = ray.remote(num_cpus=0, max_retries=0)(handshake.portable_look())
    nodes = [node["NodeID"] for node in ray_nodes() if node["Alive"]]
    looking = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            _PACKAGES, options.modules
        )
        for node in nodes
    ]
    try:
        for found in ray.get(looking):
            handshake.check(found, _PACKAGES, options.name)
    except ray.exceptions.RuntimeEnvSetupError as error:
        raise _unprepared(options, error) from error
    except ray.exceptions.RayError as error:
        # A node, or the process on it, died just then.
        raise ClusterUnreachable(f"{options.name} cannot be joined: {_said(error)}") from error


def _named(options: Options, error: Exception) -> Exception:
    """Returns our error for one of `ray.init`."""
    if "ersion mismatch" in str(error):
        return ClusterMismatch(
            f"{options.name} is not like this worker: {_said(error)}. Install the same on both sides"
        )
    if _UNPREPARED in str(error):
        return _unprepared(options, error)
    if _NODELESS in str(error.__cause__):
        return ClusterUnreachable(
            f"{options.name} cannot be joined: no node of it is on this machine. Start one here with "
            f"`ray start --address={options.address}`, or use a ray:// address"
        )
    if isinstance(error, ConnectionError):
        return ClusterUnreachable(f"{options.name} cannot be joined: {_said(error)}")
    return ExecutorError(f"{options.name} cannot be used: {_said(error)}")


def _unprepared(options: Options, error: Exception) -> ExecutorError:
    return ExecutorError(f"{options.name} cannot set up `pip`, `working_dir` or `py_modules`: {_said(error)}")


def _said(error: Exception) -> str:
    """Returns what an error says on one line, without the tracebacks that Ray puts into it."""
    lines = str(error).splitlines()
    traced = max((number for number, line in enumerate(lines) if line.startswith('  File "')), default=None)
    own = lines if traced is None else dropwhile(lambda line: line.startswith("  "), lines[traced:])
    cause = error.__cause__
    return " ".join(" ".join(own).split()) + (f" ({_said(cause)})" if isinstance(cause, Exception) else "")


def _is_client(options: Options) -> bool:
    return (options.address or "").startswith("ray://")
