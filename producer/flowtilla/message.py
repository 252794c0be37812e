"""What crosses Redis: one versioned model, as the arguments of one fixed RQ function."""

import json
import zlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowtilla.cache import Cache
from flowtilla.errors import MessageError, MessageTooLarge, UnsupportedVersion
from flowtilla.names import Name
from flowtilla.problems import describe
from flowtilla.units import LONGEST
from flowtilla.workflow import Workflow

#: Raised when a change makes older workers misread a message.
VERSION = 1

#: The only function a job of ours names. Our workers never call it; see `flowtilla.job`.
FUNCTION = "flowtilla.job.run"

#: Below this many bytes compressing costs more than it saves.
_COMPRESS_OVER = 1024


class Message(BaseModel):
    """One run as it travels.

    Args:
        version: the message's format.
        workflow: the DAG.
        input: what root stages get, by parameter name.
        namespace: where artifacts and objects live.
        config: what stages read in `context().config`.
        timeout: seconds that the run may take from when it first began, all its attempts included, or None.
        retention: seconds the run is kept after its end.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = VERSION
    workflow: Workflow
    input: dict[str, Any] = Field(default_factory=dict)
    namespace: Name
    config: dict[str, Any] = Field(default_factory=dict)
    timeout: float | None = Field(default=None, gt=0, le=LONGEST)
    retention: float = Field(gt=0, le=LONGEST)


def encode(fields: dict[str, Any], workflow_json: str, limit: int) -> bytes:
    """Returns the data of the RQ job.

    Args:
        fields: the message's fields but for version and workflow; plain data.
        workflow_json: the workflow, already JSON: many runs share it.
        limit: the most bytes a message may have.

    Raises:
        MessageTooLarge: it has more.
        MessageError: something in it is not plain data.
    """
    try:
        rest = json.dumps(fields, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise MessageError(
            f"input and config travel as JSON: {error}; "
            "pass plain dicts, lists, strings, numbers, or store the value as an artifact and pass its name"
        ) from error
    body = f'["{FUNCTION}",null,[],{{"version":{VERSION},"workflow":{workflow_json},{rest[1:]}]'.encode()
    if len(body) > limit:
        raise MessageTooLarge(
            f"the run's message has {len(body):,} bytes and the limit is {limit:,} (max_message): "
            "store large input with flowtilla.artifacts.put and pass the artifact's name instead"
        )
    return zlib.compress(body) if len(body) > _COMPRESS_OVER else body


def decode(data: bytes, limit: int) -> Message:
    """Returns the message in an RQ job's data.

    Args:
        data: the job's `data`, as Redis holds it.
        limit: the most bytes a message may have once unpacked.

    Raises:
        MessageTooLarge: it has more.
        UnsupportedVersion: a newer flowtilla wrote it.
        MessageError: it is not ours, or damaged.
    """
    return parse(unpack(data, limit))


def parse(body: bytes) -> Message:
    """Returns the message whose body `unpack` returned; raises as `decode` does."""
    try:
        parts = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise MessageError(f"the job's data is not JSON, so no flowtilla client wrote it ({error})") from error
    if not isinstance(parts, list) or len(parts) != 4:
        raise MessageError("the job's data is JSON but not an RQ call, so no flowtilla client wrote it")
    function, instance, args, fields = parts
    if function != FUNCTION:
        raise MessageError(
            f"the job calls {function!r}; flowtilla's workers run only {FUNCTION!r}: "
            "give plain RQ jobs a queue and workers of their own"
        )
    if instance is not None or args != [] or not isinstance(fields, dict):
        raise MessageError(f"the arguments of {FUNCTION!r} are not those that a flowtilla client writes")
    version = fields.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UnsupportedVersion(
            f"the message has version {version} and this worker reads up to {VERSION}: "
            "upgrade the workers, then requeue the run"
        )
    what = "the workflow in the run's message"
    try:
        workflow = _workflow(json.dumps(fields.get("workflow")))
        what = "the run's message"
        return Message.model_validate(fields | {"workflow": workflow})
    except ValidationError as error:
        raise MessageError(describe(error, what)) from error


#: Returns the workflow in a piece of JSON; one object for equal texts, since many runs share a workflow.
_workflow = Cache(Workflow.model_validate_json)


def unpack(data: bytes, limit: int) -> bytes:
    """Returns the body of a message, not compressed and not yet read: what a signature covers.

    Args:
        data: the job's `data`, as Redis holds it.
        limit: the most bytes that it may have.

    Raises:
        MessageTooLarge: it has more.
        MessageError: it is not ours, or damaged.
    """
    if data[:1] == b"[":
        body, rest = data, b""
    else:
        inflate = zlib.decompressobj()
        try:
            # One byte over the limit is enough to know, and a bomb stays folded.
            body = inflate.decompress(data, limit + 1)
        except zlib.error as error:
            raise MessageError(
                "the job's data is neither JSON nor compressed JSON, so no flowtilla client wrote it"
            ) from error
        rest = inflate.unconsumed_tail
    if len(body) > limit or rest:
        raise MessageTooLarge(f"the run's message is over the limit of {limit:,} bytes (max_message)")
    return body
