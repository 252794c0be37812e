"""Small workflows of many shapes whose answers are known when they are submitted."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

from flowtilla import Workflow, keys

PLANNED = "chaos_stages.Planned"
_TWICE = {"count": 2, "delay": 0.05}

QUEUES, NAMESPACES = ("default", "high"), ("red", "green")

#: Where runs wait.
LINES = [keys.queue(f"{queue}@{namespace}") for queue in QUEUES for namespace in NAMESPACES]

#: Those who may have only so many runs in hand at once.
CUSTOMERS, MOST = ("customer-0", "customer-1", "customer-2"), 2

TIMEOUT = "flowtilla.errors.StageTimeout"
LOST = "flowtilla.errors.StageLost"


@dataclass(frozen=True)
class Fails:
    """How a run must fail.

    Args:
        error: the class.
        stage, item: where.
    """

    error: str
    stage: str
    item: int | None = None


@dataclass(frozen=True)
class Shape:
    """One kind of workflow.

    Args:
        workflow: the workflow.
        answer: the result that a run with input `x` must have, or how it must fail.
        weight: how often it is drawn.
        partial: the stage that leaves out its odd items.
        mended: whether a client mends what it lacks once it has failed, and retries it.
        poisonous: whether it takes its worker down, so that it may be quarantined instead.
    """

    workflow: Workflow
    answer: Callable[[int], Any]
    weight: float = 10
    partial: str | None = None
    mended: bool = False
    poisonous: bool = False


@dataclass(frozen=True)
class Planned:
    """A run to submit.

    Args:
        run_id: its id, by which it is submitted again if nobody answered.
        shape: the name of its shape.
        x: what it is given.
        options: of `submit`.
        cancel_after: seconds after which a client cancels it; None when nobody does.
    """

    run_id: str
    shape: str
    x: int
    options: Mapping[str, Any] = field(default_factory=dict)
    cancel_after: float | None = None

    @property
    def answer(self) -> Any:
        """What must come of it."""
        return shapes()[self.shape].answer(self.x)


def draw(run_id: str, rng: random.Random, folder: str) -> Planned:
    """Returns a run; the same for the same state of the generator."""
    names, weights = zip(*((name, shape.weight) for name, shape in shapes().items()), strict=True)
    shape = rng.choices(names, weights)[0]
    x = rng.randrange(2, 20)
    pause = rng.choices((0.0, rng.uniform(0.02, 0.3), rng.uniform(0.5, 3)), (70, 25, 5))[0]
    if "map" in shape or shape in ("partial", "fails-at"):
        # For each item; a run in whose time three workers die is taken for what kills them.
        pause /= 10
    options: dict[str, Any] = {
        "input": {"x": x, "pause": pause, "folder": folder, "bad": x // 2},
        "namespace": rng.choice(NAMESPACES),
        "queue": rng.choice((*QUEUES, "default")),
        "at_front": rng.random() < 0.05,
    }
    if rng.random() < 0.05:
        options |= {"delay": rng.uniform(0.5, 10), "at_front": False}
    if rng.random() < 0.2:
        options["concurrency"] = {rng.choice(CUSTOMERS): MOST}
    cancelled = rng.random() < 0.04 and not shapes()[shape].mended
    return Planned(run_id, shape, x, options, rng.uniform(0, 3) if cancelled else None)


def arguments(planned: Planned) -> dict[str, Any]:
    """Returns what `submit` is called with."""
    return {"workflow": shapes()[planned.shape].workflow, "run_id": planned.run_id, **planned.options}


def _squares(x: int) -> int:
    return sum(i * i for i in range(x))


def _evens(x: int) -> int:
    return sum(i * i for i in range(0, x, 2))


@cache
def shapes() -> dict[str, Shape]:
    """Returns every shape by its name."""
    mapped = {"type": "parameterized"}
    diamond = (_after("start"), _after("double", "start"), _after("triple", "start"))
    numbers, square = _after("numbers"), _after("square", "numbers", **mapped)
    made = {
        "chain": Shape(_workflow(_after("start"), *_adds(4)), lambda x: x + 4, weight=30),
        "diamond": Shape(_workflow(*diamond, _after("total", "double", "triple")), lambda x: 5 * x, weight=20),
        "two-ends": Shape(_workflow(*diamond), lambda x: {"double": 2 * x, "triple": 3 * x}),
        "map": Shape(_workflow(numbers, square, _after("total_of", "square")), _squares, weight=15),
        "maps": Shape(
            _workflow(numbers, square, _after("add", "square", **mapped), _after("total_of", "add")),
            lambda x: _squares(x) + x,
        ),
        "partial": Shape(
            _workflow(
                numbers,
                _after("square_of_even", "numbers", allow_partial_failure=True, **mapped),
                _after("total_of", "square_of_even"),
            ),
            _evens,
            partial="square_of_even",
        ),
        "fails": Shape(
            _workflow(_after("start"), _after("fails", "start"), _after("add", "fails"), _after("double", "start")),
            lambda x: Fails(PLANNED, "fails"),
        ),
        "fails-at": Shape(
            _workflow(numbers, _after("fails_at", "numbers", **mapped), _after("total_of", "fails_at")),
            lambda x: Fails(PLANNED, "fails_at", x // 2),
        ),
        "artifact": Shape(_workflow(_after("start"), _after("stores", "start"), *_adds(1, "stores")), lambda x: x + 1),
        "last-artifact": Shape(_workflow(_after("start"), _after("stores", "start")), lambda x: x),
        "checkpoint": Shape(
            _workflow(_after("start"), _after("pair", "start", checkpoint=True), _after("total_of_pair", "pair")),
            lambda x: 2 * x + 1,
        ),
        "not-kept": Shape(_workflow(_after("start"), _after("pair", "start"), _after("total_of_pair", "pair")), _odd),
        "large": Shape(_workflow(_after("start"), _after("large", "start")), lambda x: list(range(x, x + 20_000))),
        "large-between": Shape(
            _workflow(_after("start"), _after("large", "start"), _after("total_of", "large")),
            lambda x: sum(range(x, x + 20_000)),
        ),
        "retries": Shape(
            _workflow(_after("start"), _after("flaky", "start", retries=_TWICE), *_adds(1, "flaky")),
            lambda x: x + 1,
        ),
        "timeout": Shape(
            _workflow(_after("start"), _after("sleeps", "start", timeout=0.5)), lambda x: Fails(TIMEOUT, "sleeps"), 4
        ),
        "mended": Shape(
            _workflow(_after("start"), _after("mended", "start"), *_adds(1, "mended")), lambda x: x + 1, mended=True
        ),
        "poison": Shape(
            _workflow(_after("start"), _after("dies", "start")), lambda x: Fails(LOST, "dies"), 0.3, poisonous=True
        ),
    }
    return made


def _odd(x: int) -> int:
    return 2 * x + 1


def _adds(count: int, after: str = "start") -> list[dict[str, Any]]:
    names = [after, *(f"add-{number}" for number in range(count))]
    return [_after(name, before, target="add") for before, name in pairwise(names)]


def _after(name: str, *parents: str, target: str | None = None, **options: Any) -> dict[str, Any]:
    return {"name": name, "target": f"chaos_stages.{target or name}", "depends_on": list(parents), **options}


def _workflow(*stages: dict[str, Any]) -> Workflow:
    return Workflow("chaos", list(stages))
