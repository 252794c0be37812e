"""Joining a Ray cluster that is there: it works, or one sentence says why not and what to do."""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

import ray_functions as r
from ray._private.utils import check_version_info
from ray_processes import members

import executor_functions as f
from executor_bench import Bench, call, over
from fleet import until
from flowtilla.errors import ClusterLost, ClusterMismatch, ClusterUnreachable, ExecutorError
from flowtilla.settings import ExecutorSettings
from flowtilla_executors import Parent
from flowtilla_executors.ray import options, probe
from flowtilla_executors.ray.cluster import _named
from flowtilla_executors.registry import create
from ray_cluster import RayCluster, started


def bench(**settings: Any) -> Bench:
    """Returns a Ray executor, not started."""
    return Bench(create(ExecutorSettings.model_validate({"target": "ray", **settings})))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster that asks for a token, as `ray start` makes them."""
    with started(tmp_path_factory.mktemp("guarded"), cpus=2, resources={"wheels": 1}) as guarded:
        yield guarded


def refusal(kind: type[Exception], modules: tuple[str, ...] = (), **settings: Any) -> str:
    """Returns what an executor says that cannot start."""
    with pytest.raises(kind) as refused:
        one = bench(**settings)
        one.run(one.executor.start(one.lines.extend, modules))
    return str(refused.value)


def test_it_joins_with_a_token(cluster: RayCluster) -> None:
    """And gives the stages its environment variables; two executors share the cluster."""
    first, second = bench(**cluster.settings), bench(env_vars={"SIX": 6}, **cluster.settings)
    first.start()
    second.start()

    assert first.executor.info().resources == {"wheels": 1.0}
    assert second.value(call(f.environment, "SIX")) == "6"
    assert first.value(call(f.environment, "SIX")) is None

    first.finished(call(f.put_object, "shared", [1]))
    first.close()
    assert second.value(call(f.get_object, "shared")) == [1]
    second.close()


def test_ray_client_works(cluster: RayCluster) -> None:
    """Values, what is submitted ahead, items, lines, objects, resources, timeouts and cancelling."""
    client = bench(py_modules=[str(Path(__file__).parent / "executor_functions.py")], **cluster.client())
    client.start()
    ahead = call(f.add, Parent(0), Parent(0), ahead=True)

    assert [client.outcome(handle).value for handle in client.submit_all((call(f.give, 2),), (ahead, 0))] == [2, 4]
    assert client.value(call(f.double, items=over([1, 2, 3]), resources={"wheels": 1})) == [2, 4, 6]
    assert [line.message for line in client.result(call(f.talk_of, "a")).logs or client.lines] == ["item a"]
    client.finished(call(f.put_object, "behind", [1]))
    assert client.value(call(f.get_object, "behind")) == [1]
    assert client.result(call(f.wait_for_ever, timeout=0.5)).failure.error == "flowtilla.errors.StageTimeout"
    running = client.submit(call(f.wait_for_ever))
    client.cancel(running)
    assert client.outcome(running).failure.error == "asyncio.CancelledError"
    client.close()


@pytest.mark.parametrize(
    ("server", "blow", "said"),
    [
        # Of one session, and of all.
        ("--mode=specific-server", signal.SIGKILL, "its Ray Client server ended the session"),
        ("--mode=proxy", signal.SIGSTOP, "its Ray Client server does not answer: DEADLINE_EXCEEDED"),
    ],
)
def test_a_ray_client_server_that_dies_or_hangs_is_a_lost_cluster(
    cluster: RayCluster, server: str, blow: signal.Signals, said: str
) -> None:
    """Whoever waits for a call hears it in time; on the next start there is another session."""
    client = bench(**cluster.client())
    client.start()
    running = client.submit(call(time.sleep, 100))
    pid = members(cluster.nodes[0].pid, server)[-1]

    struck = time.monotonic()
    os.kill(pid, blow)
    with pytest.raises(ClusterLost, match=said):
        client.outcome(running)
    assert time.monotonic() - struck < 10
    client.close()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    client.start()
    assert client.value(call(len, "two")) == 3
    client.close()


def test_a_ray_client_session_that_dies_as_it_begins_is_begun_again(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server had told the server in front that it lives, so this one does not say that it cannot begin."""
    monkeypatch.setattr(options, "_CONNECTING", 50.0)  # two births take long on a busy machine
    client = bench(**cluster.client())
    with ThreadPoolExecutor() as beside:
        dying = beside.submit(_kill_newborn, cluster.nodes[0].pid, lambda _: True)
        client.start()
        dying.result()
    assert client.value(call(len, "two")) == 3
    client.close()


def test_a_ray_client_session_that_dies_while_versions_are_compared_can_be_tried_again(
    cluster: RayCluster, tmp_path: Path
) -> None:
    """It is told as such, so that a worker does try again."""
    (module := tmp_path / "slow_to_import.py").write_text(
        f"open({str(tmp_path / 'begun')!r}, 'w'), __import__('time').sleep(60)"
    )
    with ThreadPoolExecutor() as beside:
        dying = beside.submit(_kill_newborn, cluster.nodes[0].pid, lambda _: (tmp_path / "begun").exists())
        said = refusal(ClusterUnreachable, ("slow_to_import",), py_modules=[str(module)], **cluster.client())
        dying.result()
    assert "cannot be used: " in said


def _kill_newborn(head: int, ripe: Callable[[psutil.Process], bool]) -> None:
    """Kills the next servers of a session that have come so far.

    There may be others: some die by themselves, and a server in front that was frozen makes some, once it goes on,
    for who had asked it and is gone.
    """
    others = set(members(head, "--mode=specific-server"))
    until(lambda: [pid for pid in set(members(head, "--mode=specific-server")) - others if _killed(pid, ripe)])


def _killed(pid: int, ripe: Callable[[psutil.Process], bool]) -> bool:
    """Kills a server if it has come so far, and returns whether it had."""
    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(pid)
        if _connected(server) and ripe(server):
            server.kill()
            return True
    return False


def _connected(server: psutil.Process) -> bool:
    """Returns whether the server in front is connected to that of a session."""
    port = " ".join(server.cmdline()).partition("--port=")[2].split()[:1]
    return any(
        link.status == psutil.CONN_ESTABLISHED and [str(link.laddr.port)] == port for link in server.net_connections()
    )


def test_what_cannot_be_shipped_is_told(cluster: RayCluster) -> None:
    """With Ray's reason on one line, and at once behind Ray Client too, whose server lets who leaves wait."""
    begun = time.monotonic()

    said = refusal(ExecutorError, working_dir="https://127.0.0.1:9/nothing.zip", **cluster.client())

    assert "cannot set up `pip`, `working_dir` or `py_modules`: " in said
    assert "Traceback" not in said
    assert time.monotonic() - begun < 20


def test_a_cluster_that_is_not_there_is_told(cluster: RayCluster) -> None:
    """At once, with the address and what to check."""
    begun = time.monotonic()

    said = refusal(ClusterUnreachable, cluster_address="127.0.0.1:9")

    assert "the Ray cluster at 127.0.0.1:9 does not answer" in said
    assert "check that it runs, the address and port" in said
    assert time.monotonic() - begun < 10


def test_a_missing_token_is_told(cluster: RayCluster, tmp_path: Path) -> None:
    """With where to get it."""
    said = refusal(ClusterUnreachable, **cluster.settings | {"auth_token_path": str(tmp_path / "nothing")})

    assert "asks for a token, and there is none here: copy ~/.ray/auth_token from its head node" in said


def test_a_wrong_token_is_told(cluster: RayCluster, tmp_path: Path) -> None:
    """As wrong, and not as a connection that failed."""
    wrong = tmp_path / "token"
    wrong.write_text(secrets.token_hex(32))

    assert "refuses the token" in refusal(ClusterUnreachable, **cluster.settings | {"auth_token_path": str(wrong)})


def test_another_version_of_ray_is_told(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Ray itself is loaded, which would not get through."""
    monkeypatch.setattr(probe, "version", lambda _: "1.2.3")
    asked = create(ExecutorSettings.model_validate({"target": "ray", **cluster.settings}))._options
    token, _ = probe.find_token(asked)

    with pytest.raises(ClusterMismatch, match=rf"has Ray {version('ray')}, and this worker has 1\.2\.3: install"):
        probe.ask(asked, cluster.address, token)


def test_another_version_behind_ray_client_is_told() -> None:
    """Ray itself finds it out, and we say what to do."""
    there = {"ray_version": "1.2.3", "ray_commit": "", "python_version": "3.8.1"}
    with pytest.raises(RuntimeError) as said:
        check_version_info(there, "Ray Client", raise_on_mismatch=True, python_version_match_level="minor")
    asked = create(ExecutorSettings.model_validate({"target": "ray", "cluster_address": "ray://head:10001"}))._options

    error = _named(asked, said.value)

    assert isinstance(error, ClusterMismatch)
    assert "the Ray cluster at ray://head:10001 is not like this worker: " in str(error)
    assert "1.2.3" in str(error)


def test_a_call_with_a_gpu_has_a_process_of_its_own(tmp_path: Path) -> None:
    """What it allocated on the device goes with it; other calls share a process."""
    with started(tmp_path, cpus=1, gpus=1) as cluster:
        joined = bench(**cluster.settings)
        joined.start()

        with_gpu = [joined.value(call(r.process_and_gpus, gpus=1)) for _ in range(3)]
        without = [joined.value(call(r.process_and_gpus)) for _ in range(3)]

        assert [gpus for _, gpus in with_gpu] == [["0"]] * 3
        assert len({pid for pid, _ in with_gpu}) == 3
        assert len({pid for pid, _ in without}) == 1
        joined.close()


def test_a_process_that_has_ray_itself_keeps_it(cluster: RayCluster) -> None:
    """A driver of Ray's may have an executor too, on the same cluster, and neither ends the other."""
    program = f"""if True:
        import json, ray
        from executor_bench import Bench, call
        from flowtilla.settings import ExecutorSettings
        from flowtilla_executors.registry import create

        ray.init({cluster.address!r}, log_to_driver=False)
        mine = ray.put("mine")
        bench = Bench(create(ExecutorSettings.model_validate({{"target": "ray", **{cluster.settings!r}}})))
        bench.start()
        assert bench.value(call(len, "two")) == 3
        assert ray.get(mine) == "mine"
        bench.close()
        assert ray.get(ray.remote(json.dumps).remote(4)) == "4"
        ray.shutdown()
    """
    environment = os.environ | cluster.environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # For its own driver, as `ray start` has it for the nodes.
    environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=100)


def test_a_module_that_is_missing_there_is_told(cluster: RayCluster) -> None:
    """By name, with why it cannot be imported."""
    said = refusal(ClusterMismatch, ("executor_functions", "no_such_module"), **cluster.settings)

    assert "cannot import modules of the configuration's `modules`: no_such_module (ModuleNotFoundError" in said


def test_an_open_cluster_is_joined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a warning on loopback, which nobody else can reach."""
    with started(tmp_path, cpus=1, guarded=False) as open_one, caplog.at_level(logging.WARNING):
        joined = bench(cluster_address=open_one.address)
        joined.start()

        assert joined.value(call(f.give, 1)) == 1
        joined.close()
    assert caplog.messages == []


def test_an_open_cluster_that_others_reach_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is joined, with a sentence that says what is wrong with it."""
    if (host := own_address()) is None:
        pytest.skip("this machine has no address but loopback's")
    with started(tmp_path, cpus=1, guarded=False, host=host) as open_one, caplog.at_level(logging.WARNING):
        joined = bench(cluster_address=open_one.address)
        joined.start()

        assert joined.value(call(f.give, 1)) == 1
        joined.close()
    assert any("asks for no token: whoever reaches it can run code there" in said for said in caplog.messages)


def own_address() -> str | None:
    """Returns an address of this machine that others can reach, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: it only finds the way out.
            probe.connect(("192.0.2.254", 9))
        except OSError:
            return None
        host = str(probe.getsockname()[0])
    return None if host.startswith("127.") else host
