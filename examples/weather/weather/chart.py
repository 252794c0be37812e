"""Draws the year as one picture."""

from calendar import month_abbr
from typing import Any

from matplotlib.figure import Figure

_COLOURS = {"sun": "#f2b134", "fog": "#b8c4cc", "drizzle": "#8fb8de", "rain": "#3b6ea5", "snow": "#d9e6f2"}


def draw(climate: dict[str, Any], weather: list[dict[str, Any]]) -> Figure:
    """Returns a figure: each city's modelled year above, Seattle's kinds of days below.

    Args:
        climate: `months` (what `model.fit` returned) by city.
        weather: one row a month, with the number of days of each kind.
    """
    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for city, year in climate.items():
        _year(above, city, year["months"])
    above.set(ylabel="°C", title="Mean temperature and daily swing, 2010")
    above.legend(frameon=False)
    _days(below, weather)
    below.set(ylabel="days a year", title="Seattle's days, 2012 to 2015", xticks=range(1, 13))
    below.set_xticklabels(month_abbr[1:])
    below.legend(frameon=False, ncols=len(_COLOURS), loc="upper center")
    below.set_ylim(0, 40)
    return figure


def _year(axes: Any, city: str, months: list[dict[str, Any]]) -> None:
    x = [month["month"] for month in months]
    mean = [month["mean"] for month in months]
    half = [month["swing"] / 2 for month in months]
    (line,) = axes.plot(x, mean, marker="o", label=city.replace("_", " ").title())
    low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
    axes.fill_between(x, low, high, alpha=0.15, color=line.get_color())


def _days(axes: Any, weather: list[dict[str, Any]]) -> None:
    x = [row["month"] for row in weather]
    bottom = [0.0] * len(x)
    for kind, colour in _COLOURS.items():
        days = [row["days"][kind] / row["years"] for row in weather]
        axes.bar(x, days, bottom=bottom, color=colour, label=kind)
        bottom = [low + more for low, more in zip(bottom, days, strict=True)]
