"""Runs a command for as long as its own standard input is held open.

Whoever starts a server through this holds the other end of that pipe, and the kernel closes it however the holder ends,
`kill -9` included. So no server is ever left behind, on Linux and macOS alike.

Started by its path and with the standard library only, that it is up in a moment:

    python -I -S guard.py GRACE COMMAND...
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Runs the command until the input ends or a signal comes; SIGTERM ends it, and after GRACE seconds SIGKILL."""
    grace, *command = sys.argv[1:]
    # The child inherits the descriptors this process was given: a lock among them is held for as long as it lives.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)

    def end(*_: object) -> None:
        threading.Thread(target=_end, args=(child, float(grace)), daemon=True).start()

    def end_with_input() -> None:
        while os.read(0, 1024):
            pass
        end()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    threading.Thread(target=end_with_input, daemon=True).start()
    return child.wait()


def _end(child: "subprocess.Popen[bytes]", grace: float) -> None:
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main())
