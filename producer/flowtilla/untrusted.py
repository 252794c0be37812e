"""Reads what Redis keeps of a run, which somebody else may have written: whatever is wrong, one error says so."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Annotated, Any

from pydantic import Field

from flowtilla.errors import FlowtillaError, RunDamaged

#: What reading damaged data raises, here and there.
FAULTS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

#: Seconds since the epoch, of a time that can be shown.
Moment = Annotated[float, Field(ge=0, lt=2.5e11)]

_SURROGATE = re.compile(r"\\u[dD]")


def from_json(text: str | bytes) -> Any:
    """Returns the data in a piece of JSON; half a surrogate pair, which nobody could print, becomes a question mark.

    Raises:
        ValueError: it is none, or has a number that is not finite.
    """
    given = text if isinstance(text, str) else text.decode()
    try:
        found = json.loads(given, parse_float=_finite, parse_constant=_finite)
        if _SURROGATE.search(given):
            found = json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


@contextmanager
def readable(run_id: str) -> Iterator[None]:
    """Makes one error of whatever reading damaged data raises inside.

    Raises:
        RunDamaged: what Redis keeps of the run cannot be read.
    """
    try:
        yield
    except FlowtillaError:
        raise
    except FAULTS as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunDamaged(
            f"run {run_id} cannot be read, for what Redis keeps of it is damaged ({why:.300}): submit it again",
            run_id=run_id,
        ) from error
