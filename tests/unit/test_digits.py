"""The digits example's own choices: what a grid means, which candidate wins."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import flowtilla
from flowtilla.decorator import is_stage
from flowtilla.targets import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The example's modules, imported as a worker in its folder does."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = ("candidates", "figure", "stages")
    return SimpleNamespace(**{name: importlib.import_module(f"digit_search.{name}") for name in names})


def test_the_example_s_grid_is_36_candidates_that_can_be_built(digits: SimpleNamespace) -> None:
    """Every combination of grid.yaml names a classifier with parameters that it has, and none is there twice."""
    found = digits.stages.expand(**yaml.safe_load((EXAMPLE / "grid.yaml").read_text()))
    assert len(found) == 36
    assert len({digits.candidates.title(candidate) for candidate in found}) == 36
    assert digits.candidates.build({"model": "svm", "C": 3}).C == 3


@pytest.mark.parametrize(
    ("grid", "error", "said"),
    [
        ({"model": ["abacus"]}, ValueError, "there is no model 'abacus': choose from svm, neighbours, random_forest"),
        ({"C": [1]}, ValueError, "there is no model None"),
        ({"model": ["svm"], "colour": [1]}, TypeError, "colour"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_is_fitted(digits, grid, error, said) -> None:
    """The run fails in its first stage, not after an hour of others' scores."""
    with pytest.raises(error, match=said):
        digits.stages.expand([grid])


def test_of_equally_accurate_candidates_the_first_wins(digits: SimpleNamespace) -> None:
    """The choice does not depend on which item ended first."""
    scores = [{"title": title, "accuracy": accuracy} for title, accuracy in (("a", 0.5), ("b", 0.9), ("c", 0.9))]
    assert digits.stages.choose(scores)["title"] == "b"


def test_no_candidate_sees_the_images_that_judge(digits: SimpleNamespace) -> None:
    """Images to search with and those held back share none, and lose none."""
    loaded = digits.stages.load()
    searched, held = ({row.tobytes() for row in images} for images in (loaded.images, loaded.test_images))
    assert not searched & held
    assert (len(loaded.labels), len(loaded.test_labels)) == (1437, 360)


def test_the_picture_shows_every_count(digits: SimpleNamespace) -> None:
    """Each number of the matrix that is not zero stands in its row and column."""
    confusion = np.diag(np.arange(1, 11))
    confusion[3, 8] = 2
    (axes,) = digits.figure.draw(confusion, "svm").axes
    shown = {(text.get_position(), text.get_text()) for text in axes.texts}
    assert shown == {((read, row), str(confusion[row, read])) for row, read in np.argwhere(confusion)}


def test_the_workflow_names_only_stages_that_exist(digits: SimpleNamespace) -> None:
    """Every target of workflow.yaml is a function marked as a stage."""
    workflow = flowtilla.Workflow.parse(yaml.safe_load((EXAMPLE / "workflow.yaml").read_text()))
    assert all(is_stage(load(stage.target)) for stage in workflow.stages)
    assert workflow.final_stages == ("report",)
