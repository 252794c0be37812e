"""What the Ray executor's constructor takes."""

import subprocess
import sys

import pytest

pytest.importorskip("ray")

from flowtilla.errors import ConfigurationError
from flowtilla.settings import ExecutorSettings
from flowtilla_executors.ray.wire import Unpacker, packed
from flowtilla_executors.registry import create


def made(**options: object) -> object:
    return create(ExecutorSettings.model_validate({"target": "ray", **options}))


def test_an_address_excludes_what_only_a_local_cluster_has() -> None:
    """Each such option is named."""
    with pytest.raises(ConfigurationError, match=r"'auto', and cpus, memory, dashboard can be set only for a cluster"):
        made(cluster_address="auto", cpus=2, memory="8GB", dashboard=True)
    with pytest.raises(ConfigurationError, match=r"and require_gpus, dashboard_host can be set only for a cluster"):
        made(cluster_address="auto", require_gpus=False, dashboard_host="0.0.0.0")


def test_a_local_cluster_has_a_token_of_its_own() -> None:
    """The file with another's would not be read."""
    with pytest.raises(ConfigurationError, match=r"`auth_token_path` can be set only for one that is there"):
        made(auth_token_path="token")


@pytest.mark.parametrize(
    "wrong", [{"cpus": 0}, {"tasks_per_worker": -1}, {"resources": {"wheels": 0}}, {"gpus": -1}, {"memory": 0}]
)
def test_amounts_are_positive(wrong: dict[str, object]) -> None:
    """Nothing and less than nothing are refused, by name."""
    name = "wheels" if "resources" in wrong else next(iter(wrong))

    with pytest.raises(ConfigurationError, match=rf"cannot have {name}=-?\d(GiB)?: give positive numbers"):
        made(**wrong)


def test_a_size_needs_a_unit_that_exists() -> None:
    """Memory is read as everywhere else."""
    with pytest.raises(ConfigurationError, match=r"memory.*'8GX' is not a size"):
        made(memory="8GX")


def test_the_worker_does_not_import_ray() -> None:
    """An executor is made and asked without the second and the memory that Ray's import takes."""
    program = """if True:
        import sys
        from flowtilla_executors.ray import RayExecutor
        RayExecutor(cpus=1).info()
        assert not {"ray", "grpc"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_messages_come_whole_from_any_pieces() -> None:
    """However the socket cuts them, and however many come at once."""
    sent = [[("submit", 1, b"x" * 1000), ("drop", [1])], [("beat",)], [("value", 2, None)]]
    data = b"".join(map(packed, sent))

    for size in (1, 7, 100, len(data)):
        unpacker = Unpacker()
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert [messages for piece in pieces for messages in unpacker.feed(piece)] == sent
