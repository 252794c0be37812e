"""Lua scripts: each is one atomic step in Redis."""

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """A Lua script.

    Args:
        text: the source.
        sha: the name `EVALSHA` knows it by.
    """

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


def load(package: str, name: str) -> Script:
    """Returns the script in the file `name`.lua of a package."""
    return Script(files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8"))


SUBMIT = load(__name__, "submit")
CANCEL = load(__name__, "cancel")
RETRY = load(__name__, "retry")
