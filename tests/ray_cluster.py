"""Ray clusters started with the `ray` command, as operators start them, on this machine's loopback."""

import json
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowtilla_executors.ray import session

#: Seconds until a node is up.
PATIENCE = 60.0

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "AUTOSCALER_METRIC_PORT": "0",
    "DASHBOARD_METRIC_PORT": "0",
    "PYTHONUNBUFFERED": "1",
}


@dataclass
class RayCluster:
    """A cluster of several nodes, all on this machine.

    Args:
        folder: where the nodes' output goes.
        environment: of the nodes.
        address: where its control store is.
        client_port: where its Ray Client server is, or soon will be.
        short: where its heads keep their files; the paths of Ray's sockets must be short.
    """

    folder: Path
    environment: dict[str, str]
    address: str
    client_port: int
    short: Path
    nodes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """The executor settings that reach it."""
        token = self.environment.get("RAY_AUTH_TOKEN_PATH")
        return {"cluster_address": self.address} | ({"auth_token_path": token} if token else {})

    @property
    def host(self) -> str:
        """The head's address."""
        return self.address.rpartition(":")[0]

    def client(self) -> dict[str, Any]:
        """Returns the executor settings that reach it through Ray Client, once its server is there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((self.host, self.client_port)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "there is no Ray Client server"
                time.sleep(0.05)
            else:
                return self.settings | {"cluster_address": f"ray://{self.host}:{self.client_port}"}

    def start_head(self, cpus: float = 1, resources: dict[str, float] | None = None, gpus: int = 0) -> int:
        """Starts the head, or another in place of one that ended; returns the pid of its `ray start`."""
        port = self.address.rpartition(":")[2]
        # With a folder of its own, for in another head's it would find nodes of that.
        options = ["--head", f"--port={port}", f"--temp-dir={self.short / str(len(self.nodes))}"]
        options += ["--include-dashboard=false", f"--ray-client-server-port={self.client_port}"]
        return self._start(self.host, [*options, f"--num-gpus={gpus}"], cpus, resources)

    def add_node(self, cpus: float = 1, resources: dict[str, float] | None = None) -> int:
        """Starts a node that joins, and returns the pid of its `ray start`."""
        options = [f"--address={self.address}", "--num-gpus=0"]
        return self._start(f"127.0.0.{len(self.nodes) + 10}", options, cpus, resources)

    def end(self, node: int) -> None:
        """Kills all processes of a node, by the pid of its `ray start`."""
        session.end(node)
        next(each for each in self.nodes if each.pid == node).wait()

    def _start(self, host: str, options: list[str], cpus: float, resources: dict[str, float] | None) -> int:
        log = self.folder / f"node-{len(self.nodes)}.log"
        ray = Path(sys.executable).with_name("ray")
        command = [str(ray), "start", "--block", f"--node-ip-address={host}"]
        command += [
            f"--num-cpus={cpus:g}",
            f"--resources={json.dumps(resources or {})}",
            "--object-store-memory=300000000",
        ]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        command += options
        # Despite its name: 0 keeps Ray from taking this machine's other address for 127.0.0.1.
        loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if host == "127.0.0.1" else "1"}
        with log.open("wb") as output:
            node = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, **loopback},
                start_new_session=True,
            )
        self.nodes.append(node)
        self._await(node, log, "--block")
        return node.pid

    @staticmethod
    def _await(node: "subprocess.Popen[bytes]", log: Path, sign: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while sign not in log.read_text():
            assert node.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@contextmanager
def started(
    folder: Path,
    cpus: float = 2,
    resources: dict[str, float] | None = None,
    guarded: bool = True,
    host: str = "127.0.0.1",
    gpus: int = 0,
) -> Iterator[RayCluster]:
    """Starts a cluster of one node, and ends all its nodes at the end.

    Args:
        folder: takes what the nodes print.
        cpus, resources: of the head.
        guarded: whether it asks for a token.
        host: the head's address; only one other than 127.0.0.1 takes further nodes.
        gpus: how many the head says that it has.
    """
    with ExitStack() as stack:
        short = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True))
        )
        environment = {**_ENVIRONMENT, "RAY_AUTH_MODE": "token" if guarded else "disabled"}
        if guarded:
            token = folder / f"token-{secrets.token_hex(4)}"
            token.write_text(secrets.token_hex(32))
            environment["RAY_AUTH_TOKEN_PATH"] = str(token)
        port, client_port = free_port(host), free_port(host)
        cluster = RayCluster(folder, environment, f"{host}:{port}", client_port, short)
        stack.callback(lambda: [cluster.end(node.pid) for node in reversed(cluster.nodes)])
        cluster.start_head(cpus, resources, gpus)
        yield cluster


@contextmanager
def ray_cluster(folder: Path, cpus: float = 2, resources: dict[str, float] | None = None) -> Iterator[dict[str, Any]]:
    """Starts a cluster and gives the executor settings that reach it."""
    with started(folder, cpus, resources) as cluster:
        yield cluster.settings


def free_port(host: str) -> int:
    """Returns a port that is free, and that no connection will take while it is: those get theirs from 32768 on."""
    while True:
        # Ray Client's server gives 23000 and those after it to its sessions.
        port = random.randrange(24_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind((host, port))
            return port
