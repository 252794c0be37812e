"""The Lua scripts of the worker: each is one atomic step in Redis."""

from flowtilla.scripts import load

CLAIM = load(__name__, "claim")
COMMIT = load(__name__, "commit")
RELEASE = load(__name__, "release")
RENEW = load(__name__, "renew")
REAP = load(__name__, "reap")
PROMOTE = load(__name__, "promote")
LINES = load(__name__, "lines")
BURY = load(__name__, "bury")
TURN = load(__name__, "turn")
TIDY = load(__name__, "tidy")
ADOPT = load(__name__, "adopt")

ALL = (CLAIM, COMMIT, RELEASE, RENEW, REAP, PROMOTE, LINES, TURN, TIDY, ADOPT)
