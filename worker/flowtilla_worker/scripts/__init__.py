"""The Lua scripts of the worker: each is one atomic step in Redis."""

from flowtilla.scripts import LIMITS, WAITING, load

CLAIM = load(__name__, "claim", before=LIMITS + load(__name__, "turns").text)
COMMIT = load(__name__, "commit", before=LIMITS)
RELEASE = load(__name__, "release", before=WAITING)
RENEW = load(__name__, "renew")
REAP = load(__name__, "reap", before=WAITING)
PROMOTE = load(__name__, "promote", before=WAITING)
LINES = load(__name__, "lines")
BURY = load(__name__, "bury")
SWEEP_DUE = load(__name__, "sweep_due")
TIDY = load(__name__, "tidy")
ADOPT = load(__name__, "adopt", before=LIMITS)
LINE_UP = load(__name__, "line_up", before=WAITING)
LET_IN = load(__name__, "let_in", before=LIMITS)

ALL = (CLAIM, COMMIT, RELEASE, RENEW, REAP, PROMOTE, LINES, SWEEP_DUE, TIDY, ADOPT, LINE_UP, LET_IN)
