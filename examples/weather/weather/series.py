"""Reads the measurements and refuses bad ones, naming the file and the line."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parents[1] / "data"

#: The hourly file of each city.
CITIES = {"seattle": "seattle-temps.csv", "san_francisco": "sf-temps.csv"}

#: What a thermometer in either city could possibly show, in °F and °C.
POSSIBLE_F = (-40.0, 130.0)
POSSIBLE_C = (-40.0, 55.0)

#: A year with more missing hours than a day's is not fit for fitting.
MOST_GAPS = 24

KINDS = ("sun", "fog", "drizzle", "rain", "snow")


@dataclass(frozen=True)
class Hourly:
    """A city's hourly temperatures in °C, in order of time; `gaps` counts the hours that are missing between."""

    city: str
    month: NDArray[np.int64]
    day: NDArray[np.int64]
    hour: NDArray[np.int64]
    temperature: NDArray[np.float64]
    gaps: int


@dataclass(frozen=True)
class Day:
    """One day's weather."""

    date: date
    rain_mm: float
    highest: float
    lowest: float
    kind: str


def read_hourly(city: str, path: Path) -> Hourly:
    """Returns a city's hourly temperatures.

    Args:
        city: what to call it.
        path: a CSV file with the columns `date` and `temp` (°F).

    Raises:
        ValueError: a row cannot be read, is out of range or out of order, which the message says with file and line; or
            too many hours are missing.
    """
    times: list[datetime] = []
    fahrenheit: list[float] = []
    for where, row in _rows(path, {"date", "temp"}):
        times.append(_time(where, row["date"]))
        fahrenheit.append(_number(where, "temp", row["temp"], POSSIBLE_F))
        _check_order(where, times)
    gaps = round((times[-1] - times[0]) / timedelta(hours=1)) + 1 - len(times)
    if gaps > MOST_GAPS:
        raise ValueError(f"{path.name}: {gaps} hours are missing between the first and the last; {MOST_GAPS} may be")
    return Hourly(
        city=city,
        month=np.array([time.month for time in times]),
        day=np.array([time.day for time in times]),
        hour=np.array([time.hour for time in times]),
        temperature=(np.array(fahrenheit) - 32) / 1.8,
        gaps=gaps,
    )


def read_daily(path: Path) -> list[Day]:
    """Returns one place's daily weather.

    Args:
        path: a CSV file with the columns `date`, `precipitation` (mm), `temp_max`, `temp_min` (°C) and `weather`.

    Raises:
        ValueError: a row cannot be read, contradicts itself or is out of order; names the file and the line.
    """
    days: list[Day] = []
    times: list[datetime] = []
    for where, row in _rows(path, {"date", "precipitation", "temp_max", "temp_min", "weather"}):
        times.append(_time(where, row["date"]))
        _check_order(where, times)
        days.append(_day(where, times[-1].date(), row))
    return days


def _day(where: str, day: date, row: dict[str, str]) -> Day:
    highest = _number(where, "temp_max", row["temp_max"], POSSIBLE_C)
    lowest = _number(where, "temp_min", row["temp_min"], POSSIBLE_C)
    if lowest > highest:
        raise ValueError(f"{where}: temp_min {lowest:g} is above temp_max {highest:g}")
    if row["weather"] not in KINDS:
        raise ValueError(f"{where}: weather {row['weather']!r} is none of {', '.join(KINDS)}")
    rain = _number(where, "precipitation", row["precipitation"], (0.0, 1000.0))
    return Day(date=day, rain_mm=rain, highest=highest, lowest=lowest, kind=row["weather"])


def _rows(path: Path, columns: set[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each row and where it stands; at least one, or it raises."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := columns - set(reader.fieldnames or ()):
            raise ValueError(f"{path.name}: there is no column {', '.join(sorted(missing))}")
        empty = True
        for row in reader:
            empty = False
            where = f"{path.name} line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where}: expected {len(reader.fieldnames or ())} values")
            yield where, row
        if empty:
            raise ValueError(f"{path.name}: there are no rows")


def _time(where: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:
        raise ValueError(f"{where}: date {text!r} is not a time such as 2010/01/31 23:00") from None
    if time.tzinfo is not None:
        raise ValueError(f"{where}: date {text!r} has a time zone; local time is expected")
    return time


def _number(where: str, column: str, text: str, possible: tuple[float, float]) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} {text!r} is not a number") from None
    low, high = possible
    # Written so that NaN, which is neither below nor above, is refused too.
    if not low <= value <= high:
        raise ValueError(f"{where}: {column} {text} is outside {low:g} to {high:g}")
    return value


def _check_order(where: str, times: list[datetime]) -> None:
    if len(times) > 1 and times[-1] <= times[-2]:
        raise ValueError(f"{where}: {times[-1]} does not follow {times[-2]}")
