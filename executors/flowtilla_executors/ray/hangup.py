"""Ends this process's connections to hosts that a cluster has given up.

What Ray asked of a host that fell silent it waits for until the connection breaks, for 7 minutes, though the control
store calls the node dead; and its servers refuse those who ask more often whether they live. Once the connection is
ended, Ray does what it does whenever a node dies: it runs the call elsewhere.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path


def hang_up(addresses: Collection[str]) -> None:
    """Ends all connections of this process to some IP addresses."""
    for number in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        # It may be closed by now.
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as connection:
                    peer = connection.getpeername()
                    if isinstance(peer, tuple) and peer[0].removeprefix("::ffff:") in addresses:
                        connection.shutdown(socket.SHUT_RDWR)
