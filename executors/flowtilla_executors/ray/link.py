"""The worker's side of its driver process: starts it, talks to it, hears when it ends."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowtilla_executors.local.directory import remove
from flowtilla_executors.local.spawn import Context
from flowtilla_executors.ray import session
from flowtilla_executors.ray.options import Options
from flowtilla_executors.ray.wire import Unpacker, packed

#: Seconds that a driver process may take to leave a cluster, and end one of its own.
_LEAVING = 3.0


class Link(asyncio.Protocol):
    """A driver process, from its start to its end.

    Args:
        heard: takes what it says.
        ended: told when it is gone, or has closed its end.
    """

    def __init__(self, heard: Callable[[tuple[Any, ...]], None], ended: Callable[[], None]) -> None:
        self._heard = heard
        self._ended = ended
        self._unpacker = Unpacker()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[tuple[Any, ...]] = []
        #: Seconds, as the executor counts them, since it said anything.
        self.silence = 0

    async def open(self, options: Options) -> None:
        """Starts the driver process."""
        self._end, theirs = socket.socketpair()
        self._process = Context().Process(target=_serve, args=(theirs, options), name="flowtilla-ray")
        self._starting = asyncio.ensure_future(asyncio.to_thread(self._process.start))
        self._starting.add_done_callback(lambda _: theirs.close())
        await asyncio.shield(self._starting)
        await asyncio.get_running_loop().create_connection(lambda: self, sock=self._end)

    def send(self, *message: Any) -> None:
        """Sends a message, with all that is said in this turn of the loop; in vain when the process is gone.

        Of that, `ended` tells.
        """
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.append(message)

    def _send(self) -> None:
        if self._transport is not None:
            self._transport.write(packed(self._unsent))
        self._unsent = []

    async def close(self, folder: Path | None) -> None:
        """Ends the driver process, and a cluster of its own with all that it started.

        Args:
            folder: where that cluster wrote; None for a cluster that goes on.
        """
        self._ended = lambda: None
        # Waited for, or a process that is just being started would be forgotten.
        await asyncio.wait([self._starting])
        if self._transport is not None:
            self._transport.abort()
        self._end.close()
        if self._process.pid is not None:
            await asyncio.to_thread(self._end_process, folder)

    def describe_end(self) -> str:
        """Returns how the process ended, as far as it has."""
        code = self._process.exitcode
        if code is None:
            return "it closed its connection"
        return f"{signal.Signals(-code).name} ended it" if code < 0 else f"exit code {code}"

    def _end_process(self, folder: Path | None) -> None:
        process = self._process
        process.join(_LEAVING)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        session.end(process.pid or -1)
        process.join()
        process.close()
        if folder is not None:
            remove(folder)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.silence = 0
        for messages in self._unpacker.feed(data):
            for message in messages:
                self._heard(message)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._ended()


def _serve(end: socket.socket, options: Options) -> None:
    # Here, since only this process may import Ray.
    from flowtilla_executors.ray.driver import serve

    serve(end, options)
