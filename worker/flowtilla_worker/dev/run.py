"""Starts the server, the dashboard and the workers of a folder, and stops them together."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from flowtilla import config
from flowtilla.settings import Settings
from flowtilla_worker.burial import bury
from flowtilla_worker.dev.dashboard import INSTALL, Dashboard
from flowtilla_worker.dev.embedded import EmbeddedValkey
from flowtilla_worker.logsetup import configure_logging
from flowtilla_worker.supervisor import Supervisor, worker_command, worker_names

_NOT_MODULES = {"setup", "conftest"}


def run_dev(processes: int = 1, port: int | None = None, dashboard: bool = True, file: Path | None = None) -> int:
    """Runs everything the working directory needs, until SIGINT or SIGTERM.

    Args:
        processes: so many workers.
        port: the server's port; a free one when None.
        dashboard: start rq-dashboard, where it is installed.
        file: the configuration file; found as `flowtilla.config.load` does when None.

    Returns:
        The exit code.

    Raises:
        QueueUnavailable: the server cannot start, or `flowtilla dev` runs in this folder already.
    """
    configure_logging(config.load(file).logging)
    folder = config.DEV_FILE.absolute().parent
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedValkey(folder, persistent=True, port=port))
        board = None
        if dashboard and Dashboard.installed():
            board = stack.enter_context(Dashboard(server.url, folder / "dashboard.log"))
        stack.enter_context(_announced(server.url))
        # Sentinels or certificates that the configuration names are not this server's.
        own = {"url": server.url, "tls": None, "sentinel": None}
        settings = config.load(file, overrides={"redis": own})
        targets = [*settings.services.worker.allowed_targets, *folder_targets(Path.cwd())]
        _say(settings, server.url, targets, processes, _about(board, dashboard), file)
        env = {name: value for name, value in os.environ.items() if not name.startswith(f"{config.PREFIX}REDIS")}
        env[f"{config.PREFIX}REDIS"] = json.dumps(own)
        env[f"{config.PREFIX}SERVICES__WORKER__ALLOWED_TARGETS"] = json.dumps(targets)
        flags = [] if file is None else ["--config", str(file)]
        names = worker_names("dev", processes)
        # The workers hold the server: should this process be killed, it stays until they have handed back their runs.
        supervisor = Supervisor(
            names,
            lambda name: worker_command(name, *flags),
            partial(bury, settings.redis),
            settings.services.worker.grace,
            env=env,
            keep_open=[server.hold],
        )
        return supervisor.run()


def folder_targets(folder: Path) -> list[str]:
    """Returns patterns of the targets in a folder's own modules and packages."""
    modules = {path.stem for path in folder.glob("*.py")} - _NOT_MODULES
    packages = {path.name for path in folder.iterdir() if path.is_dir() and _is_package(path)}
    return [f"{name}.*" for name in sorted(modules | packages) if name.isidentifier() and not name.startswith("_")]


def _is_package(path: Path) -> bool:
    return any(path.glob("*.py")) and not (path / "pyvenv.cfg").exists()


@contextmanager
def _announced(url: str) -> Iterator[None]:
    """Lets commands in this folder find the server, as long as it is there."""
    config.DEV_FILE.write_text(json.dumps({"pid": os.getpid(), "url": url}))
    try:
        yield
    finally:
        config.DEV_FILE.unlink(missing_ok=True)


def _about(board: Dashboard | None, wanted: bool) -> str:
    if board is not None:
        return board.url or f"did not start; see {config.DEV_FILE.parent / 'dashboard.log'}"
    return f"not installed: {INSTALL}" if wanted else "not wanted"


def _say(settings: Settings, url: str, targets: list[str], processes: int, board: str, file: Path | None) -> None:
    print(f"flowtilla dev in {Path.cwd()}; Ctrl-C stops everything\n")
    print(f"  server     {url}  (its data is kept in {config.DEV_FILE.parent})")
    print(f"  dashboard  {board}")
    print(
        f"  workers    {processes}, which may run the modules of this folder: {', '.join(targets) or 'there are none'}"
    )
    print("\nType next, in another terminal:\n")
    configured = config.load(file).redis
    elsewhere = configured != settings.redis
    print(f"  cd {Path.cwd()}")
    if elsewhere:
        print("  # the configuration names another Redis, and goes before `flowtilla dev`:")
        print(f"  export {config.PREFIX}REDIS__URL={url}")
        for name in ("tls", "sentinel"):
            if getattr(configured, name) is not None:
                print(f"  export {config.PREFIX}REDIS__{name.upper()}=null")
    print("  flowtilla submit workflow.yaml -i n=5 --wait")
    if not elsewhere:
        print("\nIn any other folder, first:\n")
        print(f"  export {config.PREFIX}REDIS__URL={url}")
        print(f"  export {config.PREFIX}STORAGE__BASE_PATH={settings.storage.base_path}")
    print(flush=True)
