"""Stages that tell on which host they run. They meet the test through files in a folder that all hosts see."""

import socket
import time
from pathlib import Path

import flowtilla


@flowtilla.stage
def where(seconds: float) -> str:
    """Takes its time, and returns its host."""
    time.sleep(seconds)
    return socket.gethostname()


@flowtilla.stage
def wait(item: int = 0) -> str:
    """Says that it has begun, waits until the test opens the gate, and returns its host."""
    host, context = socket.gethostname(), flowtilla.context()
    folder = Path(context.input["folder"])
    print(f"item {item} waits on {host}")
    (folder / f"begun-{context.attempt}-{item}-{host}").touch()
    deadline = time.monotonic() + 90
    while not (folder / "open").exists():
        assert time.monotonic() < deadline, "nobody opened the gate"
        time.sleep(0.05)
    return host
