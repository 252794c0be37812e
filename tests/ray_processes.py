"""What the Ray executor's processes are, as an operator sees them."""

import os
import subprocess


def members(session: int, name: str = "") -> list[int]:
    """Returns the pids of a session's living processes whose command has a name in it.

    Args:
        session: the pid of the process that opened it: a driver process, or a node's `ray start`.
        name: such as `raylet/raylet`.
    """
    return [pid for pid, _, opened, command in _listed() if opened == session and name in command]


def drivers() -> list[int]:
    """Returns the pids of this process's driver processes, of each of which the local cluster is the session."""
    spawned = [pid for pid, parent, _, command in _listed() if parent == os.getpid() and "spawn_main" in command]
    return [pid for pid in spawned if os.getsid(pid) == pid]


def _listed() -> list[tuple[int, int, int, str]]:
    """Returns pid, parent, session and command of every living process."""
    lines = subprocess.check_output(["ps", "-A", "-ww", "-o", "pid=,ppid=,sess=,stat=,args="], text=True).splitlines()
    rows = [line.split(None, 4) for line in lines]
    return [(int(row[0]), int(row[1]), int(row[2]), row[4]) for row in rows if "Z" not in row[3]]
