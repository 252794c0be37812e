"""The GPUs of this machine, and what to say when a configuration asks for more."""

import logging
import os
from pathlib import Path

from flowtilla.errors import ConfigurationError

_log = logging.getLogger(__name__)


def devices() -> list[str]:
    """Returns the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    return sorted((path.name[len("nvidia") :] for path in Path("/dev").glob("nvidia[0-9]*")), key=int)


def granted(asked: int, required: bool) -> list[str]:
    """Returns the GPUs to use.

    Args:
        asked: how many the configuration asks for.
        required: whether fewer are an error, or only worth a warning.

    Raises:
        ConfigurationError: the machine has fewer, and they are required.
    """
    found = devices()
    if len(found) < asked:
        said = f"the executor is configured with `gpus: {asked}`, and this machine has {len(found) or 'none'}"
        if required:
            raise ConfigurationError(f"{said}: lower it, or set `require_gpus: false` to go on with what there is")
        _log.warning("%s: going on with that", said)
    return found[:asked]
