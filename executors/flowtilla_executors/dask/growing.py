"""A local cluster whose worker processes come with the work and go with it."""

from collections.abc import Iterable, Mapping
from typing import Any

from distributed import Adaptive, Nanny, SpecCluster
from distributed.core import Status


class Growing(SpecCluster):
    """A cluster that has a place for each worker process, with resources and a device of its own.

    It begins with one of them, so that it is known at once whether they can start, and have what stages need.

    Args:
        places: the options of the worker process in each.
        least: how many are there when there is no work.
        options: of Dask's cluster.
    """

    def __init__(self, places: list[dict[str, Any]], least: int, **options: Any) -> None:
        self._places = places
        self._least = least
        super().__init__(workers={0: self._spec(0)}, worker=self._spec(0), **options)

    def grow(self) -> None:
        """From now on lets there be as many processes as there is work for, or as have what the work needs."""
        self.adapt(Adaptive=Need, minimum=self._least, maximum=len(self._places))

    def new_worker_spec(self) -> dict[Any, dict[str, Any]]:
        (name,) = super().new_worker_spec()
        taken = self._taken()
        return {name: self._spec(next(place for place in range(len(self._places)) if place not in taken))}

    def needed(self, needs: Iterable[Mapping[str, float]]) -> int:
        """Returns how many processes it takes until each need is met by one of them, or could never be."""
        return max(map(self._reaching, needs), default=0)

    def forget_dead(self) -> None:
        """Lets go of the nannies that gave up; others take their places."""
        for name in [name for name, nanny in self.workers.items() if nanny.status in (Status.closed, Status.failed)]:
            del self.workers[name]

    def _reaching(self, need: Mapping[str, float]) -> int:
        taken = self._taken()
        meeting = (place for place, options in enumerate(self._places) if _meets(options["resources"], need))
        # The lowest places are filled first.
        return min((len(taken if place in taken else taken | set(range(place + 1))) for place in meeting), default=0)

    def _taken(self) -> set[int]:
        return {spec["place"] for spec in self.worker_spec.values()}

    def _spec(self, place: int) -> dict[str, Any]:
        return {"cls": Nanny, "options": self._places[place], "place": place}


class Need(Adaptive):
    """Asks for as many processes as Dask would, and for those that have what waiting tasks need.

    Dask counts tasks, and all its workers are the same.
    """

    async def target(self) -> int:
        self.cluster.forget_dead()
        needs = {tuple((task.resource_restrictions or {}).items()) for task in self.cluster.scheduler.unrunnable}
        most: int = max(await super().target(), self.cluster.needed(map(dict, needs)))
        return most


def _meets(resources: Mapping[str, float], need: Mapping[str, float]) -> bool:
    return all(resources.get(name, 0.0) >= amount for name, amount in need.items())
