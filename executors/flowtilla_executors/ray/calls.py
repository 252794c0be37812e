"""The calls of one executor, in its driver process: given to Ray, and told of when they end."""

import pickle
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray import exceptions as ray_errors

from flowtilla.cancellation import GRACE
from flowtilla_executors.ray.cancels import Cancels
from flowtilla_executors.ray.client import ENDED
from flowtilla_executors.ray.completions import Completions, Entry
from flowtilla_executors.ray.health import ClientCluster, DirectCluster, Watch
from flowtilla_executors.ray.lines import Inbox, open_mailbox
from flowtilla_executors.ray.options import Need, Options
from flowtilla_executors.ray.probe import find_token
from flowtilla_executors.ray.task import Tasks, unstored
from flowtilla_executors.ray.wire import Wire

#: What Ray says when a process ended under a call.
_DEATHS = (
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
    ray_errors.OutOfMemoryError,
    ray_errors.LocalRayletDiedError,
)


class Calls:
    """Does what the worker says.

    Args:
        wire: to the worker.
        address: of the cluster's control store; None behind Ray Client.
        detail: what there is to say of the cluster.
        options: the executor's.
    """

    def __init__(self, wire: Wire, address: str | None, detail: str, options: Options) -> None:
        self._wire = wire
        self._tasks = Tasks(options.tasks_per_worker)
        self._entries: dict[int, Entry] = {}
        self._completions = Completions(self._end)
        mailbox, self._letters = open_mailbox(address is not None)
        self._cancels = Cancels(self._letters.tell.remote(-1), here=address is not None)
        self._inbox = Inbox(partial(wire.send, "lines"))
        self._watch = Watch(
            ClientCluster() if address is None else DirectCluster(address, find_token(options)[0]), wire
        )
        wire.send("ready", detail, mailbox, self._watch.nodes)

    def serve(self) -> None:
        """Serves until the worker closes its end."""
        for work in (self._watch.run, self._read_letters, self._completions.serve, self._cancels.serve):
            threading.Thread(target=self._work, args=(work,), daemon=True).start()
        for turn in self._wire:
            try:
                for kind, *details in turn:
                    getattr(self, f"_{kind}")(*details)
                self._completions.end_turn()
            except ConnectionError:
                self._disconnected()

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ConnectionError:
            self._disconnected()
        except Exception as error:
            # Calls would wait for ever for what this thread did.
            self._watch.give_up(f"its driver process broke: {type(error).__name__}: {error}")

    def _submit(self, number: int, payload: bytes, need: Need, parents: list[int], timed: bool) -> None:
        if any(parent not in self._entries for parent in parents):
            self._wire.send("early", number)  # Ray did not take that one
            return
        taken = [self._entries[parent] for parent in parents]
        try:
            task = self._tasks.for_need(need)
        except ValueError as error:
            self._wire.send("failed", number, "ResourcesUnavailable", f"Ray cannot give what it asks for: {error}")
            return
        value, reply = task.remote(payload, *[parent.value for parent in taken])
        entry = self._entries[number] = Entry(number, value, reply, taken)
        self._completions.add(entry)
        if timed:
            # Its time is being counted: it is to be told of as soon as it has ended.
            self._completions.ask(entry)

    def _cancel(self, number: int) -> None:
        if (entry := self._entries.get(number)) is None or entry.ended.done():
            return  # the worker has been told how it ended, or is about to be
        entry.stopped = True
        if not entry.hears:
            self._cancels.cancel(entry)
            return
        self._give_grace(entry)
        self._letters.tell.remote(number)

    def _give_grace(self, entry: Entry) -> None:
        """Kills a call in a while; it has as long again from when it has heard, since the word takes its time too."""
        if entry.late is not None:
            entry.late.cancel()
        entry.late = threading.Timer(GRACE, self._cancels.cancel, [entry])
        entry.late.daemon = True
        entry.late.start()

    def _drop(self, numbers: list[int]) -> None:
        for number in numbers:
            self._entries.pop(number, None)

    def _fetch(self, fetching: int, number: int) -> None:
        threading.Thread(target=self._send_value, args=(fetching, self._entries[number].value), daemon=True).start()

    def _send_value(self, fetching: int, value: Any) -> None:
        try:
            content = pickle.dumps(unstored(ray.get(value)), protocol=5)
        except ConnectionError:
            self._disconnected()
        except Exception as error:
            self._wire.send("value", fetching, None, f"the value is gone from the cluster: {_short(error)}")
        else:
            self._wire.send("value", fetching, content, "")

    def _end(self, entries: list[Entry]) -> None:
        """Tells how calls ended; on several threads."""
        if messages := [message for entry in entries if (message := self._how_it_ended(entry)) is not None]:
            self._wire.send_all(messages)

    def _how_it_ended(self, entry: Entry) -> tuple[Any, ...] | None:
        """Returns what to tell the worker, or None when that comes later."""
        if entry.hears:
            # Nobody waits for the word any more. On another thread, since Ray Client's own would wait for itself.
            threading.Thread(target=self._letters.tell.remote, args=(entry.number,), daemon=True).start()
        if entry.stopped:
            entry.parents = []
            return "stopped", entry.number
        if (error := entry.ended.exception()) is not None:
            explain = partial(self._explain, entry, error)
            threading.Thread(target=self._work, args=(explain,), daemon=True).start()
            return None
        entry.parents = []
        reply = entry.ended.result()
        if isinstance(reply, bytes):
            return "ended", entry.number, reply, 0
        key, sent, unsure, outcome = reply
        self._inbox.close(key, sent, unsure, lambda seen: self._wire.send("ended", entry.number, outcome, seen))
        return None

    def _explain(self, entry: Entry, error: BaseException) -> None:
        """Tells why a call has no outcome of its own."""
        if type(error) is ConnectionError:  # not one that Ray makes of a task's
            self._disconnected()
        elif any(self._failed(parent) for parent in entry.parents):
            self._wire.send("early", entry.number)
        elif isinstance(error, _DEATHS):
            if not self._watch.look_closely():
                self._wire.send("died", entry.number, _how(error))
        elif isinstance(error, ray_errors.ObjectLostError):
            if not self._watch.look_closely():
                how = f"a value that it takes is gone, and could not be made again: {_short(error)}"
                self._wire.send("failed", entry.number, "ValueLost", how)
        else:
            self._wire.send("failed", entry.number, "ExecutorError", f"Ray could not run it: {_short(error)}")
        entry.parents = []

    def _failed(self, entry: Entry) -> bool:
        """Whether a call, which has ended if Ray can say so at all, has no outcome of its own."""
        self._completions.ask(entry)
        try:
            return entry.ended.exception(timeout=5) is not None
        except TimeoutError:
            return False

    def _disconnected(self) -> None:
        """Takes note that Ray Client has given up, which is for good."""
        self._watch.give_up(ENDED)

    def _read_letters(self) -> None:
        """Takes what the mailbox has, for ever."""
        while True:
            try:
                letters = ray.get(self._letters.take.remote())
            except ray_errors.RayError:
                time.sleep(1)  # it is being started again, or the cluster is gone
                continue
            for kind, *details in letters:
                if kind == "began":
                    self._wire.send("began", *details)
                elif kind == "lines":
                    number, hears, *lines = details
                    if hears:
                        self._note("hears", number)
                    self._inbox.take(*lines)
                else:
                    self._note(kind, *details)

    def _note(self, kind: str, number: int) -> None:
        """Takes what a call says that can be told to stop: that it hears, has heard, or that its stage has ended."""
        entry = self._entries.get(number)
        if kind == "stopped" and entry is not None:
            self._cancels.cancel(entry)
        elif kind == "heard" and entry is not None and entry.stopped:
            self._give_grace(entry)
        elif kind == "hears":
            if entry is not None:
                entry.hears = True
            if entry is None or entry.stopped or entry.ended.done():
                # The word may have come before anybody waited for it.
                self._letters.tell.remote(number)


def _how(error: BaseException) -> str:
    if isinstance(error, ray_errors.WorkerCrashedError):
        return (
            "Ray saw it end, and does not say how: it called `os._exit`, native code crashed, something killed it, or "
            "perhaps memory ran out; the logs of its node may tell"
        )
    if isinstance(error, ray_errors.OutOfMemoryError):
        return f"its node ran out of memory, and Ray killed it: {_short(error)}"
    return _short(error)


def _short(error: BaseException) -> str:
    """Returns what an error says, without Ray's advice to its own users, or the traceback of one in a task."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if isinstance(error, ray_errors.RayTaskError) else lines[0]
