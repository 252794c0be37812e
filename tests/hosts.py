"""Hosts made of Linux namespaces: each with a network card, a name, processes and shared memory of its own.

Their switch is a namespace too, so nothing here touches the machine's own network or meets another test's hosts.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

_NAMESPACES = ("--net", "--uts", "--ipc", "--mount", "--pid")

#: Makes a host of the namespaces it runs in: its name, its shared memory (and in that its home and temporary files),
#: the names of the others. Then it is their first process, which ends when its starter does, and all others with it.
_BOOT = """
hostname "$1" && mount -t tmpfs tmpfs /dev/shm &&
printf "$2" >/dev/shm/hosts && mount --bind /dev/shm/hosts /etc/hosts &&
exec "$3" -ISc 'import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the orphans that it adopts leave no zombies
print("up", flush=True)
sys.stdin.read()'
"""

#: What of all that a machine may refuse.
_PROBE = """
hostname probe && mount -t tmpfs tmpfs /dev/shm &&
ip link add bridge type bridge && ip link add port1 type veth peer name port2
"""


class Host:
    """One host; made by `hosts`.

    Args:
        name: its hostname.
        number: the last part of its address, and of its card's.
        names: lines of its /etc/hosts.
    """

    def __init__(self, name: str, number: int, names: str = "") -> None:
        self.name = name
        self.number = number
        self.address = f"10.77.0.{number}"
        self._names = names
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        boot = ["sh", "-c", _BOOT, "boot", self.name, f"127.0.0.1 localhost\\n{self._names}", sys.executable]
        command = ["unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc", *boot]
        self._machine = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._machine.stdout is not None
        assert self._machine.stdout.readline() == b"up\n", f"host {self.name} did not start"
        children = Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children")
        self.pid = int(children.read_text())
        self.ip("link set lo up")
        return self

    def __exit__(self, *error: object) -> None:
        # With the first process of its namespaces the kernel ends all others.
        self._machine.kill()
        for process in (self._machine, *self._started):
            process.communicate()

    def plug(self, switch: "Host", others: Sequence["Host"]) -> None:
        """Connects its card to a switch."""
        self._switch = switch
        switch.ip(
            f"link add port{self.number} type veth peer name eth0 address {self._card} netns {self.pid}",
            f"link set port{self.number} up",
        )
        self.heal()
        self.ip(
            f"address add {self.address}/24 dev eth0",
            "link set eth0 up",
            # Known for good: asking for a card that does not answer would tell, after 3 s, that its host is away.
            *(f"neigh add {other.address} lladdr {other._card} dev eth0 nud permanent" for other in others),
        )

    def cut(self) -> None:
        """Cuts it off: what is sent to it or by it is lost without a word, and its card notices nothing."""
        self._switch.ip(f"link set port{self.number} nomaster")

    def heal(self) -> None:
        """Connects it, again."""
        self._switch.ip(f"link set port{self.number} master bridge")

    def popen(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Starts a process on the host, with `env` beside this process's own; options are those of `Popen`.

        It ends with the host.
        """
        # Relative names would otherwise be those of its root folder.
        there = ["sh", "-c", 'cd "$0" && exec "$@"', options.pop("cwd", Path.cwd()), *command]
        own = os.environ | {"HOME": "/dev/shm", "TMPDIR": "/dev/shm"} | dict(env or {})
        started = subprocess.Popen(["nsenter", "--target", str(self.pid), *_NAMESPACES, *there], env=own, **options)
        self._started.append(started)
        return started

    def run(self, *command: str, env: Mapping[str, str] | None = None, timeout: float = 60) -> str:
        """Runs a command on the host to its end and returns what it wrote.

        Raises:
            AssertionError: it failed.
        """
        process = self.popen(command, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = process.communicate(timeout=timeout)[0].decode(errors="replace")
        assert process.returncode == 0, f"{' '.join(command)} on {self.name}: {said}"
        return said

    def kill_all(self) -> None:
        """Ends all that runs on it, at once, as a power cut does."""
        self.run("sh", "-c", "kill -9 -1")

    def ip(self, *commands: str) -> None:
        """Runs commands of `ip` in its network."""
        subprocess.run(
            ["nsenter", "--target", str(self.pid), "--net", "ip", "-batch", "-"],
            input="\n".join(commands).encode(),
            check=True,
        )

    @property
    def _card(self) -> str:
        return f"02:00:00:00:00:{self.number:02x}"


@contextmanager
def hosts(*names: str) -> Iterator[dict[str, Host]]:
    """Gives connected hosts by name, which know each other's names, until the block ends or this process does."""
    addresses = "".join(f"10.77.0.{number} {name}\\n" for number, name in enumerate(names, 1))
    with ExitStack() as stack:
        switch = stack.enter_context(Host("switch", 0))
        switch.ip("link add bridge type bridge", "link set bridge up")
        made = [stack.enter_context(Host(name, number, addresses)) for number, name in enumerate(names, 1)]
        for host in made:
            host.plug(switch, [other for other in made if other is not host])
        yield {host.name: host for host in made}


def why_not() -> str | None:
    """Returns why this machine cannot have hosts, or None if it can."""
    if not sys.platform.startswith("linux"):
        return "hosts are made of Linux namespaces"
    if os.geteuid() != 0:
        return "making network namespaces and bridges takes root"
    if missing := [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]:
        return f"{', '.join(missing)} not installed (packages iproute2 and util-linux)"
    probe = ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "sh", "-c", _PROBE]
    tried = subprocess.run(probe, capture_output=True, text=True)
    return None if tried.returncode == 0 else f"namespaces are not allowed here: {tried.stderr.strip()}"
