"""The stages of workflow.yaml: plain functions, each of which a test can call."""

import csv
import io
import logging
from calendar import month_abbr
from typing import Any

import numpy as np

import flowtilla
from weather import chart, model, series

log = logging.getLogger(__name__)


@flowtilla.stage
def load_city(city: str) -> series.Hourly:
    """Reads and checks one city's year of hours."""
    if city not in series.CITIES:
        raise ValueError(f"there is no data of {city!r}: choose from {', '.join(series.CITIES)}")
    hourly = series.read_hourly(city, series.DATA / series.CITIES[city])
    low, high = hourly.temperature.min(), hourly.temperature.max()
    print(f"{city}: {len(hourly.temperature):,} hours, {hourly.gaps} missing, {low:.1f} to {high:.1f} °C")
    return hourly


@flowtilla.stage
def load_weather() -> list[series.Day]:
    """Reads and checks Seattle's days."""
    days = series.read_daily(series.DATA / "seattle-weather.csv")
    print(f"seattle: {len(days):,} days from {days[0].date} to {days[-1].date}")
    return days


@flowtilla.stage
def split_months(cities: list[series.Hourly]) -> list[model.Month]:
    """Cuts every city's year into months: the groups to fit."""
    return [_month(hourly, month) for hourly in cities for month in np.unique(hourly.month).tolist()]


def _month(hourly: series.Hourly, month: int) -> model.Month:
    own = hourly.month == month
    return model.Month(hourly.city, month, hourly.day[own], hourly.hour[own], hourly.temperature[own])


@flowtilla.stage(retries=2, timeout="30s")
def fit_month(month: model.Month) -> dict[str, Any]:
    """Fits one city's month."""
    fitted = model.fit(month)
    name = f"{month.city}, {month_abbr[month.month]}"
    log.info("%s: %.1f °C, swing %.1f, residual %.2f", name, fitted["mean"], fitted["swing"], fitted["residual"])
    return fitted


@flowtilla.stage
def join_cities(fitted: list[dict[str, Any]]) -> dict[str, Any]:
    """Puts each city's months together into its year."""
    cities = dict.fromkeys(month["city"] for month in fitted)
    return {city: _year([month for month in fitted if month["city"] == city]) for city in cities}


def _year(months: list[dict[str, Any]]) -> dict[str, Any]:
    hours = np.array([month["hours"] for month in months])
    residual = np.array([month["residual"] for month in months])
    return {
        "mean": round(float(np.average([month["mean"] for month in months], weights=hours)), 2),
        "coldest_month": min(months, key=lambda month: month["mean"])["month"],
        "warmest_month": max(months, key=lambda month: month["mean"])["month"],
        "residual": round(float(np.sqrt(np.average(residual**2, weights=hours))), 2),
        "months": months,
    }


@flowtilla.stage
def count_weather(days: list[series.Day]) -> list[dict[str, Any]]:
    """Counts the kinds of days and finds the extremes of each calendar month."""
    months = sorted({day.date.month for day in days})
    return [_weather(month, [day for day in days if day.date.month == month]) for month in months]


def _weather(month: int, days: list[series.Day]) -> dict[str, Any]:
    return {
        "month": month,
        "years": len({day.date.year for day in days}),
        "days": {kind: sum(day.kind == kind for day in days) for kind in series.KINDS},
        "lowest": min(day.lowest for day in days),
        "highest": max(day.highest for day in days),
        "rain_mm": round(sum(day.rain_mm for day in days), 1),
    }


@flowtilla.stage
def join_weather(climate: dict[str, Any], weather: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Joins the cities' modelled months with Seattle's weather: one row a month."""
    fitted = {(city, month["month"]): month for city, year in climate.items() for month in year["months"]}
    return [_row(row, {city: fitted[city, row["month"]] for city in climate}) for row in weather]


def _row(weather: dict[str, Any], fitted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    modelled = {f"{city}_{key}": month[key] for city, month in fitted.items() for key in ("mean", "swing")}
    days = {f"{kind}_days": weather["days"][kind] for kind in ("sun", "rain", "snow")}
    extremes = {key: weather[key] for key in ("lowest", "highest")}
    return {"month": month_abbr[weather["month"]]} | modelled | days | extremes


@flowtilla.stage
def write_summary(climate: dict[str, Any], weather: list[dict[str, Any]]) -> str:
    """Stores everything that was found as JSON."""
    flowtilla.artifacts.put("summary", {"cities": climate, "seattle_weather": weather})
    return "summary"


@flowtilla.stage
def write_table(rows: list[dict[str, Any]]) -> str:
    """Stores the joined rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    flowtilla.artifacts.put("table", text.getvalue(), format="csv")
    return "table"


@flowtilla.stage(timeout="2m")
def draw_chart(climate: dict[str, Any], weather: list[dict[str, Any]]) -> str:
    """Stores the picture as PNG."""
    flowtilla.artifacts.put("chart", chart.draw(climate, weather))
    return "chart"


@flowtilla.stage
def report(rows: list[dict[str, Any]], *artifacts: str) -> dict[str, Any]:
    """Returns the run's result: the table, and the names of what was stored."""
    print(f"{len(rows)} months joined; stored {', '.join(artifacts)}")
    return {"rows": rows, "artifacts": list(artifacts)}
