"""The comparison of a cluster with this process."""

import ast
import subprocess
import sys

import cloudpickle
import pytest

from flowtilla.errors import ClusterMismatch
from flowtilla_executors import handshake

CLUSTER = "the Ray cluster at head:6379"


def found(**changes: object) -> dict:
    """Returns what a node says that is like this process, but for the changes."""
    here = handshake.look(handshake.PACKAGES, ())
    return here | changes | {"versions": here["versions"] | changes.get("versions", {})}  # type: ignore[operator]


def test_a_cluster_like_this_process_is_fine() -> None:
    """Nothing is said."""
    handshake.check(found(), handshake.PACKAGES, CLUSTER)


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"python": "3.9"}, "python 3.9 there and 3."),
        ({"flowtilla": None}, "flowtilla is missing there and 0."),
        ({"cloudpickle": "1.0", "python": "3.9"}, "cloudpickle 1.0 there"),
    ],
)
def test_what_differs_is_said(versions: dict, said: str) -> None:
    """The cluster, the host, each difference, and what to do."""
    with pytest.raises(ClusterMismatch) as refused:
        handshake.check(found(versions=versions, host="node-7"), handshake.PACKAGES, CLUSTER)

    assert said in str(refused.value)
    assert f"{CLUSTER}, host node-7, is not like this worker: " in str(refused.value)
    assert "Install the same versions on both sides" in str(refused.value)


def test_modules_that_cannot_be_imported_are_said() -> None:
    """Each with why, whatever importing it raised."""
    there = handshake.look(handshake.PACKAGES, ["json", "no_such_module"])

    assert list(there["broken"]) == ["no_such_module"]
    with pytest.raises(ClusterMismatch, match=r"no_such_module \(ModuleNotFoundError: .*see docs/executors.md"):
        handshake.check(there, handshake.PACKAGES, CLUSTER)


def test_looking_needs_nothing_of_flowtilla() -> None:
    """It travels by value, and runs where there is none."""
    program = """if True:
        import sys
        sys.modules |= dict.fromkeys(["flowtilla", "flowtilla_executors", "flowtilla_executors.handshake"])
        import cloudpickle
        look = cloudpickle.load(sys.stdin.buffer)
        print(look(["pytest", "no-such-package"], ["flowtilla"]))
    """
    pickled = cloudpickle.dumps(handshake.portable_look())
    done = subprocess.run([sys.executable, "-c", program], input=pickled, capture_output=True, check=True)

    said = ast.literal_eval(done.stdout.decode())
    assert (said["versions"]["pytest"], said["versions"]["no-such-package"]) == (pytest.__version__, None)
    assert list(said["broken"]) == ["flowtilla"]
