"""Joining Dask clusters: by address, encrypted, unlike this process; and what is shipped to them."""

import os
import socket
import subprocess
import urllib.request
from contextlib import ExitStack

import pytest

import dask_stages as s
import executor_functions as f
from backends import Backend
from dask_cluster import dask_cluster, start_scheduler, start_worker
from executor_bench import Bench, call, making
from fleet import until
from flowtilla.errors import ClusterMismatch, ClusterUnreachable, ConfigurationError, ResourcesUnavailable
from flowtilla_executors import Parent
from flowtilla_executors.dask import DaskExecutor
from flowtilla_executors.gpus import devices


@pytest.fixture
def benches():
    """Executors of a test's own, closed after it."""
    with making(Backend("dask")) as make:
        yield make


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def test_a_tls_cluster_is_joined(benches, tmp_path, certificate):
    """With the certificate files of the settings; without them it is refused soon."""
    cert, key = map(str, certificate)
    tls = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key]
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack, "--protocol", "tls", *tls)
        start_worker(tmp_path, stack, address, "one", None, *tls)
        assert address.startswith("tls://")

        bench = benches(cluster_address=address, tls_ca_file=cert, tls_cert=cert, tls_key=key)
        assert bench.value(call(f.give, 1)) == 1
        bench.close()

        with pytest.raises(ClusterUnreachable, match="tls_ca_file"):
            benches(cluster_address=address.replace("tls://", "tcp://"))


def test_another_version_is_refused(benches, tmp_path, monkeypatch):
    """With what differs, before any code travels."""
    fake = tmp_path / "path" / "cloudpickle-0.0.1.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: cloudpickle\nVersion: 0.0.1\n")
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(fake.parent))
            start_worker(tmp_path, stack, address, "old")

        with pytest.raises(ClusterMismatch, match=r"is not like this worker: cloudpickle 0\.0\.1 there and"):
            benches(cluster_address=address)


@pytest.mark.parametrize("shape", [{"cpus": 1}, {"adaptive": {"min": 0, "max": 1}}], ids=",".join)
def test_a_missing_module_is_refused(shape):
    """With its name, and why it cannot be imported; also where no worker process is needed yet."""
    bench = Bench(DaskExecutor(**shape))

    with pytest.raises(ClusterMismatch, match=r"cannot import.*nowhere_to_be_found \(ModuleNotFoundError"):
        bench.run(bench.executor.start(lambda lines: None, ["nowhere_to_be_found"]))


def test_a_process_without_work_stays_until_it_has_imported_all(benches, tmp_path, monkeypatch):
    """However long that takes, where it would be let go of after three seconds."""
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(6)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    bench = Bench(DaskExecutor(adaptive={"min": 0, "max": 1}))

    bench.run(bench.executor.start(lambda lines: None, ["slow_module"]))
    try:
        assert bench.executor.info().cpus == 1
        assert bench.value(call(f.give, 1)) == 1
    finally:
        bench.close()


def test_modules_are_shipped(benches, tmp_path):
    """A folder and a file, to workers that join later too, and anew when they have changed."""
    package = tmp_path / "source" / "shipped_package"
    package.mkdir(parents=True)
    (package / "inner.py").write_text("WORD = 'inner'\n")
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "early")
        for word in ("first", "second", "first"):
            (package / "__init__.py").write_text(f"WORD = {word!r}\n")
            bench = benches(cluster_address=address, py_modules=[str(package)])
            assert bench.value(call(s.shipped)) == [word, "inner"]
            bench.close()

        bench = benches(cluster_address=address, py_modules=[str(package)])
        start_worker(tmp_path, stack, address, "late", {"late": 1})
        bench.until(lambda: bench.executor.info().resources.get("late"), "the late worker is not seen")

        assert bench.value(call(s.shipped, resources={"late": 1})) == ["first", "inner"]
        bench.close()


def test_the_modules_shipped_last_are_those_a_late_worker_has(benches, tmp_path):
    """Also when others went with them meanwhile; and nothing is kept of what took their place."""
    package, other = tmp_path / "source" / "shipped_package", tmp_path / "source" / "shipped_too.py"
    package.mkdir(parents=True)
    (package / "inner.py").write_text("WORD = 'inner'\n")
    other.touch()

    def deploy(word, *paths):
        (package / "__init__.py").write_text(f"WORD = {word!r}\n")
        return benches(cluster_address=address, py_modules=[str(path) for path in paths])

    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "early")
        for word, paths in [
            ("first", [package]),
            ("second", [package, other]),
            ("third", [package]),
            ("first", [package]),
        ]:
            bench = deploy(word, *paths)
            assert bench.value(call(s.shipped)) == [word, "inner"]
            bench.close()
        bench = deploy("first", package)
        start_worker(tmp_path, stack, address, "late", {"late": 1})
        bench.until(lambda: bench.executor.info().resources.get("late"), "the late worker is not seen")

        assert bench.value(call(s.shipped, resources={"late": 1})) == ["first", "inner"]
        plugins = bench.executor.session._client.run_on_scheduler(
            lambda dask_scheduler: list(dask_scheduler.worker_plugins)
        )
        assert [name for name in plugins if "modules" in name] == [
            "flowtilla-modules-shipped_package,shipped_too",
            "flowtilla-modules-shipped_package",
        ]
        bench.close()


def test_what_cannot_be_shipped_is_refused(tmp_path):
    """A path that is no module."""
    (tmp_path / "data.txt").touch()

    with pytest.raises(ConfigurationError, match=r"`py_modules` names .*data\.txt"):
        Bench(DaskExecutor(cpus=1, py_modules=[str(tmp_path / "data.txt")])).start()


def test_environment_variables_reach_an_existing_cluster(benches, tmp_path):
    """Numbers too."""
    with dask_cluster(tmp_path, cpus=1) as settings:
        bench = benches(**settings, env_vars={"FLOWTILLA_TEST": 1})

        assert bench.value(call(f.environment, "FLOWTILLA_TEST")) == "1"
        bench.close()


def shown_dashboard(bench):
    """Returns the address that the executor tells, once something answers there."""
    address = bench.executor.info().detail.partition(", dashboard at ")[2]
    with urllib.request.urlopen(address, timeout=10) as page:
        assert page.status == 200
    return address


@pytest.mark.parametrize("asked", [True, False])
def test_what_processes_print_is_printed_here_when_asked_for(benches, asked, capfd):
    """What is not a stage's own line, such as of its subprocesses; else nobody sees it here."""
    bench = benches(cpus=1, log_to_driver=asked)

    bench.finished(call(os.system, "echo from a subprocess"))

    bench.close()
    assert ("from a subprocess" in "".join(capfd.readouterr())) is asked


def test_the_dashboard_is_there_when_asked_for(benches, caplog):
    """On the loopback, at the port that was asked for; and it is told where."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    bench = benches(cpus=1, dashboard=True, dashboard_port=port)

    assert shown_dashboard(bench) == f"http://127.0.0.1:{port}/status"
    assert "dashboard" not in caplog.text
    bench.close()
    assert "dashboard" not in benches(cpus=1).executor.info().detail


def test_a_dashboard_whose_port_is_taken_has_another(benches):
    """And it is that one that is told."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bench = benches(cpus=1, dashboard=True, dashboard_port=taken.getsockname()[1])

        assert shown_dashboard(bench) != f"http://127.0.0.1:{taken.getsockname()[1]}/status"


def test_a_dashboard_that_others_reach_is_warned_of(benches, caplog):
    """It has no password."""
    bench = benches(cpus=1, dashboard=True, dashboard_host="0.0.0.0", dashboard_port=0)

    assert f"Dask's dashboard at {shown_dashboard(bench)} asks for no password" in caplog.text


@pytest.mark.alarm(240)
def test_a_value_larger_than_a_workers_memory_goes_through_three_stages(benches):
    """Its parts are spilled to disk where they do not fit."""
    bench = benches(cpus=2, memory="500MB")
    parts, megabytes = 220, 5  # small parts, for a process that takes in several at once must not reach its limit

    made = bench.finished(call(s.big, parts, megabytes))
    more = bench.finished(call(s.incremented, Parent(0)), made)
    del made
    total = bench.value(call(s.summed, Parent(0)), more)

    size = parts * megabytes * 1024 * 1024
    assert size > 2 * 500_000_000
    assert abs(total / size - 128) < 1  # bytes from 0 to 254, each one more


@pytest.mark.alarm(240)
def test_a_frame_larger_than_a_remote_workers_memory_goes_through_three_stages(benches, tmp_path):
    """What does not fit lies in the folder that the worker was given, and no process reaches its limit."""
    parts, megabytes, rows = 45, 5, 45 * 5 * 1024 * 1024 // 8
    with ExitStack() as stack:
        address = start_scheduler(tmp_path, stack)
        start_worker(tmp_path, stack, address, "small", None, "--memory-limit", "400MB")
        until(lambda: "Registered to" in (tmp_path / "worker.log").read_text())
        bench = benches(cluster_address=address)

        made = bench.finished(call(s.big_frame, parts, megabytes))
        twice = bench.finished(call(s.doubled, Parent(0)), made)
        del made
        found = bench.value(call(s.total, Parent(0)), twice)

        numbers = sum(range(rows // parts)) * parts + sum(range(parts)) * rows // parts
        assert found == 2 * numbers
        assert bench.outcome(twice).size > 400_000_000
        assert sum(path.stat().st_size for path in tmp_path.rglob("storage/*")) > 100_000_000
        assert (tmp_path / "worker.log").read_text().count("Registered to") == 1
        bench.close()


def test_a_gpu_stage_sees_one_device(benches):
    """Where there are some; and a stage that asks for none may see none."""
    if not devices():
        pytest.skip("this machine has no GPU")
    bench = benches(cpus=2, gpus=1)

    assert bench.value(call(s.device, gpus=1)) == devices()[0]
    with pytest.raises(ResourcesUnavailable, match="gpus=2"):
        bench.submit(call(s.device, gpus=2))


def test_processes_that_come_with_the_work_have_devices_too(benches, monkeypatch):
    """Each one of its own, and what no process has is refused."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    bench = benches(adaptive={"min": 0, "max": 3}, gpus=2, resources={"a": 1, "b": 1})

    assert bench.value(call(s.device, gpus=1, resources={"b": 1})) == "7"
    assert bench.value(call(s.device, gpus=1, resources={"a": 1})) == "6"
    with pytest.raises(ResourcesUnavailable, match="gpus=2"):
        bench.submit(call(s.device, gpus=2))


def test_missing_devices_are_said(benches):
    """With the setting that relaxes it; then it starts without."""
    if devices():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigurationError, match=r"`gpus: 1`.*`require_gpus: false`"):
        benches(cpus=1, gpus=1)

    bench = benches(cpus=1, gpus=1, require_gpus=False)

    assert bench.value(call(f.give, 1)) == 1
    until(lambda: bench.executor.info().cpus == 1)
