"""The larger-than-memory example's own arithmetic, held against plain loops."""

import importlib
import math
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml

import flowtilla
from flowtilla.decorator import is_stage
from flowtilla.targets import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "larger_than_memory"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example's module, imported as a worker in its folder does."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return importlib.import_module("meter_readings.readings")


def test_a_day_has_every_quarter_of_every_meter_and_is_the_same_each_time(readings: ModuleType) -> None:
    """96 readings of each of 1,000 meters, in order of time; another day differs."""
    day = readings.day(31)
    assert len(day) == 96_000
    assert (day.time.iloc[0], day.time.iloc[-1]) == (datetime(2025, 2, 1), datetime(2025, 2, 1, 23, 45))
    assert day.time.is_monotonic_increasing
    assert (day.groupby("time").meter.nunique() == 1000).all()
    pd.testing.assert_frame_equal(day, readings.day(31))
    assert not day.kwh.equals(readings.day(32).kwh)


def test_broken_readings_are_dropped_and_nights_are_cheap(readings: ModuleType) -> None:
    """What is negative goes; from 22 to 6 o'clock a kWh costs less."""
    hours = ["2025-03-01 05:45", "2025-03-01 06:00", "2025-03-01 21:45", "2025-03-01 22:00", "2025-03-01 12:00"]
    frame = pd.DataFrame({"time": pd.to_datetime(hours), "meter": 7, "kwh": [1.0, 1.0, 1.0, 1.0, -1.0]})
    priced = readings.priced(frame)
    assert priced.cost.tolist() == [0.21, 0.34, 0.34, 0.21]
    assert priced.day.unique().tolist() == [datetime(2025, 3, 1)]


def test_a_day_s_totals_are_the_sums_of_its_readings(readings: ModuleType) -> None:
    """For each meter: how many readings, what it used, what that cost."""
    priced = readings.priced(readings.day(0))
    daily = readings.daily(priced)
    assert daily.meter.tolist() == list(range(1000))
    own = priced[priced.meter == 500]
    row = daily.iloc[500]
    assert row.readings == len(own)
    assert row.kwh == pytest.approx(math.fsum(own.kwh))
    assert row.cost == pytest.approx(math.fsum(own.cost))


def test_the_workflow_names_only_stages_that_exist(readings: ModuleType) -> None:
    """Every target of workflow.yaml is a function marked as a stage."""
    workflow = flowtilla.Workflow.parse(yaml.safe_load((EXAMPLE / "workflow.yaml").read_text()))
    assert all(is_stage(load(stage.target)) for stage in workflow.stages)
    assert workflow.final_stages == ("report",)
