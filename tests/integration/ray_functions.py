"""Stages that look at the Ray cluster they run on."""

import contextvars
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import flowtilla


def tables():
    """Returns how many functions, actors, and events of tasks the control store knows."""
    import ray
    from ray.experimental.internal_kv import _internal_kv_list

    return len(_internal_kv_list(b"", namespace=b"fun")), len(ray._private.state.actors()), len(ray.timeline())


def gpus():
    """Returns the devices that this process may use."""
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]


def process_and_gpus():
    """Returns the pid, and the devices that this process may use."""
    return os.getpid(), gpus()


def store():
    """Returns how many bytes the cluster's store of objects has."""
    import ray

    return ray.cluster_resources()["object_store_memory"]


def leave_subprocess(file):
    """Starts a process and does not wait for it; returns its pid and this one's."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(file).write_text(str(child.pid))
    return child.pid, os.getpid()


def tidy_up(file, seconds):
    """Waits until it is to stop, takes so long to tidy up, and tells that it has."""
    print("waits")
    while not flowtilla.context().cancelled:
        time.sleep(0.01)
    time.sleep(seconds)
    Path(file).touch()


def clean_up_heard_of_late(file):
    """Waits for its clean-up, which tells; what it prints overtakes the word that it hears, as Ray may have it."""
    from flowtilla_executors.ray import lines

    mailbox, stage, told = lines._mailbox, threading.current_thread(), threading.Event()

    def late(name):
        if threading.current_thread() is stage:
            time.sleep(0.3)
        return mailbox(name)

    lines._mailbox = late
    speaker = threading.Thread(target=contextvars.copy_context().run, args=(print, "overtakes"))
    threading.Timer(0.1, speaker.start).start()
    flowtilla.context().on_cancel(told.set)
    if told.wait(30):
        Path(file).touch()


def evict(size, count):
    """Fills the store of objects, so that older ones go."""
    import numpy as np

    return [np.ones(size) for _ in range(count)]


def eat(pieces):
    """Takes memory, a piece of 256 MiB at a time, which it really uses."""
    eaten = []
    for _ in range(pieces):
        eaten.append(b"x" * 256 * 1024**2)
        time.sleep(0.02)
    return len(eaten)
