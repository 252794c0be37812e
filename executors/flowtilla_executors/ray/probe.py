"""What a cluster tells before Ray itself is loaded: whether it is there, its version, whether it asks for a token.

Ray reads its own settings once, when it is imported, and says little about a connection that fails.
"""

import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import grpc

from flowtilla.errors import ClusterMismatch, ClusterUnreachable
from flowtilla_executors.loopback import is_loopback
from flowtilla_executors.ray.options import Options

_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_CLIENT_PING = "/ray.rpc.RayletDriver/ClusterInfo"

#: A `ClusterInfoRequest` of type `PING`.
_PING = b"\x08\x06"

#: What a `CheckAliveReply` says, as text between other fields.
_VERSION = re.compile(rb"\d+\.\d+\.\d+[\w.]*")

#: Seconds until a cluster counts as unreachable, and until Ray has looked for one on this machine.
_PATIENCE, _LOOKING = 8.0, 20.0

#: Has Ray look for it; in another process, for Ray reads its settings when it is imported.
_FIND = "from ray._private.services import get_ray_address_from_environment as find; print(find('auto', None))"


def find() -> str:
    """Returns the address of the cluster that Ray means by `auto`.

    Raises:
        ClusterUnreachable: there is none.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    with suppress(subprocess.SubprocessError):
        looked = subprocess.run([sys.executable, "-c", _FIND], capture_output=True, timeout=_LOOKING, check=True)
        return looked.stdout.decode().split()[-1]
    raise ClusterUnreachable(
        "the Ray cluster at auto cannot be found: RAY_ADDRESS is not set, and no cluster runs on this machine. Start "
        "one with `ray start --head`, or join one with `ray start --address=…`"
    )


def ask(options: Options, address: str, token: str | None) -> bool:
    """Returns whether a cluster asks for a token, having made sure that it lives and takes the one that is here.

    Args:
        options: the executor's.
        address: `host:port` or `ray://host:port`.
        token: for clusters that ask for one.

    Raises:
        ClusterUnreachable: it does not answer, asks for a token that is not there, or refuses the one that is.
        ClusterMismatch: it has another version of Ray.
    """
    try:
        _check_version(options, _call(address, None))
        return False
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise ClusterUnreachable(
                f"{options.name} does not answer ({error.code().name}: {error.details()}): check that it runs, the "
                "address and port, and what lies between, such as a firewall"
            ) from None
    if token is None:
        raise ClusterUnreachable(
            f"{options.name} asks for a token, and there is none here: copy ~/.ray/auth_token from its head node, or "
            "name the file in `auth_token_path`"
        )
    try:
        _check_version(options, _call(address, token))
        return True
    except grpc.RpcError as error:
        raise ClusterUnreachable(
            f"{options.name} refuses the token ({error.details()}): copy ~/.ray/auth_token from its head node again"
        ) from None


def is_private(address: str) -> bool:
    """Whether only this machine can reach a cluster."""
    return is_loopback(address.rpartition("://")[2].rpartition(":")[0].strip("[]"))


def hides(address: str) -> bool:
    """Whether a cluster listens on loopback alone, where Ray would look for it at this machine's other address."""
    if not is_private(address):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward, suppress(OSError):
        outward.connect(("192.0.2.1", 1))  # sends nothing
        host = outward.getsockname()[0]
        with socket.create_connection((host, int(address.rpartition(":")[2])), _PATIENCE):
            return False
    return True


def find_token(options: Options) -> tuple[str | None, Path | None]:
    """Returns the token that is here for a cluster, and the file it is in."""
    given = options.auth_token_path or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if options.auth_token_path is None and (token := os.environ.get("RAY_AUTH_TOKEN")):
        return token, None
    path = Path(given).expanduser() if given else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip() or None, path
    except OSError:
        return None, None


def _check_version(options: Options, reply: bytes) -> None:
    """Compares the version of Ray that a reply of the control store has in it with the one that is here."""
    if (found := _VERSION.search(reply)) and (there := found[0].decode()) != (here := version("ray")):
        raise ClusterMismatch(
            f"{options.name} has Ray {there}, and this worker has {here}: install the same version on both sides"
        )


def _call(address: str, token: str | None) -> bytes:
    """Returns the reply of a cluster's control store, or of its Ray Client server."""
    client = address.startswith("ray://")
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address.removeprefix("ray://"), [("grpc.enable_http_proxy", 0)]) as channel:
        method = channel.unary_unary(_CLIENT_PING if client else _CHECK_ALIVE)
        reply: bytes = method(_PING if client else b"", timeout=_PATIENCE, metadata=metadata)
    return reply
