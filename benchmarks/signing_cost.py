"""What signing costs: of one run, in microseconds."""

import json
import resource
import secrets
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import flowtilla
from fleet import Bench, bench, show
from flowtilla.message import unpack
from flowtilla.settings import Settings, SigningSettings
from flowtilla.signing import check_run, sign_run
from flowtilla.submission import prepare
from flowtilla_worker.seal import Seal

KEYS = {"keys": {"k": secrets.token_hex(32)}, "active": "k"}
OFF, ON = SigningSettings(), SigningSettings.model_validate(KEYS)
FLOW = flowtilla.Workflow("noop", [{"name": "nothing", "target": "noop.nothing"}])
RUNS = 4000


def micros(work: Callable[[], object], times: int = 20_000) -> float:
    """Returns the microseconds that something takes, the best of five."""
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(times // 5):
            work()
        taken.append((time.perf_counter() - begun) / (times // 5))
    return min(taken) * 1e6


def of_one_run() -> None:
    """Shows what each step costs by itself, for a message of 1 KB and one of 100 KB."""
    for size in (1_000, 100_000):
        given = {"text": secrets.token_urlsafe(size)}
        for name, signing in (("off", OFF), ("on", ON)):
            settings = Settings(signing=signing)
            times = 20_000 if size < 5_000 else 1_000
            show(
                f"prepare a run of {size:,} bytes, signing {name}",
                micros(lambda settings=settings, given=given: prepare(settings, FLOW, given), times),
                "µs",
            )
        data = dict(zip(*[iter(prepare(Settings(), FLOW, given).args[4:])] * 2, strict=True))["data"]
        body = unpack(data, 2**20)
        run = ("default--r", "default", "default", body)
        signed = partial(check_run, ON, sign_run(ON, *run), *run)
        show(f"check its signature ({len(body):,} bytes)", micros(signed), "µs")
        show("the same, signing off", micros(lambda run=run: check_run(OFF, "", *run)), "µs")
    text = json.dumps({"value": "x" * 200})
    for name, signing in (("off", OFF), ("on", ON)):
        seal = Seal(signing, "default--r", "default", "k:0")
        show(
            f"sign a stage's record or value, signing {name}",
            micros(lambda seal=seal: seal.put("value", "a", text)),
            "µs",
        )


def in_a_fleet(start: Bench) -> None:
    """Shows what a run costs one worker on threads, in processor time: other work on the machine does not change it."""
    costs: dict[str, list[float]] = {"off": [], "on": []}
    for turn in range(5):
        for name, signing in (("off", OFF), ("on", ON)):
            start.env["FLOWTILLA__SIGNING"] = json.dumps(KEYS if signing.keys else {})
            client = flowtilla.Client(settings=start.client.settings.model_copy(update={"signing": signing}))
            idle = processor_time(start, f"idle-{name}-{turn}")
            client.submit_many([{"workflow": FLOW}] * RUNS)
            costs[name].append((processor_time(start, f"busy-{name}-{turn}") - idle) / RUNS * 1e6)
    for name, found in costs.items():
        show(f"one no-op run, all in all, in a worker, signing {name}", median(found), "µs")


def processor_time(start: Bench, name: str) -> float:
    """Returns the processor seconds of a worker that lives until the queue is empty."""
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    with start.worker("threads", name):
        while start.redis.llen("rq:queue:default") or start.redis.zcard("flowtilla:leases"):
            time.sleep(0.05)
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before


if __name__ == "__main__":
    of_one_run()
    with bench() as started:
        in_a_fleet(started)
