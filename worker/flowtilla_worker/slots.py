"""The runs a worker has in hand."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from redis.exceptions import RedisError

from flowtilla.logs import LogLine
from flowtilla_worker.attempt import Claim
from flowtilla_worker.engine.halt import Halt
from flowtilla_worker.engine.poison import suspect
from flowtilla_worker.engine.runner import Runner
from flowtilla_worker.leases import Held
from flowtilla_worker.stopping import GIVEN_UP, HANDED_BACK, Stopping

_log = logging.getLogger("flowtilla.worker")


class Slots:
    """Drives many runs at once on one event loop.

    Args:
        size: how many at most.
        make_runner: returns what drives a claimed run.
        changed: called when a run has ended.
    """

    def __init__(self, size: int, make_runner: Callable[[Claim], Runner], changed: Callable[[], None]) -> None:
        self._size = size
        self._make_runner = make_runner
        self._changed = changed
        self._runners: dict[str, Runner] = {}
        self._alone = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __len__(self) -> int:
        return len(self._runners)

    @property
    def free(self) -> int:
        """How many more runs can be taken; none beside one that may be what kills workers."""
        return 0 if self._alone and self._runners else self._size - len(self._runners)

    def begin(self, claim: Claim) -> None:
        """Takes a claimed run in hand."""
        self._alone = not self._runners and suspect(claim)
        runner = self._make_runner(claim)
        self._runners[claim.run_id] = runner
        task = asyncio.create_task(self._drive(runner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def held(self) -> list[tuple[str, str]]:
        """Returns run id and token of each run in hand; safe from any thread."""
        return [(runner.claim.run_id, runner.claim.token) for runner in list(self._runners.values())]

    def halt(self, run_ids: Iterable[str], why: Halt) -> None:
        """Stops runs soon; those not in hand are passed over."""
        for run_id in run_ids:
            if (runner := self._runners.get(run_id)) is not None:
                runner.halt(why)

    def halt_held(self, held: Held, why: Halt) -> None:
        """Stops runs of which Redis was asked a while ago: one that was handed back and claimed again goes on."""
        for run_id, token in held:
            if (runner := self._runners.get(run_id)) is not None and runner.claim.token == token:
                runner.halt(why)

    def halt_all(self, why: Halt, reason: str = "") -> None:
        """Stops all runs soon; the reason is for their logs."""
        for runner in list(self._runners.values()):
            runner.halt(why, reason)

    async def drain(self, stopping: Stopping) -> None:
        """Lets runs finish as long as they may, and hands back what is left."""
        finished = asyncio.create_task(self._all_ended())
        hurried = asyncio.create_task(stopping.hurry.wait())
        await asyncio.wait({finished, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not finished.done():
            _log.info("handing back %d runs", len(self))
            self.halt_all(Halt.HANDED_BACK)
            await asyncio.wait({finished}, timeout=stopping.left(HANDED_BACK))
            giving_up = [asyncio.create_task(self._give_up(runner)) for runner in self._runners.values()]
            if giving_up:
                await asyncio.wait(giving_up, timeout=stopping.left(GIVEN_UP))
        finished.cancel()

    async def _give_up(self, runner: Runner) -> None:
        """Lets go of a run whose stages have not stopped yet, and perhaps never do."""
        try:
            await runner.give_up()
        except RedisError as error:
            _log.error("run %s could not be handed back: %s", runner.claim.run_id, error)
        else:
            _log.info("run %s is handed back, though its stages have not stopped", runner.claim.run_id)
            self._runners.pop(runner.claim.run_id, None)

    def log_sink(self, lines: Sequence[LogLine]) -> None:
        """Takes lines from the executor, in whatever thread it has them."""
        if threading.get_ident() == self._thread:
            self._log(lines)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._log, lines)

    def _log(self, lines: Sequence[LogLine]) -> None:
        by_run: dict[str, list[LogLine]] = {}
        for line in lines:
            by_run.setdefault(line.run_id, []).append(line)
        for run_id, own in by_run.items():
            if (runner := self._runners.get(run_id)) is not None:
                runner.log(own)

    async def _all_ended(self) -> None:
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _drive(self, runner: Runner) -> None:
        claim, begun = runner.claim, time.monotonic()
        try:
            how = await runner.run()
        except Exception:
            # Not even that could be written down; the lease runs out, and the run is tried again.
            _log.exception("run %s: attempt %d broke", claim.run_id, claim.attempt)
        else:
            took = time.monotonic() - begun
            _log.info("run %s: attempt %d %s in %.3f s", claim.run_id, claim.attempt, how.value, took)
        finally:
            if self._runners.get(claim.run_id) is runner:
                del self._runners[claim.run_id]
            self._changed()
