"""A month of hourly temperatures as a small model: level, drift and daily cycle, by least squares."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The daily cycle is a wave of 24 hours and one of 12, which makes mornings and evenings differ.
HARMONICS = 2


@dataclass(frozen=True)
class Month:
    """One city's hours of one month."""

    city: str
    month: int
    day: NDArray[np.int64]
    hour: NDArray[np.int64]
    temperature: NDArray[np.float64]


def fit(month: Month) -> dict[str, Any]:
    """Returns a month's model as plain data.

    Temperature = mean + drift x (days since the middle) + daily cycle + residual. `swing` is the fitted cycle's warmest
    hour less its coldest, in °C; `residual` is the standard error of the fit.

    Raises:
        ValueError: there are too few hours to fit.
    """
    matrix = design(month.day, month.hour)
    count, unknowns = matrix.shape
    weights, _, rank, _ = np.linalg.lstsq(matrix, month.temperature, rcond=None)
    if rank < unknowns or count <= unknowns:
        raise ValueError(f"{month.city}, month {month.month}: {count} hours are too few to fit {unknowns} unknowns")
    residual = month.temperature - matrix @ weights
    cycle = waves(np.arange(24)) @ weights[2:]
    return {
        "city": month.city,
        "month": month.month,
        "hours": count,
        "mean": round(float(weights[0]), 3),
        "drift": round(float(weights[1]), 4),
        "swing": round(float(cycle.max() - cycle.min()), 3),
        "warmest_hour": int(cycle.argmax()),
        "residual": round(float(np.sqrt(residual @ residual / (count - unknowns))), 3),
    }


def design(day: NDArray[np.int64], hour: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the matrix of the least squares: a column of ones, the drift, then the daily waves."""
    moment = day + hour / 24
    middle = (moment.min() + moment.max()) / 2
    return np.column_stack([np.ones(len(moment)), moment - middle, waves(hour)])


def waves(hour: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns cosine and sine of each harmonic of the day."""
    angles = [2 * np.pi * k * hour / 24 for k in range(1, HARMONICS + 1)]
    return np.column_stack([wave(angle) for angle in angles for wave in (np.cos, np.sin)])
