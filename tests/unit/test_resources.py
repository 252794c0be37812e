"""What a call needs, and whether any node could ever give it."""

import pytest

from flowtilla.errors import ResourcesUnavailable
from flowtilla_executors.resources import Offers


def test_what_a_node_that_went_could_give_may_come_again() -> None:
    """It is not refused; what no node ever had is."""
    offers = Offers()
    offers.update([{"cpus": 4, "gpus": 1}, {"cpus": 8}])
    assert offers.meet("train", {"cpus": 2, "gpus": 1}, "ray")

    offers.update([{"cpus": 8}])
    assert not offers.meet("train", {"cpus": 2, "gpus": 1}, "ray")
    assert offers.meet("train", {"cpus": 8}, "ray")
    with pytest.raises(
        ResourcesUnavailable, match="asks for cpus=8, gpus=1, and the ray executor has cpus=4, gpus=1 or"
    ):
        offers.meet("train", {"cpus": 8, "gpus": 1}, "ray")
