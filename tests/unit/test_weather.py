"""The weather example's own mathematics and checks, held against computations made another way."""

import importlib
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

import flowtilla
from flowtilla.decorator import is_stage
from flowtilla.targets import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "weather"
DATA = EXAMPLE / "data"


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The example's modules, imported as a worker in its folder does."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = ("series", "model", "chart", "stages")
    yield SimpleNamespace(**{name: importlib.import_module(f"weather.{name}") for name in names})


@pytest.fixture
def months(weather):
    """Every group of the example, as its fit stage gets it."""
    return weather.stages.split_months([weather.stages.load_city(city) for city in weather.series.CITIES])


@pytest.fixture
def climate(weather, months):
    return weather.stages.join_cities([weather.stages.fit_month(month) for month in months])


@pytest.mark.parametrize("city", ["seattle", "san_francisco"])
def test_a_year_is_loaded_whole(weather, city):
    """A city's series has every row of the file, in °C, and knows of the hour that is missing."""
    loaded = weather.stages.load_city(city)
    frame = pd.read_csv(DATA / weather.series.CITIES[city], parse_dates=["date"])
    assert len(loaded.temperature) == len(frame) == 8759
    assert loaded.gaps == (frame.date.max() - frame.date.min()) / pd.Timedelta("1h") + 1 - len(frame) == 1
    np.testing.assert_allclose(loaded.temperature * 9 / 5 + 32, frame.temp)
    assert loaded.month.tolist() == frame.date.dt.month.tolist()
    assert loaded.day.tolist() == frame.date.dt.day.tolist()
    assert loaded.hour.tolist() == frame.date.dt.hour.tolist()


def test_groups_are_every_month_of_every_city_and_lose_no_hour(months):
    """Splitting gives 24 groups, in order, that together hold every hour once."""
    assert [(m.city, m.month) for m in months] == [(c, n) for c in ("seattle", "san_francisco") for n in range(1, 13)]
    assert sum(len(m.temperature) for m in months) == 2 * 8759


def test_a_fit_finds_what_made_the_data(weather):
    """From a known mean, drift and daily wave the fit returns exactly those, and no residual."""
    day, hour = np.repeat(np.arange(1, 31), 24), np.tile(np.arange(24), 30)
    moment = day + hour / 24
    made = 11.5 + 0.25 * (moment - moment.mean()) + 4 * np.cos(2 * np.pi * (hour - 15) / 24)
    fitted = weather.model.fit(weather.model.Month("nowhere", 4, day, hour, made))
    assert fitted == {
        "city": "nowhere",
        "month": 4,
        "hours": 720,
        "mean": 11.5,
        "drift": 0.25,
        "swing": 8.0,
        "warmest_hour": 15,
        "residual": 0.0,
    }


def test_every_fit_is_the_least_squares_solution(weather, months):
    """Each month's model equals the normal equations solved by elimination, without numpy's solver."""
    for month in months:
        fitted = weather.model.fit(month)
        moments = [d + h / 24 for d, h in zip(month.day.tolist(), month.hour.tolist(), strict=True)]
        middle = (min(moments) + max(moments)) / 2
        rows = [[1.0, t - middle, *_waves(h)] for t, h in zip(moments, month.hour.tolist(), strict=True)]
        weights = _least_squares(rows, month.temperature.tolist())
        errors = [y - _dot(row, weights) for row, y in zip(rows, month.temperature.tolist(), strict=True)]
        cycle = [_dot(_waves(hour), weights[2:]) for hour in range(24)]
        assert fitted["mean"] == pytest.approx(weights[0], abs=6e-4)
        assert fitted["drift"] == pytest.approx(weights[1], abs=6e-5)
        assert fitted["swing"] == pytest.approx(max(cycle) - min(cycle), abs=6e-4)
        assert fitted["warmest_hour"] == cycle.index(max(cycle))
        assert fitted["residual"] == pytest.approx(math.sqrt(_dot(errors, errors) / (len(rows) - 6)), abs=6e-4)


def _waves(hour: int) -> list[float]:
    return [wave(math.tau * k * hour / 24) for k in (1, 2) for wave in (math.cos, math.sin)]


def _dot(left: list[float], right: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


def _least_squares(rows: list[list[float]], values: list[float]) -> list[float]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    system = [[_dot(a, b) for b in columns] + [_dot(a, values)] for a in columns]
    for i, pivot in enumerate(system):
        for j, other in enumerate(system):
            if i != j:
                factor = other[i] / pivot[i]
                system[j] = [a - factor * b for a, b in zip(other, pivot, strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(system)]


def test_a_whole_month_s_mean_is_the_plain_mean(weather, months):
    """Where no hour is missing the modelled level is the arithmetic mean of the measurements."""
    for month in months:
        if month.month != 3:
            assert weather.model.fit(month)["mean"] == round(statistics.fmean(month.temperature.tolist()), 3)


def test_too_few_hours_are_refused(weather):
    """A group that cannot determine the model says so instead of inventing one."""
    few = np.array([0, 1, 2])
    with pytest.raises(ValueError, match="seattle, month 2: 3 hours are too few to fit 6 unknowns"):
        weather.model.fit(weather.model.Month("seattle", 2, few + 1, few, few * 1.0))


def test_a_city_s_year_joins_its_months(climate):
    """The year's mean is that of all its hours, and its months stay in order."""
    for city, file in (("seattle", "seattle-temps.csv"), ("san_francisco", "sf-temps.csv")):
        frame = pd.read_csv(DATA / file, parse_dates=["date"])
        by_month = frame.groupby(frame.date.dt.month).temp.mean()
        assert climate[city]["mean"] == pytest.approx((frame.temp.mean() - 32) / 1.8, abs=0.01)
        assert climate[city]["coldest_month"] == by_month.idxmin()
        assert climate[city]["warmest_month"] == by_month.idxmax()
        assert [month["month"] for month in climate[city]["months"]] == list(range(1, 13))


def test_seattle_s_weather_is_counted_as_pandas_counts_it(weather):
    """Counts, extremes and rain of each calendar month agree with a groupby over the file."""
    counted = weather.stages.count_weather(weather.stages.load_weather())
    frame = pd.read_csv(DATA / "seattle-weather.csv", parse_dates=["date"])
    groups = frame.groupby(frame.date.dt.month)
    kinds = pd.crosstab(frame.date.dt.month, frame.weather)
    assert [row["month"] for row in counted] == list(range(1, 13))
    for row in counted:
        month = row["month"]
        assert row["days"] == kinds.loc[month].to_dict()
        assert row["lowest"] == groups.temp_min.min()[month]
        assert row["highest"] == groups.temp_max.max()[month]
        assert row["rain_mm"] == pytest.approx(groups.precipitation.sum()[month], abs=0.06)
        assert row["years"] == 4


def test_the_joined_table_has_a_row_a_month(weather, climate):
    """Each row puts both cities' models beside Seattle's weather of that month."""
    counted = weather.stages.count_weather(weather.stages.load_weather())
    rows = weather.stages.join_weather(climate, counted)
    assert [row["month"] for row in rows][:2] == ["Jan", "Feb"]
    assert len(rows) == 12
    for row, own, seattle, other in zip(
        rows, counted, climate["seattle"]["months"], climate["san_francisco"]["months"], strict=True
    ):
        assert (row["seattle_mean"], row["seattle_swing"]) == (seattle["mean"], seattle["swing"])
        assert (row["san_francisco_mean"], row["san_francisco_swing"]) == (other["mean"], other["swing"])
        assert row["snow_days"] == own["days"]["snow"]
        assert (row["lowest"], row["highest"]) == (own["lowest"], own["highest"])


def test_the_chart_shows_every_month_of_what_it_is_given(weather, climate):
    """The figure's lines and bars hold the numbers, not a picture of other ones."""
    counted = weather.stages.count_weather(weather.stages.load_weather())
    above, below = weather.chart.draw(climate, counted).axes
    for line, year in zip(above.get_lines(), climate.values(), strict=True):
        assert line.get_ydata().tolist() == [month["mean"] for month in year["months"]]
    assert sum(bar.get_height() for bar in below.patches) == pytest.approx(1461 / 4)


HOURLY = "date,temp\n2010/01/01 00:00,39.4\n"
DAILY = "date,precipitation,temp_max,temp_min,wind,weather\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("date,degrees\n", "bad.csv: there is no column temp"),
        ("", "bad.csv: there is no column date, temp"),
        ("date,temp\n", "bad.csv: there are no rows"),
        (HOURLY + "2010/01/01 01:00\n", "bad.csv line 3: expected 2 values"),
        (HOURLY + "2010/01/01 01:00,1,2\n", "bad.csv line 3: expected 2 values"),
        (HOURLY + "New Year,39\n", "bad.csv line 3: date 'New Year' is not a time"),
        (HOURLY + "2010/01/01 01:00+01:00,39\n", "bad.csv line 3: date .* has a time zone"),
        (HOURLY + "2010/01/01 01:00,warm\n", "bad.csv line 3: temp 'warm' is not a number"),
        (HOURLY + "2010/01/01 01:00,nan\n", "bad.csv line 3: temp nan is outside -40 to 130"),
        (HOURLY + "2010/01/01 01:00,394\n", "bad.csv line 3: temp 394 is outside -40 to 130"),
        (HOURLY + "2010/01/01 00:00,39\n", "bad.csv line 3: 2010-01-01 00:00:00 does not follow 2010-01-01 00:00:00"),
        (HOURLY + "2010/01/03 00:00,39\n", "bad.csv: 47 hours are missing"),
    ],
)
def test_bad_hours_are_refused_by_file_and_line(weather, tmp_path, text, complaint):
    """A bad hourly file is a ValueError that says where and what."""
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        weather.series.read_hourly("nowhere", tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (DAILY + "2012/01/01,0.0,5.0,12.8,4.7,rain\n", "bad.csv line 2: temp_min 12.8 is above temp_max 5"),
        (DAILY + "2012/01/01,0.0,12.8,5.0,4.7,frogs\n", "bad.csv line 2: weather 'frogs' is none of sun, fog"),
        (DAILY + "2012/01/01,-1,12.8,5.0,4.7,rain\n", "bad.csv line 2: precipitation -1 is outside 0 to 1000"),
    ],
)
def test_bad_days_are_refused_by_file_and_line(weather, tmp_path, text, complaint):
    """A bad daily file is a ValueError that says where and what."""
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        weather.series.read_daily(tmp_path / "bad.csv")


def test_an_unknown_city_is_refused(weather):
    """A city comes from the input, so it is looked up, never made into a path."""
    with pytest.raises(ValueError, match=r"no data of '\.\./secrets': choose from seattle, san_francisco"):
        weather.stages.load_city("../secrets")


def test_the_workflow_names_only_stages_that_exist(weather):
    """Every target of workflow.yaml is a function marked as a stage."""
    workflow = flowtilla.Workflow.parse(yaml.safe_load((EXAMPLE / "workflow.yaml").read_text()))
    assert all(is_stage(load(stage.target)) for stage in workflow.stages)
    assert workflow.final_stages == ("report",)
