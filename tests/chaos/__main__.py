"""`make chaos`: a fleet, its faults, its workload, and what must be true when all is over."""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from redis import Redis

import flowtilla
from flowtilla.settings import Settings

from . import leftovers
from .clusters import CLUSTERS, LOCAL, Cluster
from .faults import CLUSTER_GAP, REDIS, REDIS_GAP, WORKER, WORKER_GAP, Incidents, Timeline, plan
from .history import read
from .invariants import check_all
from .producers import Producers, patiently
from .queue_server import QueueServer
from .recovery import losses
from .report import HEAD, Report
from .workers import MARK, Slot, marked

#: Workers of the fleet, and producers.
WORKERS, PRODUCERS = 3, 3

#: Seconds from the last fault to the end of the last run.
BOUND = 120.0

_MODULES = Path(__file__).parent.parent / "modules"


def main() -> int:
    """Runs it once and returns the exit code: 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the faults and runs follow from it")
    parser.add_argument("--minutes", type=float, default=2, help="how long things go wrong")
    parser.add_argument("--executor", choices=[*LOCAL, *CLUSTERS], default="local")
    parser.add_argument("--rate", type=float, default=8, help="runs a second")
    asked = parser.parse_args()
    print(f"play it again: make chaos SEED={asked.seed} MINUTES={asked.minutes:g} EXECUTOR={asked.executor}")
    # Clusters, workers and their children find the stages.
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_MODULES), *([inherited] if inherited else [])])
    sys.path.insert(0, str(_MODULES))
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    report = Harness(asked, folder).run()
    print(f"\n{HEAD}\n{report.row()}\n\n{report.details()}")
    for sentence in report.wrong:
        print(f"VIOLATION: {sentence}")
    if report.wrong:
        print(f"what is left to look at: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


class Harness:
    """One run of it.

    Args:
        asked: seed, minutes, executor, rate.
        folder: for all its files.
    """

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self._asked, self._folder = asked, folder
        self._marks = folder / "marks"
        self._marks.mkdir()
        self._incidents = Incidents()

    def run(self) -> Report:
        """Lets things go wrong, waits until all runs have ended, and looks."""
        asked, wrong = self._asked, self._incidents.complaints
        with ExitStack() as stack:
            queue = stack.enter_context(QueueServer(self._folder, self._incidents))
            env = self._environment()
            stack.callback(_kill_marked, env[MARK])
            slots, cluster = self._fleet(env, queue.port, stack)
            stack.callback(lambda: [slot.kill() for slot in slots])
            settings = self._settings(queue.url)
            client = stack.enter_context(flowtilla.Client(settings=settings))
            redis = stack.enter_context(Redis.from_url(queue.url))
            _await_ready(client)
            self._incidents.begun = time.time()
            timelines = self._timelines(queue, slots, cluster)
            producers = Producers(asked.seed, PRODUCERS, asked.rate, settings, self._marks, self._incidents)
            time.sleep(asked.minutes * 60)
            for timeline in timelines:
                timeline.finish()
            producers.stop()
            print("the faults are over")
            self._await_ends(client, producers)
            # Until now poisonous runs may have killed workers.
            for timeline in timelines:
                timeline.stop()
            wrong += leftovers.in_hand(redis)
            wrong += leftovers.lasting_keys(redis)
            history = read(queue.history)
            lost = list(losses(history, self._incidents.all, [slot.target for slot in slots]))
            records, found = check_all(client, producers, history, self._incidents.all, lost, self._marks)
            wrong += found
            for sentence in wrong:
                print(f"VIOLATION: {sentence}", flush=True)
            wrong += leftovers.let_time_pass(redis, records, self._folder / "storage")
            for slot in slots:
                slot.ask_to_stop()
            for slot in slots:
                slot.stopped()
            wrong += _processes_left(env[MARK])
        return Report(asked.executor, asked.seed, asked.minutes, records, self._incidents.all, lost, producers, wrong)

    def _environment(self) -> dict[str, str]:
        return {
            MARK: self._folder.name,
            "FLOWTILLA__STORAGE": json.dumps(self._storage),
            "FLOWTILLA__SERVICES__WORKER__MODULES": '["chaos_stages"]',
            "FLOWTILLA__SERVICES__WORKER__QUEUES": '["high", "default"]',
        }

    @property
    def _storage(self) -> dict[str, str]:
        return {"base_path": str(self._folder / "storage")}

    def _settings(self, url: str) -> Settings:
        return Settings.model_validate({"redis": {"url": url}, "storage": self._storage})

    def _fleet(self, env: dict[str, str], port: int, stack: ExitStack) -> tuple[list[Slot], Cluster | None]:
        cluster = None
        if (make := CLUSTERS.get(self._asked.executor)) is not None:
            cluster = make(self._folder, stack, self._incidents)
            executors = [cluster.executor] * WORKERS
        else:
            modes = LOCAL[self._asked.executor]
            executors = [{"target": "local", "mode": mode, "cpus": 4} for mode in modes]
        return [
            Slot(number, self._folder, env, port, executor, self._incidents)
            for number, executor in enumerate(executors)
        ], cluster

    def _timelines(self, queue: QueueServer, slots: list[Slot], cluster: Cluster | None) -> list[Timeline]:
        """Begins what will go wrong: with Redis, with the cluster if there is one, and last with the workers."""
        seed, seconds = self._asked.seed, self._asked.minutes * 60
        plans = [(plan(seed, "redis", REDIS, REDIS_GAP, seconds), queue.do, lambda: None)]
        if cluster is not None:
            plans.append((plan(seed, "cluster", cluster.kinds, CLUSTER_GAP, seconds), cluster.do, cluster.tend))
        plans += [(plan(seed, slot.target, WORKER, WORKER_GAP, seconds), slot.do, slot.tend) for slot in slots]
        for fault in sorted(fault for faults, *_ in plans for fault in faults):
            print(f"  planned: {fault}")
        print(f"executor {self._asked.executor}, files in {self._folder}", flush=True)
        return [Timeline(*one, self._incidents) for one in plans]

    def _await_ends(self, client: flowtilla.Client, producers: Producers) -> None:
        deadline = time.monotonic() + BOUND
        left = list(producers.submitted)
        while left:
            left = [run_id for run_id in left if not patiently(lambda run_id=run_id: client.get(run_id)).state.ended]
            if time.monotonic() > deadline:
                return self._incidents.complain(f"{len(left)} runs had not ended after {BOUND:.0f} s: {left[:20]}")
            time.sleep(0.2)
        return None


def _await_ready(client: flowtilla.Client) -> None:
    deadline = time.monotonic() + 120
    while sum(worker.ready for worker in client.workers()) < WORKERS:
        if time.monotonic() > deadline:
            raise TimeoutError("the fleet is not ready")
        time.sleep(0.2)


def _processes_left(mark: str) -> list[str]:
    deadline = time.monotonic() + 15
    while left := marked(mark):
        if time.monotonic() > deadline:
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in left]
            return [f"process left: {pid} {line:.100}" for pid, line in zip(left, lines, strict=True)]
        time.sleep(0.2)
    return []


def _kill_marked(mark: str) -> None:
    for pid in marked(mark):
        os.kill(pid, 9)


if __name__ == "__main__":
    sys.exit(main())
