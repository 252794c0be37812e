"""The stages of workflow.yaml: plain functions, each of which a test, or a loop such as by_hand.py's, can call."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split

import flowtilla
from digit_search import candidates, figure

#: How many parts of the training images each candidate is cross-validated on.
FOLDS = 5

#: The share of the images that no candidate sees before the best one is judged.
HELD_OUT = 0.2


@dataclass(frozen=True)
class Digits:
    """Images of 8 x 8 grey values, a row each, and the digits they show."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]
    test_images: NDArray[np.float64]
    test_labels: NDArray[np.int64]


@flowtilla.stage
def load() -> Digits:
    """Loads the 1,797 images that come with scikit-learn, and holds some of them back."""
    everything, labels = load_digits(return_X_y=True)
    split = train_test_split(everything, labels, test_size=HELD_OUT, stratify=labels, random_state=candidates.SEED)
    images, test_images, labels, test_labels = split
    print(f"{len(images):,} images to search with, {len(test_images)} held back")
    return Digits(images, labels, test_images, test_labels)


@flowtilla.stage
def expand(grid: list[dict[str, list[Any]]]) -> list[dict[str, Any]]:
    """Makes the grid's candidates: the items of the next stage."""
    return candidates.expand(grid)


@flowtilla.stage(timeout="5m")
def score(candidate: dict[str, Any], digits: Digits) -> dict[str, Any]:
    """Cross-validates one candidate."""
    began = time.perf_counter()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=candidates.SEED)
    accuracy = cross_val_score(candidates.build(candidate), digits.images, digits.labels, cv=folds)
    seconds = time.perf_counter() - began
    title = candidates.title(candidate)
    print(f"{accuracy.mean():.2%} ± {accuracy.std():.2%} in {seconds:.2f} s: {title}")
    return {
        "title": title,
        "candidate": candidate,
        "accuracy": round(float(accuracy.mean()), 5),
        "spread": round(float(accuracy.std()), 5),
        "seconds": round(seconds, 3),
    }


@flowtilla.stage
def choose(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the most accurate candidate's score; of equal ones the first in the grid."""
    return max(scores, key=lambda score: score["accuracy"])


@flowtilla.stage
def refit(best: dict[str, Any], digits: Digits) -> dict[str, Any]:
    """Fits the best candidate to all training images, judges it on those held back, and stores it."""
    model = candidates.build(best["candidate"]).fit(digits.images, digits.labels)
    read = model.predict(digits.test_images)
    # A pickle is only sure to load with the library that made it.
    flowtilla.artifacts.put("model", model, format="pickle", metadata={"scikit-learn": sklearn.__version__})
    confusion = confusion_matrix(digits.test_labels, read)
    flowtilla.artifacts.put("confusion", figure.draw(confusion, best["title"]))
    return {"tested_on": len(read), "test_accuracy": round(float((read == digits.test_labels).mean()), 5)}


@flowtilla.stage
def report(scores: list[dict[str, Any]], best: dict[str, Any], tested: dict[str, Any]) -> dict[str, Any]:
    """Stores every score, best first, and returns what the search came to."""
    ranking = sorted(scores, key=lambda score: -score["accuracy"])
    result = {"best": best, **tested, "candidates": len(scores)}
    flowtilla.artifacts.put("report", result | {"ranking": ranking, "folds": FOLDS})
    return result
