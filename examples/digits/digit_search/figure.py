"""Draws which digits are taken for which."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def draw(confusion: NDArray[np.int64], title: str) -> Figure:
    """Returns a figure of a confusion matrix: a row for each digit shown, a column for each digit read."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    # Mistakes are few: shown on the scale of what is right they would look like none.
    axes.imshow(np.log1p(confusion), cmap="Blues")
    half = np.log1p(confusion.max()) / 2
    for shown, read in np.argwhere(confusion):
        count = confusion[shown, read]
        axes.text(
            read, shown, str(count), ha="center", va="center", color="white" if np.log1p(count) > half else "black"
        )
    axes.set(xticks=range(10), yticks=range(10), xlabel="read", ylabel="shown", title=title)
    return figure
