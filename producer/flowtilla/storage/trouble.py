"""Turns what file systems raise into one error that says what to check, and gives no secret away."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flowtilla.errors import FlowtillaError, StorageError
from flowtilla.settings import StorageSettings

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# Parameters whose values help to find the fault.
_PUBLIC = {"endpoint_url", "region_name", "signature_version", "addressing_style"}


@contextmanager
def told(settings: StorageSettings, action: str, path: str) -> Iterator[None]:
    """Raises what goes wrong inside as `StorageError`.

    Args:
        settings: whose protocol is named, and whose secrets are left out.
        action: what was tried, as in "could not write".
        path: on what.
    """
    try:
        yield
    except FlowtillaError:
        raise
    except Exception as error:
        said = str(error) or "no reason given"
        shown = _without_secrets(said, settings.parameters)
        message = (
            f"could not {action} {path} (protocol {settings.protocol}): {type(error).__name__}: {shown}; "
            f"{_what_to_check(error, settings)}"
        )
        # The original's text would stand in every traceback.
        raise StorageError(message) from (error if shown == said else None)


def _what_to_check(error: Exception, settings: StorageSettings) -> str:
    kind = type(error).__name__
    if isinstance(error, ImportError):
        return (
            'pip install "flowtilla[s3]"' if settings.protocol in ("s3", "s3a") else "install the package that it names"
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        return "free some space, or raise the limit, and try again"
    if settings.protocol in ("file", "local"):
        return "check that storage.base_path exists or can be made, and who may write there"
    if isinstance(error, PermissionError) or "Credential" in kind or "Token" in kind:
        return "check the credentials in storage.parameters and what they allow"
    if isinstance(error, (ConnectionError, TimeoutError)) or "Connect" in kind or "Timeout" in kind:
        return "check that the endpoint in storage.parameters is right and can be reached from here"
    if isinstance(error, FileNotFoundError):
        return "check that the bucket of storage.base_path exists"
    return "check storage.protocol, storage.base_path and storage.parameters"


def _without_secrets(text: str, parameters: dict[str, Any]) -> str:
    # The longest first: one value may hold another.
    for secret in sorted(set(_secrets(parameters)), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            if key not in _PUBLIC:
                yield from _secrets(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _secrets(one)
