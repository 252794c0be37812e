"""A worker whose interpreter tells what it does: what it imports, opens, executes, unpickles, starts and connects to.

    python watched_worker.py REPORT ARGUMENTS...

From the first SIGUSR1 on, each event is a line of JSON in the file REPORT. The arguments are `flowtilla worker`'s.
"""

import json
import os
import signal
import sys

#: What is told; the rest of Python's audit events are of reading objects and the like.
WATCHED = ("import", "open", "exec", "compile", "pickle.", "os.", "subprocess.", "shutil.", "tempfile.")
WATCHED += ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.", "http.", "ctypes.", "pty.", "webbrowser.")

armed = False


def watch(report: int) -> None:
    """Begins to tell, once it is armed."""

    def hook(event: str, args: tuple[object, ...]) -> None:
        if armed and event.startswith(WATCHED):
            shown = [arg.co_filename if hasattr(arg, "co_filename") else str(arg)[:300] for arg in args]
            os.write(report, json.dumps([event, *shown]).encode() + b"\n")

    def arm(*_: object) -> None:
        global armed
        armed = True
        os.write(report, b'["armed"]\n')

    signal.signal(signal.SIGUSR1, arm)
    sys.addaudithook(hook)


def main() -> None:
    """Runs the worker."""
    from flowtilla.cli import main as command
    from flowtilla_worker import housekeeping

    # So that every part of housekeeping meets what is in Redis, many times within the test.
    housekeeping._LOOK, housekeeping._SWEEP = 0.1, 1.0
    watch(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    sys.argv = ["flowtilla", "worker", *sys.argv[2:]]
    command()


if __name__ == "__main__":
    main()
