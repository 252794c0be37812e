"""The stages of the executors' conformance suite: child processes and clusters import them."""

import asyncio
import contextlib
import ctypes
import logging
import logging.config
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import flowtilla
from flowtilla import objects

module_log = logging.getLogger(__name__)


class Flaky(ValueError):
    """An error of the stage's own."""


@dataclass
class City:
    """A class of the stage's own."""

    name: str
    temperatures: list


def give(value=None):
    return value


def add(left, right):
    return left + right


def fail(message="it broke"):
    raise Flaky(message)


def fail_with_cause():
    try:
        int("seven")
    except ValueError as error:
        raise Flaky("wrong number") from error


def leave():
    sys.exit(3)


def interrupt():
    raise KeyboardInterrupt


def count_up(n):
    yield from range(n)


async def count_up_async(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


async def add_async(left, right=1):
    await asyncio.sleep(0)
    return left + right


async def fail_async():
    await asyncio.sleep(0)
    raise Flaky("async too")


def invert(x):
    return 1 / x


def double(x):
    return 2 * x


def push(values, value=1):
    """Changes its argument, and says what it saw before."""
    seen = list(values)
    values.append(value)
    return seen


def push_many(item, broadcast, *, keyword):
    seen = [len(item), len(broadcast), len(keyword)]
    for each in (item, broadcast, keyword):
        each.append(0)
    return seen


BUFFER = []


def fill_buffer(x):
    """Returns what it keeps, and changes it the next time."""
    BUFFER[:] = [x]
    return BUFFER


def a_lock(x=None):
    return threading.Lock()


def lock_for_odd(x):
    return threading.Lock() if x % 2 else x


def make_city():
    return City("Oslo", [1, 2])


def is_city(value):
    return type(value) is City


def random_array(size):
    import numpy

    return numpy.random.default_rng(7).integers(0, 255, size, dtype="u1")


def increment(array):
    array += 1
    return array


def checksum(array):
    return [int(array.sum()), array.nbytes, bool(array.flags.writeable)]


def sizes(arrays):
    return [array.nbytes for array in arrays]


def look_around(x=None):
    context = flowtilla.context()
    deadline = None if context.deadline is None else context.deadline - time.time()
    return [context.run_id, context.stage, context.item, context.executor, context.input, context.config, deadline]


def change_input(x=None):
    context = flowtilla.context()
    context.input["seen"] = context.input.get("seen", 0) + 1
    return context.input["seen"]


def talk():
    print("from print")
    print("from stderr", file=sys.stderr)
    module_log.warning("from %s", "a module's logger")
    flowtilla.context().logger.info("from the stage's logger")
    sys.stdout.write("no newline")


def talk_of(x):
    print(f"item {x}", end="")


def talk_oddly():
    print("10%\r50%\r100%")
    print("x" * 100_000)
    print("half \ud800 pair\r")
    print("a\n\nb")


def talk_in_thread():
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()


def log_error():
    try:
        invert(0)
    except ZeroDivisionError:
        module_log.exception("no luck")


def talk_then_wait(started):
    print("before")
    Path(started).touch()
    wait_for_ever()


def talk_then_die(released):
    print("last words")
    wait_for(released)
    os._exit(3)


def beat(file):
    """Writes to a file until it is cancelled or killed."""
    end = time.monotonic() + 30
    with Path(file).open("a", buffering=1) as out:
        while time.monotonic() < end and not flowtilla.context().cancelled:
            out.write(".\n")
            time.sleep(0.01)


def wait_for_ever():
    end = time.monotonic() + 30
    while time.monotonic() < end and not flowtilla.context().cancelled:
        time.sleep(0.01)


@contextlib.contextmanager
def seen(file):
    """Tells the test which process runs the stage, and that it has left the stage."""
    Path(file).write_text(f"{os.getpid()} ")
    try:
        yield
    finally:
        with Path(file).open("a") as out:
            out.write("left")


def look_until_cancelled(file, x=None):
    """Looks, and takes a moment to tidy up."""
    with seen(file):
        assert not flowtilla.context().cancelled
        print("waits")
        wait_for_ever()
        time.sleep(0.3)
        print("tidied up")


def never_look(file, x=None):
    with seen(file):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            time.sleep(0.01)


def look_once_and_hold_the_gil(file):
    with seen(file):
        assert not flowtilla.context().cancelled
        print("waits")
        time.sleep(1)  # until that is said
        ctypes.PyDLL(None).sleep(20)


def wait_for_clean_up(file, x=None):
    """Waits in a lock, out of which only its clean-up helps it."""
    with seen(file):
        context, go = flowtilla.context(), threading.Event()
        context.on_cancel(go.set)
        context.on_cancel(lambda: print(f"clean-up of {context.item} in {os.getpid()}"))
        context.on_cancel(lambda: fail("clean-up failed"))
        if x in (None, "last"):
            print("waits")
            go.wait(30)


async def wait_for_clean_up_async(file):
    with seen(file):
        waiting = asyncio.current_task()
        loop = asyncio.get_running_loop()
        flowtilla.context().on_cancel(lambda: loop.call_soon_threadsafe(waiting.cancel))
        print("waits")
        await asyncio.sleep(30)


def look_and_count_threads():
    assert not flowtilla.context().cancelled
    return threading.active_count()


def fork_away(file):
    """Starts a process that no signal for the stage's processes reaches, and that holds what the stage's has open."""
    if not os.fork():
        os.setsid()
        Path(file).write_text(str(os.getpid()))
        time.sleep(60)
        os._exit(0)
    wait_for_ever()


def clean_up_for_ever(file, released):
    """Has clean-up that hangs until a file is there, though the stage itself ends."""
    with seen(file):
        flowtilla.context().on_cancel(lambda: wait_for(released))
        print("waits")
        wait_for_ever()


def start_and_wait(file, x=None):
    Path(file).touch()
    wait_for_ever()


def start_subprocess(file):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(file).write_text(str(child.pid))
    wait_for_ever()


def wait_for(file, begun=None):
    if begun is not None:
        Path(begun).touch()
    end = time.monotonic() + 30
    while time.monotonic() < end and not Path(file).exists():
        time.sleep(0.01)
    return os.getpid()


def meet(mine, other):
    """Returns whether the other call ran at the same time."""
    Path(mine).touch()
    end = time.monotonic() + 10
    while time.monotonic() < end and not Path(other).exists():
        time.sleep(0.01)
    return Path(other).exists()


def note(file, word):
    with Path(file).open("a") as out:
        out.write(word + "\n")


def exit_with(code):
    os._exit(code)


def kill_itself_until(path, times):
    """Leaves a line each time, and dies so many times."""
    with Path(path).open("a") as file:
        file.write("here\n")
    if len(Path(path).read_text().splitlines()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def configure_logging():
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "root": {"handlers": []}})
    logging.getLogger().warning("after configuring")


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def environment(name):
    return os.environ.get(name)


def pid():
    return os.getpid()


def put_object(key, value):
    objects.put(key, value, strategy="memory")


def get_object(key):
    return objects.get(key, strategy="memory")


def change_object(key):
    objects.get(key, strategy="memory").append("changed")


def drop_object(key):
    before = objects.exists(key, strategy="memory")
    return [before, objects.delete(key, strategy="memory"), objects.exists(key, strategy="memory")]


def talk_much(lines):
    for number in range(lines):
        print("line", number)
        if number % 1000 == 0:
            time.sleep(0.02)
