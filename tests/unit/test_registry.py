"""Executors by name."""

import sys
from types import SimpleNamespace

import pytest

from flowtilla.errors import ConfigurationError
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Executor
from flowtilla_executors.local import LocalExecutor
from flowtilla_executors.registry import ALIASES, EXECUTORS, Entry, create


class Mine(Executor):
    """An executor of a user's own."""

    kind = "mine"

    def __init__(self, size: int = 1, **more):
        self.size, self.more = size, more

    outcome = fetch = cancel = info = _start = _close = _submit = None


class Plain(Executor):
    """One without a constructor of its own."""

    kind = "plain"
    outcome = fetch = cancel = info = _start = _close = _submit = None


def made(**settings):
    return create(ExecutorSettings(**settings))


@pytest.mark.parametrize(
    "target",
    ["local", "flowtilla_executors.local.LocalExecutor", "flowdapt.compute.executor.local.LocalExecutor"],
)
def test_names_of_the_local_executor(target):
    """The short one, ours, and Flowdapt's mean the same."""
    assert type(made(target=target)) is LocalExecutor


def test_the_default_is_the_first_that_is_installed(monkeypatch):
    """Ray; Local where there is no Ray."""
    assert made().kind == "ray"
    table = dict(EXECUTORS) | {"ray": Entry("flowtilla_executors.ray:RayExecutor", "no_such_library")}
    monkeypatch.setattr("flowtilla_executors.registry.EXECUTORS", table)
    assert made().kind == "local"


def test_every_row_leads_to_a_class():
    """What the table promises is there, and aliases point into it."""
    assert all(type(made(target=name)).kind == name for name in EXECUTORS)
    assert set(ALIASES.values()) <= set(EXECUTORS)


def test_a_class_of_the_users_own(monkeypatch):
    """A dotted path works; its options arrive as annotated, others as they are."""
    monkeypatch.setitem(sys.modules, "my_executors", SimpleNamespace(Mine=Mine))
    executor = made(target="my_executors.Mine", size="3", colour="red")

    assert (executor.size, executor.more) == (3, {"colour": "red"})


def test_a_class_without_options(monkeypatch):
    """It takes none, and says so."""
    monkeypatch.setitem(sys.modules, "my_executors", SimpleNamespace(Plain=Plain))

    assert made(target="my_executors.Plain").kind == "plain"
    with pytest.raises(ConfigurationError, match="size: unknown key"):
        made(target="my_executors.Plain", size=3)


def test_options_are_read_as_annotated():
    """An environment variable is text, and a number in `env_vars` may stay one."""
    executor = made(target="local", cpus="4", env_vars={"OMP_NUM_THREADS": 1}, resources={"wheels": "6"})

    assert executor.info().cpus == 4
    assert executor.info().resources == {"wheels": 6}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "lokal"}, "there is no executor 'lokal'; did you mean 'local'"),
        ({"target": "slurm"}, "there is no executor 'slurm'; known here: dask, local, ray"),
        ({"target": "nowhere.Executor"}, "the executor 'nowhere.Executor' cannot be imported: No module named"),
        ({"target": "flowtilla_executors.local.Nothing"}, "cannot be imported"),
        ({"target": "collections.OrderedDict"}, "is not a subclass of flowtilla_executors.Executor"),
        ({"target": "local", "cpu": 4}, "the executor 'local' is not valid:\n  cpu: unknown key; did you mean 'cpus'"),
        ({"target": "local", "gpus": 4}, "gpus: unknown key"),
        ({"target": "local", "log_to_driver": True}, "known here: cpus, env_vars, mode, resources"),
        ({"target": "local", "mode": "thread"}, "mode: .*'processes' or 'threads'"),
        ({"target": "local", "cpus": "many"}, "cpus: .*valid number"),
        ({"target": "local", "cpus": 0}, "cannot have cpus=0: give positive numbers"),
    ],
)
def test_what_is_wrong_is_said(settings, message):
    """The executor, the option, and what is known."""
    with pytest.raises(ConfigurationError, match=message):
        made(**settings)
