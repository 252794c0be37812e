"""Names: one rule for stages, workflows, namespaces, queues, artifacts and runs."""

import re
from typing import Annotated

from pydantic import AfterValidator

from flowtilla.errors import InvalidName

#: Long enough for people, short enough for every file system once a suffix is added.
MAX_LENGTH = 128

#: What parts a run's id in two. RQ allows no character in a job's id that a name could not have.
_BETWEEN = "--"

# \Z, not $, which would let a trailing newline through; ASCII, so that look-alike letters stay out.
_NAME = re.compile(r"[A-Za-z0-9_-]+\Z", re.ASCII)


def check_name(name: str, what: str = "name") -> str:
    """Returns the name if it obeys the rule.

    Args:
        name: what to check.
        what: the kind of thing it names, for the message.

    Raises:
        InvalidName: it is empty, too long, or has a character outside A-Z a-z 0-9 _ -.
    """
    if not isinstance(name, str) or not _NAME.match(name) or len(name) > MAX_LENGTH:
        shown = repr(name if len(str(name)) <= MAX_LENGTH else f"{str(name)[:40]}…")
        raise InvalidName(f"{what} {shown} is not allowed: use 1 to {MAX_LENGTH} of the characters A-Z a-z 0-9 _ -")
    return name


def check_namespace(name: str) -> str:
    """Returns the name of a namespace if it obeys the rule, and can stand in front of the ids of its runs.

    Raises:
        InvalidName: it does not, or cannot.
    """
    if _BETWEEN in check_name(name, "namespace") or name.endswith("-"):
        raise InvalidName(
            f"namespace {name!r} is not allowed: {_BETWEEN} parts it from the rest of a run's id, so it may neither "
            "have that nor end with -"
        )
    return name


def run_id_in(namespace: str, own: str) -> str:
    """Returns the id of a run in a namespace, whose name stands in front: Redis guards runs by their keys.

    Args:
        namespace: its namespace.
        own: the rest of it, or the whole id.

    Raises:
        InvalidName: it breaks the rule, or both together are too long.
    """
    own = check_name(own, "run id").removeprefix(f"{namespace}{_BETWEEN}")
    return check_name(f"{namespace}{_BETWEEN}{own}", "run id")


def whole_run_id(run_id: str, namespace: str) -> str:
    """Returns a run's id as it is if it names a namespace, else that of the run in the one given."""
    return run_id if _BETWEEN in run_id else run_id_in(namespace, run_id)


def namespace_of(run_id: str) -> str:
    """Returns the namespace that a run's id names; empty when it names none, and so is no run of ours."""
    namespace, between, _ = run_id.partition(_BETWEEN)
    return namespace if between else ""


#: A string that obeys the rule, for pydantic models.
Name = Annotated[str, AfterValidator(check_name)]
#: The same of namespaces.
Namespace = Annotated[str, AfterValidator(check_namespace)]
