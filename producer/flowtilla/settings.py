"""The settings, one frozen object built once at the process edge and passed down.

`flowtilla.config` reads it from the file and the environment; nothing else looks at either.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from flowtilla.names import Name, Namespace, check_namespace
from flowtilla.redis_settings import RedisSettings
from flowtilla.secrets import masked
from flowtilla.section import Section
from flowtilla.units import Bytes, Seconds


class SigningSettings(Section):
    """The keys with which runs are signed: whoever can write to Redis and holds none makes a worker run nothing.

    `keys` are secrets by id, and `active` is the id of the one that signs; signatures of the others are accepted too.
    With keys, runs that are not signed are refused unless `required` is false.
    """

    keys: dict[Name, SecretStr] = Field(default_factory=dict)
    active: Name | None = None
    required: bool = True

    @field_validator("keys")
    @classmethod
    def _hard_to_guess(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if short := [key_id for key_id, secret in keys.items() if len(secret.get_secret_value()) < 32]:
            raise ValueError(f"the secrets of {', '.join(short)} are too short: 32 random characters at least")
        return keys

    @model_validator(mode="after")
    def _active_is_there(self) -> "SigningSettings":
        if self.active is None and (self.keys or (self.required and "required" in self.model_fields_set)):
            raise ValueError("signing needs keys, and in active the id of the one that signs")
        if self.active is not None and self.active not in self.keys:
            raise ValueError(f"active is {self.active!r}, and keys has {', '.join(self.keys) or 'none'}")
        return self


class StorageSettings(Section):
    """Where artifacts, results and logs are kept: any fsspec protocol.

    `bucket_per_namespace` puts each namespace in a bucket of its own (`{base_path}-{namespace}`) on object stores.
    `parameters` go to the fsspec file system and may hold credentials.
    """

    protocol: str = "file"
    base_path: str = "./.flowtilla/storage"
    parameters: dict[str, Any] = Field(default_factory=dict, repr=False)
    bucket_per_namespace: bool = False


class ExecutorSettings(Section):
    """Which executor runs the stages; every key beside `target` is that executor's own.

    `target` is `local`, `ray`, `dask`, or the dotted path of a class. None chooses Ray where it is installed, else
    Local.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    target: str | None = None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        # Any key may be here, one of an `env_vars` mapping with a token among them.
        yield from masked({"target": self.target} | self.options).items()

    @property
    def options(self) -> dict[str, Any]:
        """The executor's own keys, as keyword arguments of its constructor."""
        return dict(self.model_extra or {})


class ComputeSettings(Section):
    """Where stages run, and the namespace of runs that name none."""

    default_namespace: Namespace = "default"
    executor: ExecutorSettings = ExecutorSettings()


class WorkerSettings(Section):
    """How a worker behaves.

    `modules` are imported at start; their `@flowtilla.stage` functions may run. `allowed_targets` are patterns
    (`legacy.jobs.*`) of further dotted paths that may. `lease` and `heartbeat` decide how soon a dead worker's runs
    are taken over; `grace` is the time from the first SIGTERM to the worker's end; runs have most of it.
    """

    queues: tuple[Name, ...] = Field(default=("default",), min_length=1)
    concurrency: int = Field(default=16, ge=1, le=10_000)
    lease: Seconds = 10.0
    heartbeat: Seconds = 3.0
    grace: Seconds = 25.0
    modules: tuple[str, ...] = ()
    allowed_targets: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _heartbeat_fits_lease(self) -> "WorkerSettings":
        if self.heartbeat * 2 > self.lease:
            raise ValueError(
                f"heartbeat ({self.heartbeat:g}s) must be at most half of lease ({self.lease:g}s), "
                "or one late beat loses the runs"
            )
        return self


class ServicesSettings(Section):
    """The services' own settings."""

    compute: ComputeSettings = ComputeSettings()
    worker: WorkerSettings = WorkerSettings()


class QueueLimits(Section):
    """How many runs may wait in a queue until submitting more is refused; any number when None."""

    max_queued: int | None = Field(default=None, ge=1)


_NONE = QueueLimits()


class NamespaceLimits(QueueLimits):
    """How many runs of a namespace may wait in a queue, and how often it is served beside others that wait there."""

    weight: float = Field(default=1.0, ge=0.01, le=100)


def _check_limited(name: str) -> str:
    return name if name == "*" else check_namespace(name)


class LimitsSettings(Section):
    """What keeps one queue or namespace from taking all there is, by name; `*` is each that is not named.

    Whoever submits heeds `max_queued`, and workers the weights.
    """

    queues: dict[Annotated[str, AfterValidator(_check_limited)], QueueLimits] = Field(default_factory=dict)
    namespaces: dict[Annotated[str, AfterValidator(_check_limited)], NamespaceLimits] = Field(default_factory=dict)

    def max_queued(self, queue: str, namespace: str) -> tuple[int | None, int | None]:
        """Returns how many runs may wait in a queue, and of a namespace in it."""
        of_queue = self.queues.get(queue) or self.queues.get("*") or _NONE
        of_namespace = self.namespaces.get(namespace) or self.namespaces.get("*") or _NONE
        return of_queue.max_queued, of_namespace.max_queued

    @property
    def weights(self) -> dict[str, float]:
        """The weights by namespace."""
        return {name: limits.weight for name, limits in self.namespaces.items()}


class LoggingSettings(Section):
    """How the worker's own log looks."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"

    @field_validator("level", mode="before")
    @classmethod
    def _any_case(cls, level: Any) -> Any:
        return level.upper() if isinstance(level, str) else level


class Settings(Section):
    """All settings, with the defaults of a laptop.

    `max_message` bounds a run's message (input, workflow and config together) in bytes; `retention` is how long a run
    is kept after its end, in seconds.
    """

    redis: RedisSettings = RedisSettings()
    signing: SigningSettings = SigningSettings()
    storage: StorageSettings = StorageSettings()
    limits: LimitsSettings = LimitsSettings()
    services: ServicesSettings = ServicesSettings()
    logging: LoggingSettings = LoggingSettings()
    max_message: Bytes = 1024**2
    retention: Seconds = 7 * 86400.0
