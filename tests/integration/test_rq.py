"""RQ's own tools see the truth."""

import json
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest
import rq
from redis import Redis
from rq.command import send_shutdown_command, send_stop_job_command
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from fleet import Fleet, until


def count(kind: type, redis: Redis, queue: str = "default") -> int:
    # With clean-up, which is what would fail a run whose entry had expired.
    return int(kind(queue, connection=redis, serializer=JSONSerializer).count)


def test_registries_and_counts_are_right(fleet: Fleet, redis: Redis) -> None:
    """Queued, started, finished, failed: RQ counts each run where it is, clean-up or not."""
    fleet.start("w", concurrency=3)
    gate, done, bad = fleet.submit({"name": "gate"}), fleet.submit({"name": "nothing"}), fleet.submit({"name": "fails"})
    fleet.begun()
    done.wait(timeout=30), bad.wait(timeout=30)
    waiting = fleet.submit({"name": "nothing"}, queue="unserved")

    assert count(StartedJobRegistry, redis) == 1
    assert count(FinishedJobRegistry, redis) == 1
    assert count(FailedJobRegistry, redis) == 1
    assert rq.Queue("unserved", connection=redis).job_ids == [waiting.id]
    assert StartedJobRegistry("default", connection=redis).get_job_ids() == [gate.id]

    (worker,) = rq.Worker.all(connection=redis)
    assert (worker.name, [queue.name for queue in worker.queues]) == ("w", ["default"])
    until(lambda: rq.Worker.all(connection=redis)[0].get_state() == "busy")
    fleet.open_gate()
    gate.wait(timeout=30)
    until(lambda: rq.Worker.all(connection=redis)[0].get_state() == "idle")
    (worker,) = rq.Worker.all(connection=redis)
    assert (worker.successful_job_count, worker.failed_job_count) == (2, 1)
    assert count(StartedJobRegistry, redis) == 0


def test_rq_info_prints_the_fleet(fleet: Fleet, redis: Redis) -> None:
    """The command people know shows the worker, its queue and its counts."""
    fleet.start("w")
    fleet.submit({"name": "nothing"}).wait(timeout=30)
    fleet.submit({"name": "nothing"}, queue="unserved")

    shown = subprocess.run(
        [sys.executable, "-m", "rq.cli", "info", "--url", fleet.url, "--raw"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "queue unserved 1" in shown
    assert "worker w (" in shown
    assert "jobs: 1 finished, 0 failed" in shown


def test_the_job_tells_result_error_and_progress(fleet: Fleet, redis: Redis) -> None:
    """`Job.fetch` has description, status, return value, traceback and a readable meta."""
    fleet.start("w")
    good = fleet.submit({"name": "stores"}, input={"x": 3}, namespace="research")
    bad = fleet.submit({"name": "fails"}, input={"message": "<b>no</b>"})
    good.wait(timeout=30), bad.wait(timeout=30)

    job = Job.fetch(good.id, connection=redis, serializer=JSONSerializer)
    assert job.description == "tested · namespace=research"
    assert (job.get_status(), job.return_value()) == ("finished", 3)
    assert job.started_at <= job.ended_at
    assert job.meta["progress"] == "1/1 stages"
    assert job.meta["stages"]["stores"].startswith("finished 1/1")
    assert job.meta["log"][-1].endswith("storing 3")
    failed = Job.fetch(bad.id, connection=redis, serializer=JSONSerializer)
    assert failed.get_status() == "failed"
    # rq-dashboard shows it as HTML on one page and as text on another.
    assert "ValueError: ‹b›no‹/b›" in failed.latest_result().exc_string


def test_rq_requeue_tries_a_failed_run_again(fleet: Fleet, redis: Redis) -> None:
    """What the dashboard's button does: the run gets another attempt."""
    fleet.start("w")
    run = fleet.submit({"name": "fails"})
    run.wait(timeout=30)

    FailedJobRegistry("default", connection=redis, serializer=JSONSerializer).requeue(run.id)

    until(lambda: run.record.attempt == 2 and run.state == "failed")


def test_rq_requeue_of_a_quarantined_run_begins_afresh(fleet: Fleet, redis: Redis) -> None:
    """Its strikes are forgotten: it runs, instead of being set aside again at once."""
    run = fleet.submit({"name": "echo"}, input={"x": 1})
    redis.hset(f"rq:job:{run.id}", mapping={"strikes": 3, "losses": 3, "cluster_strikes": 5, "cluster_losses": 5})
    fleet.start("w")
    assert run.wait(timeout=60) == "quarantined"

    FailedJobRegistry("default", connection=redis, serializer=JSONSerializer).requeue(run.id)

    assert run.result(timeout=30) == 1
    assert run.record.error is None
    assert redis.hmget(f"rq:job:{run.id}", "quarantined", "strikes", "losses", "cluster_losses") == [None] * 4


def test_suspend_and_resume_hold_the_fleet(fleet: Fleet, redis: Redis) -> None:
    """`rq suspend` stops claims, `rq resume` starts them."""
    suspend(redis)
    fleet.start("w")
    run = fleet.submit({"name": "nothing"})
    with pytest.raises(TimeoutError):
        run.wait(timeout=2)

    resume(redis)
    assert run.wait(timeout=30) == "finished"


def test_rqs_stop_and_shutdown_commands_are_obeyed(fleet: Fleet, redis: Redis) -> None:
    """Stop-job cancels the run; shutdown drains the worker."""
    fleet.start("w")
    run = fleet.submit({"name": "gate"})
    fleet.begun()
    send_stop_job_command(redis, run.id, serializer=JSONSerializer)
    assert run.wait(timeout=30) == "cancelled"

    send_shutdown_command(redis, "w")
    assert fleet.ended("w") == 0
    assert rq.Worker.all(connection=redis) == []


def test_rqs_stop_command_outlives_the_moment(fleet: Fleet, redis: Redis) -> None:
    """The worker that is told no longer has the run: what was handed back is cancelled, what is lost ends cancelled."""
    fleet.start("w", queues='["served"]')
    waiting, lost = fleet.submit({"name": "mark"}), fleet.submit({"name": "mark"})
    redis.lrem("rq:queue:default", 0, lost.id)
    redis.hset(f"rq:job:{waiting.id}", "worker_name", "w")
    redis.hset(f"rq:job:{lost.id}", mapping={"worker_name": "w", "status": "started", "token": "1-x", "attempt": 1})
    until(lambda: redis.pubsub_numsub("rq:pubsub:w")[0][1])
    for run in (waiting, lost):
        send_stop_job_command(redis, run.id, serializer=JSONSerializer)

    assert waiting.wait(timeout=30) == "cancelled"
    until(lambda: redis.hget(f"rq:job:{lost.id}", "cancel") == b"1")
    redis.zadd("flowtilla:leases", {lost.id: 1})
    fleet.start("second")
    assert lost.wait(timeout=30) == "cancelled"
    assert fleet.marks() == []


def test_an_unpatched_dashboard_shows_every_state(fleet: Fleet, redis: Redis) -> None:
    """rq-dashboard --json: every page and endpoint answers 200, whatever state jobs are in."""
    fleet.start("w", concurrency=3)
    runs = {
        "started": fleet.submit({"name": "gate"}, namespace="research"),
        "finished": fleet.submit({"name": "stores"}, input={"x": 3}),
        "failed": fleet.submit({"name": "fails"}),
        "scheduled": fleet.submit({"name": "nothing"}, delay=3600),
    }
    fleet.begun()
    runs["finished"].wait(timeout=30), runs["failed"].wait(timeout=30)
    runs["queued"] = fleet.submit({"name": "nothing"}, queue="unserved")
    until(lambda: b"gate" in (redis.hget(f"rq:job:{runs['started'].id}", "meta") or b""))
    with Dashboard(fleet.url) as dashboard:
        for page in ("/", "/0/view/queues", "/0/view/workers", "/0/view/jobs", "/0/data/queues.json"):
            dashboard.get(page)
        (worker,) = json.loads(dashboard.get("/0/data/workers.json"))["workers"]
        assert (worker["name"], worker["state"]) == ("w", "busy")
        for state, run in runs.items():
            queue = "unserved" if state == "queued" else "default"
            dashboard.get(f"/0/view/jobs/{queue}/{state}/8/asc/1")
            listed = json.loads(dashboard.get(f"/0/data/jobs/{queue}/{state}/8/asc/1.json"))["jobs"]
            assert run.id in [job["id"] for job in listed]
            dashboard.get(f"/0/view/job/{run.id}")
        shown = {state: json.loads(dashboard.get(f"/0/data/job/{run.id}.json")) for state, run in runs.items()}
    assert shown["started"]["description"] == "tested · namespace=research"
    assert json.loads(shown["started"]["metadata"])["progress"] == "0/1 stages"
    assert shown["finished"]["result"] == 3
    assert "ValueError: as planned" in shown["failed"]["exc_info"]
    fleet.open_gate()


class Dashboard:
    """A real rq-dashboard on a free port.

    Args:
        url: the Redis.
    """

    def __init__(self, url: str) -> None:
        from flowtilla_worker.dev.ports import free_port

        self._port = free_port()
        command = ["-m", "rq_dashboard", "--json", "--bind", "127.0.0.1", "--port", str(self._port), "--redis-url", url]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> "Dashboard":
        until(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def get(self, path: str) -> str:
        """Returns a page; anything but 200 raises."""
        with urlopen(Request(f"http://127.0.0.1:{self._port}{path}"), timeout=10) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            self.get("/")
        except OSError:
            return False
        return True
