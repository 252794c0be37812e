"""The settings, one frozen object built once at the process edge and passed down.

`flowtilla.config` reads it from the file and the environment; nothing else looks at either.
"""

from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from flowtilla.names import Name
from flowtilla.secrets import masked
from flowtilla.units import Bytes, Seconds


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RedisSettings(_Section):
    """Where the queue is.

    `url` may carry a password, so it is a secret: it never appears in a log, an error or a `repr`.
    """

    url: SecretStr = SecretStr("redis://localhost:6379/0")

    @field_validator("url")
    @classmethod
    def _is_a_redis_url(cls, url: SecretStr) -> SecretStr:
        # Nothing of the value is repeated: the part that is wrong may be the password.
        try:
            parts = urlsplit(url.get_secret_value())
            valid = parts.scheme in ("redis", "rediss", "unix") and (parts.port is None or parts.port > 0)
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(
                "is not a Redis URL: write redis://, rediss:// or unix://, such as redis://:password@host:6379/0, "
                "with the characters / ? # @ of a password percent-encoded"
            )
        return url


class StorageSettings(_Section):
    """Where artifacts, results and logs are kept: any fsspec protocol.

    `bucket_per_namespace` puts each namespace in a bucket of its own (`{base_path}-{namespace}`) on object stores.
    `parameters` go to the fsspec file system and may hold credentials.
    """

    protocol: str = "file"
    base_path: str = "./.flowtilla/storage"
    parameters: dict[str, Any] = Field(default_factory=dict, repr=False)
    bucket_per_namespace: bool = False


class ExecutorSettings(_Section):
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


class ComputeSettings(_Section):
    """Where stages run, and the namespace of runs that name none."""

    default_namespace: Name = "default"
    executor: ExecutorSettings = ExecutorSettings()


class WorkerSettings(_Section):
    """How a worker behaves.

    `modules` are imported at start; their `@flowtilla.stage` functions may run. `allowed_targets` are patterns
    (`legacy.jobs.*`) of further dotted paths that may. `lease` and `heartbeat` decide how soon a dead worker's runs
    are taken over; `grace` is how long runs may finish after the first SIGTERM.
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


class ServicesSettings(_Section):
    """The services' own settings."""

    compute: ComputeSettings = ComputeSettings()
    worker: WorkerSettings = WorkerSettings()


class LoggingSettings(_Section):
    """How the worker's own log looks."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"

    @field_validator("level", mode="before")
    @classmethod
    def _any_case(cls, level: Any) -> Any:
        return level.upper() if isinstance(level, str) else level


class Settings(_Section):
    """All settings, with the defaults of a laptop.

    `max_message` bounds a run's message (input, workflow and config together) in bytes; `retention` is how long a run
    is kept after its end, in seconds.
    """

    redis: RedisSettings = RedisSettings()
    storage: StorageSettings = StorageSettings()
    services: ServicesSettings = ServicesSettings()
    logging: LoggingSettings = LoggingSettings()
    max_message: Bytes = 1024**2
    retention: Seconds = 7 * 86400.0
