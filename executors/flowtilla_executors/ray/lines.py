"""What a call and the driver process say to each other while the call runs, through a mailbox in the cluster.

Log lines go one way, and the word to stop the other.
"""

import asyncio
import contextlib
import contextvars
import os
import pickle
import secrets
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from flowtilla.cancellation import Cancellation
from flowtilla.logs import LogLine

#: Where our actors have their names.
NAMESPACE = "flowtilla"

#: Seconds until a sender gives up: its lines then come with the outcome.
_PATIENCE = 5.0

#: Seconds that an outcome waits for lines that were sent before it.
_LATE = 2.0

#: How many runs of calls an inbox remembers. One that it forgot too early costs its outcome `_LATE` seconds.
_REMEMBERED = 10_000

#: What a call says: a word (`began`, `lines`, `hears`, `heard`, `stopped`), and what belongs to it.
Letter = tuple[Any, ...]

T = TypeVar("T")


class Mailbox:
    """An actor that takes what calls send and hands it to the driver process, which is always asking."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._there = asyncio.Event()
        #: Of the calls that want to know that they are to stop, by number.
        self._words: dict[int, asyncio.Event] = {}

    async def put(self, *letter: Any) -> None:
        """Takes a letter."""
        self._letters.append(letter)
        self._there.set()

    async def take(self) -> list[Letter]:
        """Waits for letters, and hands them out."""
        await self._there.wait()
        self._there.clear()
        letters, self._letters = self._letters, []
        return letters

    async def hear(self, number: int) -> None:
        """Waits for the word that a call is to stop, or has ended."""
        await self.put("hears", number)
        await self._words.setdefault(number, asyncio.Event()).wait()

    async def tell(self, number: int) -> None:
        """Tells a call that hears."""
        if (word := self._words.pop(number, None)) is not None:
            word.set()


def open_mailbox(here: bool) -> tuple[str, Any]:
    """Returns the name of a new mailbox, and the mailbox; it goes with the driver.

    Args:
        here: whether it is put on this node, if that has room; else Ray decides.
    """
    name = f"flowtilla-lines-{secrets.token_hex(8)}"
    node = ray.get_runtime_context().get_node_id() if here else None
    where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=True)} if node else {}
    kind: Any = ray.remote(Mailbox)
    options = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": 10_000}
    return name, kind.options(name=name, namespace=NAMESPACE, **options, **where).remote()


@cache
def _mailbox(name: str) -> Any:
    return ray.get_actor(name, namespace=NAMESPACE)


class Sender:
    """Sends the lines of one run of a call on, while it runs.

    Args:
        mailbox: its name.
        number: of the call.
    """

    def __init__(self, mailbox: str, number: int) -> None:
        self.key = f"{number}-{os.urandom(4).hex()}"
        self.sent = 0
        #: Whether more than `sent` lines may have arrived.
        self.unsure = False
        self._hears = False
        self._mailbox = mailbox
        self._number = number

    @property
    def used(self) -> bool:
        """Whether lines may have arrived."""
        return self.sent > 0 or self.unsure

    def began(self) -> None:
        """Says that the call begins now."""
        _mailbox(self._mailbox).put.remote("began", self._number)

    def hear(self, call: Cancellation) -> None:
        """Has the call told when it is to stop."""
        self._hears = True
        with contextlib.suppress(Exception):  # the stage need not suffer that it cannot be told
            word = _mailbox(self._mailbox).hear.remote(self._number)
            # Not by a callback of the future's, for which Ray's own thread needs the interpreter's lock: native code
            # that holds it would keep Ray from killing this process. And it belongs to no stage.
            listener = threading.Thread(target=self._listen, args=(word, call), name="flowtilla-hear", daemon=True)
            contextvars.Context().run(listener.start)

    def stopped(self) -> None:
        """Says that the stage has ended, since it was to stop."""
        _mailbox(self._mailbox).put.remote("stopped", self._number)

    def emit(self, lines: Sequence[LogLine]) -> None:
        """Sends lines.

        Raises:
            OSError: they may not have arrived.
        """
        try:
            # What is sent to an actor like this may overtake what was sent before: `hears`, too, goes with each.
            sending = _mailbox(self._mailbox).put.remote(
                "lines", self._number, self._hears, self.key, self.sent, list(lines)
            )
            # Not `ray.get`, which tells Ray that this call waits and another may have its cpu.
            sending.future().result(_PATIENCE)
        except Exception as error:
            self.unsure = True
            raise OSError(f"the lines were not sent: {error}") from error
        self.sent += len(lines)

    def _listen(self, word: Any, call: Cancellation) -> None:
        with contextlib.suppress(Exception):  # the cluster is ending
            ray.get(word)
            call.request()
            _mailbox(self._mailbox).put.remote("heard", self._number)


class Inbox:
    """Where lines arrive: each goes on once, and none comes after the outcome of its call.

    Args:
        forward: takes lines, pickled.
    """

    def __init__(self, forward: Callable[[bytes], None]) -> None:
        self._forward = forward
        self._lock = threading.RLock()
        #: Lines that arrived, by key, of the latest runs; those of calls that died are never closed.
        self._seen: dict[str, int] = {}
        self._waiting: dict[str, tuple[int, Callable[[int], None]]] = {}
        #: The keys whose outcome is there, and of which more may come that it has too.
        self._closed: dict[str, None] = {}

    def take(self, key: str, offset: int, lines: list[LogLine]) -> None:
        """Takes lines of which `offset` came before."""
        with self._lock:
            seen = self._seen.get(key, 0)
            if key in self._closed or offset + len(lines) <= seen:
                return
            self._forward(pickle.dumps(lines[max(0, seen - offset) :], protocol=5))
            _remember(self._seen, key, offset + len(lines))
            if key in self._waiting and self._seen[key] >= self._waiting[key][0]:
                self._finish(key, unsure=False)

    def close(self, key: str, sent: int, unsure: bool, then: Callable[[int], None]) -> None:
        """Calls back when all lines that were sent have arrived.

        Args:
            key, sent, unsure: as the sender has them.
            then: takes how many of the lines that came with the outcome have been seen before.
        """
        with self._lock:
            self._waiting[key] = (sent, then)
            if self._seen.get(key, 0) >= sent:
                self._finish(key, unsure)
            else:
                late = threading.Timer(_LATE, self._finish, [key, unsure])
                late.daemon = True
                late.start()

    def _finish(self, key: str, unsure: bool) -> None:
        with self._lock:
            sent, then = self._waiting.pop(key, (0, None))
            if then is not None:
                then(max(0, self._seen.pop(key, 0) - sent))
            if unsure:
                _remember(self._closed, key, None)


def _remember(known: dict[str, T], key: str, what: T) -> None:
    """Puts something in a mapping of the latest."""
    known.pop(key, None)
    known[key] = what
    if len(known) > _REMEMBERED:
        del known[next(iter(known))]
