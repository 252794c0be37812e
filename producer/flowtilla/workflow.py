"""The workflow model: what YAML, JSON and Python all build."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from flowtilla import graph
from flowtilla.errors import InvalidWorkflow
from flowtilla.names import Name
from flowtilla.problems import describe
from flowtilla.targets import import_path
from flowtilla.units import Bytes, Seconds

#: A stage that runs once, or once per item of what it maps over.
StageType = Literal["simple", "parameterized"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Model):
    """What a stage, or each item of it, needs: `cpus`, `gpus`, `memory` ("8GB"), and any logical name."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0)]] = Field(init=False)

    cpus: float | None = Field(default=None, ge=0)
    gpus: float | None = Field(default=None, ge=0)
    memory: Bytes | None = None

    @property
    def logical(self) -> dict[str, float]:
        """The resources that only a name and a count define."""
        return dict(self.__pydantic_extra__)


class Retries(_Model):
    """How often, and how, a failed stage or item is tried again; a bare number in a file is `count`.

    Args:
        count: how many tries follow the first.
        delay: seconds before the first retry.
        backoff: each later delay is this many times the one before.
        max_delay: no delay is longer, in seconds.
        jitter: each delay is drawn from ± this fraction of itself.
        on: exception class names (`TimeoutError`, `my_pkg.Flaky`) worth a retry; all when empty.
    """

    count: int = Field(default=0, ge=0)
    delay: Seconds = 0.0
    backoff: float = Field(default=2.0, ge=1, le=1000)
    max_delay: Seconds = 300.0
    jitter: float = Field(default=0.1, ge=0, le=1)
    on: tuple[str, ...] = ()


def _read_retries(value: Any) -> Any:
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


class StageOptions(_Model):
    """Everything about a stage that `@flowtilla.stage` can give a default for."""

    resources: Resources | None = None
    retries: Annotated[Retries | None, BeforeValidator(_read_retries)] = None
    timeout: Seconds | None = Field(default=None, gt=0)
    stage_timeout: Seconds | None = Field(default=None, gt=0)
    priority: int | None = None
    checkpoint: bool | None = None
    readonly_arguments: bool | None = None
    allow_partial_failure: bool | None = None


class Stage(StageOptions):
    """One step of a workflow.

    Args:
        name: unique in the workflow.
        target: the dotted path of a function, or the function itself, which travels as its path.
        type: `simple` runs once; `parameterized` runs once per item.
        depends_on: the stages whose values are its positional arguments, in this order.
        map_on: maps over `input[map_on]` instead of the first parent's value.
        allow_partial_failure: failed items are left out of the list instead of failing the stage.
        checkpoint: keep the value in storage, so that a later attempt need not run the stage again.
        readonly_arguments: the arrays in its arguments are not copied for it, and it cannot write into them.
        priority: of stages that wait for room on the executor the highest begins first, 0 by default; Ray has none.
        resources, retries: see `Resources`, `Retries`.
        timeout: seconds, for each try of the stage, or of each item of a mapped one.
        stage_timeout: seconds for the whole stage: all its items, tries, and the delays between them.
    """

    name: Name
    target: str
    type: StageType = "simple"
    depends_on: tuple[Name, ...] = ()
    map_on: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _lift_options(cls, data: Any) -> Any:
        """Reads `map_on` and `allow_partial_failure` under `options:` too, as Flowdapt's files have them."""
        if not isinstance(data, dict) or "options" not in data:
            return data
        options = data["options"] or {}
        if not isinstance(options, dict):
            raise ValueError(f"options must be a mapping, not {type(options).__name__}")
        if unknown := sorted(set(options) - {"map_on", "allow_partial_failure"}):
            raise ValueError(f"unknown options {unknown}: options may hold map_on and allow_partial_failure")
        if twice := sorted(set(options) & set(data)):
            raise ValueError(f"{twice[0]} is given on the stage and under its options: keep one")
        return {key: value for key, value in data.items() if key != "options"} | options

    @field_validator("target", mode="before")
    @classmethod
    def _travels_as_path(cls, target: Any) -> Any:
        return import_path(target) if callable(target) else target

    @field_validator("target")
    @classmethod
    def _dotted(cls, target: str) -> str:
        parts = target.split(".")
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise ValueError(f"{target!r} is not a dotted path: write package.module.function")
        return target

    @model_validator(mode="after")
    def _maps_over_something(self) -> Self:
        if self.type == "simple" and self.map_on is not None:
            raise ValueError("map_on is only for stages of type parameterized")
        if self.type == "parameterized" and not self.depends_on and self.map_on is None:
            raise ValueError(
                "a parameterized stage without depends_on has nothing to map over: give map_on, a key of the input"
            )
        return self


class Metadata(_Model):
    """What a workflow is called, and notes that flowtilla keeps and does not read."""

    name: Name
    annotations: dict[str, str] = Field(default_factory=dict)


class Spec(_Model):
    """The stages, in any order, and how many runs of the workflow may be in workers' hands at once in a namespace."""

    stages: tuple[Stage, ...]
    concurrency: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _is_a_dag(self) -> Self:
        if not self.stages:
            raise ValueError("stages is empty: a workflow needs at least one stage")
        graph.check([(stage.name, stage.depends_on) for stage in self.stages])
        return self


class Workflow(_Model):
    """A DAG of stages.

    In Python the short form reads best:

        Workflow("build_features", [
            Stage(name="cities", target=create_city_list),
            Stage(name="fetch", target=fetch_city, type="parameterized", depends_on=["cities"]),
        ])

    Args:
        name: the workflow's name, `metadata.name` in a file.
        stages: `Stage` objects or mappings of the same fields.
        annotations: free notes.
        concurrency: how many runs of it may be in workers' hands at once in a namespace; any number when None.

    Raises:
        InvalidWorkflow: a rule is broken; the message names each field's path.
    """

    kind: Literal["workflow"] = "workflow"
    metadata: Metadata
    spec: Spec

    def __init__(
        self,
        name: str | None = None,
        stages: Sequence[Stage | dict[str, Any]] | None = None,
        /,
        annotations: dict[str, str] | None = None,
        concurrency: int | None = None,
        **fields: Any,
    ) -> None:
        if name is not None:
            fields["metadata"] = {"name": name, "annotations": annotations or {}}
        if stages is not None:
            fields["spec"] = {"stages": stages, "concurrency": concurrency}
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InvalidWorkflow(describe(error, f"workflow {name or _name_in(fields)}", _KNOWN)) from error

    # Tells pydantic to validate data without passing through __init__, which is for people.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def parse(cls, data: Any, source: str = "workflow") -> "Workflow":
        """Returns the workflow that a mapping describes.

        Args:
            data: the mapping, as a YAML or JSON file holds it.
            source: where it comes from, for the message.

        Raises:
            InvalidWorkflow: a rule is broken; the message names each field's path.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InvalidWorkflow(describe(error, source, _KNOWN)) from error

    @property
    def name(self) -> str:
        """The workflow's name."""
        return self.metadata.name

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, as declared."""
        return self.spec.stages

    @property
    def concurrency(self) -> int | None:
        """How many runs of it may be in workers' hands at once in a namespace; any number when None."""
        return self.spec.concurrency

    @property
    def final_stages(self) -> tuple[str, ...]:
        """The names of the stages that no other needs: their values are the run's result."""
        needed = {parent for stage in self.stages for parent in stage.depends_on}
        return tuple(stage.name for stage in self.stages if stage.name not in needed)

    def to_wire(self) -> dict[str, Any]:
        """Returns the mapping that travels and that a file would hold: nothing that is a default."""
        return {"kind": "workflow"} | self.model_dump(mode="json", exclude_defaults=True)

    @cached_property
    def wire_json(self) -> str:
        """The same as compact JSON, made once: many runs share a workflow."""
        return json.dumps(self.to_wire(), separators=(",", ":"))


#: The keys that a file may have, by where, for suggestions.
_KNOWN = {
    (): list(Workflow.model_fields),
    ("metadata",): list(Metadata.model_fields),
    ("spec",): list(Spec.model_fields),
    ("spec", "stages", "[]"): [*Stage.model_fields, "options"],
    ("spec", "stages", "[]", "retries"): list(Retries.model_fields),
}


def _name_in(fields: dict[str, Any]) -> str:
    metadata = fields.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


#: What people may hand in where a workflow is wanted, beside a path.
WorkflowLike = Workflow | dict[str, Any]

#: A function that can be a stage.
StageFunction = Callable[..., Any]
