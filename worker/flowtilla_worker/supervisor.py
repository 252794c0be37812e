"""Keeps several worker processes running, and restarts one that dies."""

import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from flowtilla_worker.stopping import killed_after

#: Seconds before a worker that died is started again: doubled each time it dies young, up to the longest.
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0

#: A worker that lived so many seconds has proved itself.
YOUNG = 30.0

#: The exit codes of a worker that refuses its configuration, and of one that was drained: neither is started again.
BAD_CONFIGURATION, DRAINED = 2, 75

_POLL = 0.05

logger = logging.getLogger("flowtilla.supervisor")


class Supervisor:
    """Runs one process per name until it is told to stop.

    SIGTERM and SIGINT go on to every worker, the second one too; then it waits for them, and kills those that do not
    end within their grace. The workers hold the read end of a pipe each (their standard input) and drain when it
    closes, as it does if this process dies: see `stop_with_supervisor`.

    Args:
        names: the workers' names.
        command: the command line of the worker of a name. One that is started again has another name, for the queue
            has yet to learn that the one before is gone.
        bury: takes the name of a worker that did not end well, how it ended, and the name of the one in its place.
        grace: seconds that a worker has to end.
        burst: workers end by themselves when the queues are empty, and are then not started again.
        env: the workers' environment; this process's when None.
        keep_open: descriptors that the workers inherit.
    """

    def __init__(
        self,
        names: Sequence[str],
        command: Callable[[str], Sequence[str]],
        bury: Callable[[str, str, str], None],
        grace: float,
        burst: bool = False,
        env: Mapping[str, str] | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        self._workers = [_Worker(name, command, env, keep_open) for name in names]
        self._bury = bury
        self._grace = grace
        self._burst = burst
        self._stopping = False
        self._kill_at = math.inf

    def run(self) -> int:
        """Supervises until the workers have ended.

        Returns:
            0 when all of them ended well, else the exit code of one that did not.
        """
        previous = {number: signal.signal(number, self._forward) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for worker in self._workers:
                self._start(worker)
            while any(not worker.done for worker in self._workers):
                for worker in self._workers:
                    self._look_after(worker)
                time.sleep(_POLL)
        finally:
            for worker in self._workers:
                worker.close()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return next((worker.exit_code for worker in self._workers if worker.exit_code), 0)

    def _look_after(self, worker: "_Worker") -> None:
        if worker.running and time.monotonic() >= self._kill_at:
            worker.kill()
        if worker.done or worker.running:
            return
        if worker.due is not None:
            if self._stopping:
                worker.done = True
            elif time.monotonic() >= worker.due:
                self._start(worker)
            return
        worker.collect()
        if worker.exit_code:
            self._bury(worker.name, worker.ending, worker.successor)
        if self._stopping or (self._burst and worker.code == 0):
            worker.done = True
        elif worker.code == DRAINED:
            logger.info("worker %s was drained: it stays down", worker.name)
            worker.done = True
        elif worker.refused:
            logger.error("worker %s refuses its configuration: stopping", worker.name)
            worker.done = True
            self._stop()
        else:
            delay = worker.schedule()
            logger.warning("worker %s ended with %s; starting it again in %gs", worker.name, worker.ending, delay)

    def _start(self, worker: "_Worker") -> None:
        worker.start()
        if self._stopping:  # The signal came while the process was being made.
            worker.terminate()

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._kill_at = min(self._kill_at, time.monotonic() + killed_after(self._grace))
        for worker in self._workers:
            worker.terminate()


class _Worker:
    """One worker process, again and again."""

    def __init__(
        self,
        name: str,
        command: Callable[[str], Sequence[str]],
        env: Mapping[str, str] | None,
        keep_open: Sequence[int],
    ) -> None:
        self.done = False
        #: When to start it again; None while it runs or has just ended.
        self.due: float | None = None
        #: Its last exit code, negative for a signal; 0 before it ever ended.
        self.code = 0
        self._name = name
        self._command = command
        self._env = env
        self._keep_open = keep_open
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._delay = FIRST_DELAY

    @property
    def name(self) -> str:
        """What the fleet calls it, or did last: whoever is started again has a new one."""
        return f"{self._name}-r{self._starts - 1}" if self._starts > 1 else self._name

    @property
    def successor(self) -> str:
        """What it will be called when it is started again."""
        return f"{self._name}-r{self._starts}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def refused(self) -> bool:
        """Whether it found its configuration wrong at its first start; a later mistake must not end the others."""
        return self.code == BAD_CONFIGURATION and self._starts == 1

    @property
    def ending(self) -> str:
        return f"exit code {self.code}" if self.code >= 0 else f"signal {signal.Signals(-self.code).name}"

    @property
    def exit_code(self) -> int:
        """Its code as a shell has it. One that SIGTERM ended had not begun to work: a worker drains on it."""
        if self.code in (DRAINED, -signal.SIGTERM):
            return 0
        return self.code if self.code >= 0 else 128 - self.code

    def start(self) -> None:
        # A session of its own: Ctrl-C at the terminal reaches the supervisor only, so that no worker counts it twice.
        self._starts += 1
        self._process = subprocess.Popen(
            self._command(self.name),
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=self._env,
            pass_fds=self._keep_open,
        )
        self._started = time.monotonic()
        self.due = None

    def collect(self) -> None:
        assert self._process is not None
        self.code = self._process.wait()
        self.close()

    def schedule(self) -> float:
        """Decides when to start it again, and returns in how many seconds."""
        young = time.monotonic() - self._started < YOUNG
        delay = self._delay if young else FIRST_DELAY
        self._delay = min(delay * 2, LONGEST_DELAY)
        self.due = time.monotonic() + delay
        return delay

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def worker_names(base: str | None, count: int) -> list[str]:
    """Returns the names of so many workers: `base-1`, `base-2`, ...; of one, the base: host and process when None."""
    base = base or f"{socket.gethostname().split('.')[0]}-{os.getpid()}"
    return [base] if count == 1 else [f"{base}-{number}" for number in range(1, count + 1)]


def worker_command(name: str, *flags: str) -> list[str]:
    """Returns the command line of a supervised worker."""
    return [sys.executable, "-m", "flowtilla.cli", "worker", "--supervised", "--name", name, *flags]


def stop_with_supervisor(grace: float) -> None:
    """Makes this worker drain when its supervisor is gone: the pipe that is its standard input then ends.

    Args:
        grace: seconds that it has to end; then it does in any case, for nobody else would end it.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(killed_after(grace))
        os._exit(1)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()
