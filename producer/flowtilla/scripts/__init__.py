"""Lua scripts: each is one atomic step in Redis."""

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files

from flowtilla import keys


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


def load(package: str, name: str, *, before: str = "") -> Script:
    """Returns the script in the file `name`.lua of a package, with functions before it that it calls."""
    return Script(before + files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8"))


def _functions(*names: str) -> str:
    """Returns functions that scripts share, behind the names of the keys that they use."""
    known = {
        "job": keys.job(""),
        "queues": keys.QUEUES,
        "queue": keys.queue(""),
        "turns": keys.turns(""),
        "arrived": keys.arrived(""),
        "wake": keys.wake(""),
        "held": keys.held(""),
        "limit": keys.limit(""),
        "limited": keys.LIMITED,
    }
    table = ", ".join(f"{name} = '{key}'" for name, key in known.items())
    return f"local KEY = {{{table}}}\n" + "".join(load(__name__, name).text for name in names)


#: Putting runs where they wait; and that with what limits how many of them are in workers' hands.
WAITING = _functions("waiting")
LIMITS = _functions("waiting", "limits")

SUBMIT = load(__name__, "submit", before=WAITING)
CANCEL = load(__name__, "cancel", before=LIMITS)
RETRY = load(__name__, "retry", before=WAITING)
