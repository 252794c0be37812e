"""Builds the settings, once, at the process edge.

A key is taken from the first of these that has it: the command line, the environment, the configuration file, a running
`flowtilla dev` of this folder (`redis.url` only), the defaults.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from flowtilla.errors import ConfigurationError
from flowtilla.loading import Document, read
from flowtilla.plain_data import parse_value
from flowtilla.problems import describe
from flowtilla.secrets import MASK, hidden, masked
from flowtilla.settings import Settings

#: Variables that begin so are settings; two underscores part the keys.
PREFIX = "FLOWTILLA__"

#: The variable that names the configuration file.
FILE_VARIABLE = "FLOWTILLA_CONFIG"

#: The configuration file of a folder, read when no other is named.
DEFAULT_FILE = "flowtilla.yaml"

#: Where a running `flowtilla dev` says how to reach it.
DEV_FILE = Path(".flowtilla", "dev.json")

# What errors never show.
_SECRETS = (("redis", "url"), ("redis", "sentinel", "password"), ("signing", "keys"), ("storage", "parameters"))


def load(
    path: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Returns the settings.

    Args:
        path: the configuration file; else `FLOWTILLA_CONFIG` names it, else it is `./flowtilla.yaml` if there is one.
        env: the environment; this process's when None.
        overrides: settings that go before all others, shaped like the file.

    Raises:
        ConfigurationError: a file cannot be read, a key is unknown or a value is wrong; the message says which.
    """
    env = os.environ if env is None else env
    return _resolved(_build([*_given(overrides), *_environment(env), *_file(path, env), *_dev()]))


def shown(settings: Settings) -> dict[str, Any]:
    """Returns the settings as plain data without secrets."""
    data = settings.model_dump(mode="json", fallback=str)
    data["redis"]["url"] = settings.redis.url.get_secret_value()
    data["storage"]["parameters"] = hidden(data["storage"]["parameters"])
    safe: dict[str, Any] = masked(data)
    return safe


class _Source(PydanticBaseSettingsSource):
    """One place that settings come from, and how errors call it."""

    def __init__(self, name: str, data: Mapping[str, Any], document: Document | None = None) -> None:
        super().__init__(BaseSettings)
        self.name = name
        self.data = dict(data)
        self._document = document

    def __call__(self) -> dict[str, Any]:
        return self.data

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.data.get(field_name), field_name, False

    def has(self, location: Sequence[int | str]) -> bool:
        """Returns whether the value at a location is this source's."""
        data: Any = self.data
        for part in location:
            if not isinstance(data, dict):
                return True
            if part not in data:
                return False
            data = data[part]
        return True

    def explain(self, details: Sequence[ErrorDetails]) -> str:
        error = ValidationError.from_exception_data(self.name, [_without_secrets(detail) for detail in details])
        message = describe(error, self.name, _KNOWN)
        return message if self._document is None else self._document.with_lines(message)


def _given(overrides: Mapping[str, Any] | None) -> Iterator[_Source]:
    if overrides:
        yield _Source("an override", overrides)


def _environment(env: Mapping[str, str]) -> Iterator[_Source]:
    """Yields a source for each variable, so that errors name it; the more specific go first."""
    names = [name for name, text in env.items() if name.startswith(PREFIX) and text.strip()]
    for name in sorted(names, key=lambda name: (-name.count("__"), name)):
        # What is below env_vars names environment variables of its own, where case matters.
        path, _, own = name.removeprefix(PREFIX).partition("__ENV_VARS__")
        keys = [*path.lower().split("__"), *(["env_vars", own] if own else [])]
        data = parse_value(env[name])
        for key in reversed(keys):
            data = {key: data}
        yield _Source(f"environment variable {name}", data)


def _file(path: str | Path | None, env: Mapping[str, str]) -> Iterator[_Source]:
    chosen = path or env.get(FILE_VARIABLE)
    if chosen or Path(DEFAULT_FILE).exists():
        document = read(chosen or DEFAULT_FILE, ConfigurationError)
        yield _Source(document.name, document.data, document)


def _dev() -> Iterator[_Source]:
    try:
        running = json.loads(DEV_FILE.read_text())
        os.kill(running["pid"], 0)
        yield _Source(str(DEV_FILE), {"redis": {"url": running["url"]}})
    except (OSError, ValueError, TypeError, KeyError):
        return  # None was started here, or it has ended.


def _build(sources: list[_Source]) -> Settings:
    class Merged(BaseSettings, extra="allow"):
        @classmethod
        def settings_customise_sources(cls, *_: Any, **__: Any) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(sources)

    try:
        return Settings.model_validate(Merged().model_extra)
    except ValidationError as error:
        # Not chained: pydantic's own message repeats what was given, secrets too.
        raise ConfigurationError(_explain(error, sources)) from None


def _explain(error: ValidationError, sources: list[_Source]) -> str:
    details: dict[_Source, list[ErrorDetails]] = {}
    for detail in error.errors():
        # What is missing is in no source; then it is the one that has what it is missing from.
        paths = (detail["loc"][:end] for end in range(len(detail["loc"]), -1, -1))
        source = next(source for path in paths for source in sources if source.has(path))
        details.setdefault(source, []).append(detail)
    return "\n".join(source.explain(found) for source, found in details.items())


def _without_secrets(detail: ErrorDetails) -> InitErrorDetails:
    location = tuple(detail["loc"])
    secret = any(location[: len(path)] == path[: len(location)] for path in _SECRETS)
    safe = MASK if secret else masked(detail["input"])
    return InitErrorDetails(type=detail["type"], loc=location, input=safe, ctx=detail.get("ctx", {}))


def _known(model: type[BaseModel], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], list[str]]:
    """Returns the keys that each mapping of the settings takes, to suggest the one that was meant."""
    keys = {path: list(model.model_fields)}
    for name, field in model.model_fields.items():
        # `Section | None` is two.
        for one in (field.annotation, *get_args(field.annotation)):
            if isinstance(one, type) and issubclass(one, BaseModel):
                keys |= _known(one, (*path, name))
    return keys


_KNOWN = _known(Settings)


def _resolved(settings: Settings) -> Settings:
    """Makes a path of local storage absolute: a stage's process may work elsewhere."""
    storage = settings.storage
    if storage.protocol not in ("file", "local"):
        return settings
    base = str(Path(storage.base_path).expanduser().absolute())
    return settings.model_copy(update={"storage": storage.model_copy(update={"base_path": base})})
