"""Ray Client: a session on a cluster through a server on its head, which forks a process for each session."""

from collections.abc import Callable
from typing import Any

import grpc
from ray.core.generated.ray_client_pb2 import ClusterInfoType  # type: ignore[attr-defined]
from ray.util.client import ray as ray_client
from ray.util.client.worker import Worker

#: How a session ended that its server lost.
ENDED = "its Ray Client server ended the session"

#: What gRPC says when nobody answers.
_SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)

#: What `ray.init` says when nobody answers.
_ABSENT = "ray client connection timeout"

#: Sessions that are asked for until one lives: the server forks while gRPC is at work in it, which some of those
#: processes do not survive, one of three on a busy machine. It says so within a second, or hangs up.
_BIRTHS = 10


def begin(initialise: Callable[[], Any], hopeless: str) -> Any:
    """Begins a session, which is not joined again when its server hangs up, until `keep` is called.

    Args:
        initialise: calls `ray.init`.
        hopeless: what the server says when another try would not help.

    Returns:
        What that returns.

    Raises:
        ConnectionError, grpc.RpcError: nobody answers, or the server refuses.
    """
    Worker._server_init = _at_once(Worker._server_init)  # type: ignore[method-assign]
    tries = 0
    while True:
        try:
            return initialise()
        except (ConnectionError, grpc.RpcError) as error:
            _give_up()
            tries += 1
            if tries == _BIRTHS or hopeless in str(error) or _ABSENT in str(error):
                raise


def keep() -> None:
    """Has Ray join the session again when its server hangs up: for half a minute, which one that began is worth."""
    session = _session()
    session._reconnect_enabled = session._reconnect_grace_period > 0


def nodes(patience: float) -> list[dict[str, Any]]:
    """Returns what there is to know of the cluster's nodes.

    Args:
        patience: seconds that the server may take to answer.

    Raises:
        ConnectionError: it does not answer, or knows the session no more; says which.
    """
    try:
        found: list[dict[str, Any]] = _session().get_cluster_info(ClusterInfoType.NODES, timeout=patience)
    except grpc.RpcError as error:
        if error.code() in _SILENT:
            raise ConnectionError(f"its Ray Client server does not answer: {error.code().name}") from error
        # The server in front answers for that of the session, which died: it was cancelled, or who asks is a stranger.
        raise ConnectionError(ENDED) from error
    except ValueError as error:  # what gRPC says while Ray Client makes the channel anew, or has given up
        raise ConnectionError("its Ray Client server does not answer: it closed the connection") from error
    return found


def _session() -> Any:
    return ray_client.get_context().client_worker  # type: ignore[no-untyped-call]


def _at_once(server_init: Callable[..., None]) -> Callable[..., None]:
    """Has a session that dies as it begins end here, where Ray would wait half a minute for it, or for its farewell."""

    def ask(session: Any, *given: Any) -> None:
        session._reconnect_enabled = False
        try:
            server_init(session, *given)
        except ConnectionError:
            _let_go(session)
            raise

    return ask


def _give_up() -> None:
    """Ends what is left of a session that had begun when `ray.init` failed, or another could not begin."""
    if (session := _session()) is not None:
        _let_go(session)
        ray_client.disconnect()  # type: ignore[no-untyped-call]


def _let_go(session: Any) -> None:
    """Has a session whose server is gone end without a farewell to it."""
    session._in_shutdown = True
    session.close = lambda: None
