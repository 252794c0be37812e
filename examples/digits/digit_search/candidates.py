"""What the search chooses from: a candidate is plain data, a classifier's name and its parameters."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sklearn.base import ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

#: Two runs of one candidate give one answer.
SEED = 0

MODELS: dict[str, Callable[..., ClassifierMixin]] = {
    "svm": SVC,
    "neighbours": KNeighborsClassifier,
    "random_forest": lambda **parameters: RandomForestClassifier(random_state=SEED, **parameters),
    "extra_trees": lambda **parameters: ExtraTreesClassifier(random_state=SEED, **parameters),
}


def expand(grid: Sequence[Mapping[str, Sequence[Any]]]) -> list[dict[str, Any]]:
    """Returns every candidate of a grid: of each mapping, every combination of its lists.

    Raises:
        ValueError: a mapping names no `model`, or one that is not in `MODELS`.
        TypeError: a model has no such parameter.
    """
    candidates = [dict(candidate) for candidate in ParameterGrid(grid)]
    for candidate in candidates:
        build(candidate)
    return candidates


def build(candidate: Mapping[str, Any]) -> ClassifierMixin:
    """Returns the candidate's classifier, not fitted."""
    parameters = dict(candidate)
    name = parameters.pop("model", None)
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose from {', '.join(MODELS)}")
    return MODELS[name](**parameters)


def title(candidate: Mapping[str, Any]) -> str:
    """Returns a candidate as people write it: `svm, C=1, gamma=0.001`."""
    return ", ".join([candidate["model"], *(f"{key}={value}" for key, value in candidate.items() if key != "model")])
