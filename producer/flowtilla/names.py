"""Names: one rule for stages, workflows, namespaces, queues, artifacts and runs."""

import re
from typing import Annotated

from pydantic import AfterValidator

from flowtilla.errors import InvalidName

#: Long enough for people, short enough for every file system once a suffix is added.
MAX_LENGTH = 128

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


#: A string that obeys the rule, for pydantic models.
Name = Annotated[str, AfterValidator(check_name)]
