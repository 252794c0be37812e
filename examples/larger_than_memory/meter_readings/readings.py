"""Makes the readings, day by day, and works on one day at a time: plain pandas, that knows nothing of Dask."""

import numpy as np
import pandas as pd

METERS = 1_000

#: Readings of a meter in a day: one each quarter of an hour.
QUARTERS = 24 * 4

#: The share of readings that a meter got wrong, and sent as a number that cannot be.
BROKEN = 0.002

#: Hours of the cheap tariff, and what a kWh costs then and else.
NIGHT = (22, 6)
CHEAP, DEAR = 0.21, 0.34


def day(number: int) -> pd.DataFrame:
    """Returns the readings of all meters on one day of 2025, in order of time; the same ones each time."""
    random = np.random.default_rng(number)
    midnight = np.datetime64("2025-01-01", "ms") + np.timedelta64(number, "D")
    hour = np.arange(QUARTERS) / 4
    load = 0.08 + 0.06 * np.exp(-(((hour - 19) / 3) ** 2)) + 0.03 * np.cos(2 * np.pi * number / 365)
    kwh = np.outer(load, np.linspace(0.5, 1.5, METERS)) * random.gamma(9, 1 / 9, (QUARTERS, METERS))
    kwh[random.random(kwh.shape) < BROKEN] = -1
    return pd.DataFrame(
        {
            "time": np.repeat(midnight + np.arange(QUARTERS) * np.timedelta64(15, "m"), METERS),
            "meter": np.tile(np.arange(METERS, dtype=np.int32), QUARTERS),
            "kwh": kwh.ravel(),
            "volts": random.normal(230, 2, kwh.size),
            "celsius": random.normal(10, 8, kwh.size),
        }
    )


def priced(readings: pd.DataFrame) -> pd.DataFrame:
    """Returns the readings that can be, with the day and the cost of each."""
    whole = readings.loc[readings.kwh >= 0, ["time", "meter", "kwh"]].reset_index(drop=True)
    hour = whole.time.dt.hour
    night = (hour >= NIGHT[0]) | (hour < NIGHT[1])
    return whole.assign(day=whole.time.dt.floor("D"), cost=whole.kwh * np.where(night, CHEAP, DEAR))


def daily(readings: pd.DataFrame) -> pd.DataFrame:
    """Returns one row for each day and meter: what it used and what that cost."""
    totals = readings.groupby(["day", "meter"], as_index=False)
    return totals.agg(readings=("kwh", "size"), kwh=("kwh", "sum"), cost=("cost", "sum"))
