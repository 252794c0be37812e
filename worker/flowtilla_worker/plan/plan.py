"""A workflow made ready to run: each stage with its function, its options and how it takes its arguments."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flowtilla import graph
from flowtilla.cache import Cache
from flowtilla.decorator import options_of
from flowtilla.errors import InvalidWorkflow, TargetError
from flowtilla.workflow import Resources, Retries, Stage, StageOptions, Workflow
from flowtilla_worker.plan.binding import Binding, bind
from flowtilla_worker.plan.catalog import Catalog
from flowtilla_worker.plan.portable import portable

#: Seconds that a run waits until the targets are imported that are new to its worker.
_IMPORT = 300.0

#: Imports one after another: what hangs then holds up nothing but other imports.
_importer = ThreadPoolExecutor(1, "flowtilla-import")


@dataclass(frozen=True)
class PlannedStage:
    """One stage, ready to run.

    Args:
        stage: as declared.
        function: what its target names.
        options: what it declares, else what its decorator gives.
        binding: how the function takes its arguments.
        children: the stages that depend on it, each once.
    """

    stage: Stage
    function: Callable[..., Any]
    options: StageOptions
    binding: Binding
    children: tuple[str, ...]

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @cached_property
    def portable(self) -> str | bytes:
        """How a stage's process finds the function."""
        return portable(self.stage.target, self.function)

    @property
    def parents(self) -> tuple[str, ...]:
        """The stages it depends on, each once."""
        return tuple(dict.fromkeys(self.stage.depends_on))

    @property
    def mapped(self) -> bool:
        """Whether it runs once per item."""
        return self.stage.type == "parameterized"

    @property
    def source(self) -> str | None:
        """The parent whose items it maps over; None when it is simple or maps over the input."""
        return self.stage.depends_on[0] if self.mapped and self.stage.map_on is None else None

    @property
    def retries(self) -> Retries:
        """How a failed try is repeated."""
        return self.options.retries or Retries()

    @property
    def resources(self) -> Resources:
        """What one call of it needs."""
        return self.options.resources or Resources()


@dataclass(frozen=True)
class Plan:
    """A workflow made ready to run.

    Args:
        workflow: what was submitted.
        stages: by name, each after those it depends on.
    """

    workflow: Workflow
    stages: Mapping[str, PlannedStage]

    @classmethod
    def of(cls, workflow: Workflow, catalog: Catalog) -> "Plan":
        """Returns the plan of a workflow.

        Raises:
            TargetNotAllowed: the worker may not run a stage's target.
            TargetError: a target cannot be resolved.
            InvalidWorkflow: a function cannot take what its stage would give it.
        """
        declared = {stage.name: stage for stage in workflow.stages}
        children: dict[str, list[str]] = {name: [] for name in declared}
        for stage in workflow.stages:
            for parent in dict.fromkeys(stage.depends_on):
                children[parent].append(stage.name)
        planned = {}
        for name in graph.order([(stage.name, stage.depends_on) for stage in workflow.stages]):
            stage = declared[name]
            function = catalog.function(stage.target)
            planned[name] = PlannedStage(
                stage, function, options_of(stage, function), bind(stage, function), tuple(children[name])
            )
        return cls(workflow, planned)

    @cached_property
    def finals(self) -> tuple[str, ...]:
        """The stages whose values are the run's result."""
        return self.workflow.final_stages

    def check_input(self, given: Mapping[str, Any]) -> None:
        """Makes sure that the input has what the root stages require.

        Raises:
            InvalidWorkflow: something is missing; the message names stage and parameter.
        """
        for planned in self.stages.values():
            stage = planned.stage
            if stage.map_on is not None and stage.map_on not in given:
                raise InvalidWorkflow(
                    f"stage {stage.name!r} maps over input[{stage.map_on!r}], which the input does not have: "
                    f"submit with input={{{stage.map_on!r}: [...]}}"
                )
            if not stage.depends_on and (missing := planned.binding.missing(given)):
                raise InvalidWorkflow(
                    f"stage {stage.name!r}: {stage.target} requires {', '.join(missing)}, which the input does not "
                    f"have: it has {', '.join(sorted(given)) or 'nothing'}"
                )


class Planner:
    """Makes plans, once for equal workflows: many runs share one.

    Args:
        catalog: which functions may run.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._loaded: set[str] = set()
        self._plan = Cache(lambda wire: Plan.of(Workflow.model_validate_json(wire), catalog))

    async def load(self, workflow: Workflow) -> None:
        """Imports those targets of a workflow that are new here, on a thread: that may take long.

        Raises:
            TargetNotAllowed, TargetError: as `Plan.of` does; or it took too long.
        """
        targets = dict.fromkeys(stage.target for stage in workflow.stages)
        new = [one for one in targets if one not in self._loaded and self._catalog.imports(one)]
        if not new:
            return
        try:
            async with asyncio.timeout(_IMPORT):
                await asyncio.wrap_future(_importer.submit(self._load, new))
        except TimeoutError as error:
            raise TargetError(
                f"{', '.join(new)} was not imported within {_IMPORT:g} s, or what another run imports on this worker: "
                "let services.worker.modules list what takes long, or mend the module, and retry the run"
            ) from error

    def plan(self, workflow: Workflow) -> Plan:
        """Returns the plan of a workflow; raises as `Plan.of` does."""
        return self._plan(workflow.wire_json)

    def _load(self, targets: Sequence[str]) -> None:
        for target in targets:
            self._catalog.function(target)
            self._loaded.add(target)
