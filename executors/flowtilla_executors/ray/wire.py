"""Messages between the worker and its driver process: tuples, over a socket.

What one of them has to say at once is pickled together, and travels behind its length.
"""

import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_LENGTH = struct.Struct("!Q")


def packed(messages: list[tuple[Any, ...]]) -> bytes:
    """Returns messages as they travel."""
    content = pickle.dumps(messages, protocol=5)
    return _LENGTH.pack(len(content)) + content


class Unpacker:
    """Puts messages together from the pieces in which they arrive, as they were sent."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[list[tuple[Any, ...]]]:
        """Takes a piece; returns the messages that it completes, those together that were sent at once."""
        self._received += data
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            with memoryview(self._received) as view:
                messages = pickle.loads(view[_LENGTH.size : end])
            del self._received[:end]
            yield messages


class Wire:
    """The driver process's end: blocking, for any thread."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._sending = threading.Lock()

    def send(self, *message: Any) -> None:
        """Sends a message; in vain when the worker is gone, of which the end of the iteration tells."""
        self.send_all([message])

    def send_all(self, messages: list[tuple[Any, ...]]) -> None:
        """Sends messages at once, as `send` does one."""
        data = packed(messages)
        with self._sending, suppress(OSError):
            self._socket.sendall(data)

    def __iter__(self) -> Iterator[list[tuple[Any, ...]]]:
        """Gives the messages that arrive, as `Unpacker.feed` does, until the worker closes its end."""
        unpacker = Unpacker()
        while data := self._receive():
            yield from unpacker.feed(data)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(256 * 1024)
        except ConnectionError:
            return b""
