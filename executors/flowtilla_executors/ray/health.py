"""Whether a cluster lives, and what its nodes have: asked every second, and before a call counts as lost."""

import socket
import threading
import time
from typing import Any, Protocol

import grpc
import ray
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc

from flowtilla_executors.ray import client
from flowtilla_executors.ray.hangup import hang_up
from flowtilla_executors.ray.options import Nodes
from flowtilla_executors.ray.wire import Wire

#: Seconds between two looks, for one, and for one behind Ray Client, where values are in its way.
_PAUSE, _PATIENCE, _CLIENT_PATIENCE = 1.0, 3.0, 6.0

#: Looks in a row that must find the cluster dead, or take as long.
_LOOKS = 3

#: Our names of Ray's resources; those that are not here and not `node:…` are logical.
_NAMES = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}


class Cluster(Protocol):
    """What the watch asks."""

    def look(self) -> Nodes:
        """Returns what the nodes have.

        Raises:
            ConnectionError: the cluster does not live; says what died.
        """


class DirectCluster:
    """A cluster of which this process is a driver, through the control store and the node's raylet.

    Args:
        address: the control store's.
        token: for its services, or None.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self._address = address
        self._node = ray.get_runtime_context().get_node_id()
        self._raylet: tuple[str, int] | None = None
        self._hosts: set[str] = set()
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
        stubs: Any = gcs_service_pb2_grpc
        messages: Any = gcs_service_pb2
        records: Any = gcs_pb2
        self._store = stubs.NodeInfoGcsServiceStub(grpc.insecure_channel(address, options))
        self._alive = messages.GetAllNodeInfoRequest(state_filter=records.GcsNodeInfo.ALIVE)

    def look(self) -> Nodes:
        """Returns what the nodes have.

        Raises:
            ConnectionError: the cluster does not live; says what died.
        """
        if self._raylet is not None:
            try:
                socket.create_connection(self._raylet, _PATIENCE).close()
            except OSError as error:
                raise ConnectionError(
                    f"the raylet of this node, at {_shown(self._raylet)}, is dead: {error}"
                ) from error
        try:
            reply = self._store.GetAllNodeInfo(self._alive, timeout=_PATIENCE, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ConnectionError(
                f"its control store (GCS) at {self._address} does not answer: {error.code().name}"
            ) from error
        nodes = reply.node_info_list
        mine = [node for node in nodes if node.node_id.hex() == self._node]
        if not mine:
            raise ConnectionError("the node that this worker is on is dead" if nodes else "all its nodes are dead")
        self._raylet = (mine[0].node_manager_address, mine[0].node_manager_port)
        alive = {node.node_manager_address for node in nodes}
        self._hosts |= alive
        if given_up := self._hosts - alive:
            hang_up(given_up)
        return Nodes([_named(dict(node.resources_total)) for node in nodes])


class ClientCluster:
    """A cluster behind Ray Client."""

    def look(self) -> Nodes:
        """Returns what the nodes have.

        Raises:
            ConnectionError: the server does not answer, or has ended the session.
        """
        nodes = client.nodes(_CLIENT_PATIENCE)
        return Nodes([_named(node["Resources"]) for node in nodes if node["Alive"]])


class Watch:
    """Looks after a cluster, and says once that it is gone.

    Args:
        cluster: the cluster.
        wire: to the worker, who hears every second that somebody looks.
    """

    def __init__(self, cluster: Cluster, wire: Wire) -> None:
        self._cluster = cluster
        self._wire = wire
        self._lock = threading.Lock()
        self._failures = 0
        self._gone = False
        self.nodes = cluster.look()

    def run(self) -> None:
        """Looks until the cluster is gone."""
        while not self._look():
            self._wire.send("beat")
            time.sleep(_PAUSE)

    def look_closely(self) -> bool:
        """Returns whether the cluster is gone, after as many looks as it takes to know."""
        for _ in range(_LOOKS):
            if self._look():
                return True
            time.sleep(_PAUSE / 2)
        return False

    def give_up(self, how: str) -> None:
        """Says that the cluster is gone, unless that is said."""
        if not self._gone:
            self._gone = True
            self._wire.send("gone", how)

    def _look(self) -> bool:
        with self._lock:
            begun = time.monotonic()
            try:
                nodes = self._cluster.look()
            except ConnectionError as error:
                # One that took its time counts for the looks that it left no time for.
                self._failures += 1 + round((time.monotonic() - begun) / _PAUSE / 2)
                if self._failures >= _LOOKS:
                    self.give_up(str(error))
            else:
                self._failures = 0
                if nodes != self.nodes:
                    self.nodes = nodes
                    self._wire.send("nodes", nodes)
            return self._gone


def _named(resources: dict[str, float]) -> dict[str, float]:
    """Returns a node's resources as we name them."""
    kept = {name: amount for name, amount in resources.items() if ":" not in name and name != "object_store_memory"}
    return {_NAMES.get(name, name): amount for name, amount in kept.items()}


def _shown(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
