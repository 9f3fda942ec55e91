"""What a search should have found and what it found: dates, coverage of the region, gaps."""

from __future__ import annotations

import calendar
import itertools
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from shapely.geometry.base import BaseGeometry

from glaciercube.catalog.coverage import shares
from glaciercube.catalog.interval import parse_interval
from glaciercube.catalog.revisit import expected_passes
from glaciercube.region import Region

if TYPE_CHECKING:
    from glaciercube.catalog.scenes import Scenes

__all__ = ["Completeness", "completeness"]

_RELATIVE_ORBIT = re.compile(r"_R(\d{3})_")


@dataclass(frozen=True)
class Completeness:
    """What is there, and what was to be expected.

    Attributes
    ----------
    observations : DataFrame
        A row per observation: ``sensor``, ``collection``, ``group``, ``time`` (UTC), ``solar_day``, ``scenes``,
        ``share`` (0 to 1, of the region's grid within its footprints), ``cloud`` (percent, mean of what its scenes say
        of themselves; NaN if they do not), ``platform`` and ``relative_orbit`` (None if they do not say).
    months : DataFrame
        A row per sensor and month of the interval: ``sensor``, ``month`` (``YYYY-MM``), ``observations``, ``expected``
        (passes, see `glaciercube.catalog.revisit.expected_passes`; NaN if unknown), ``share`` (mean; NaN where there is
        no observation).
    gaps : DataFrame
        The longest times without an observation, the ends of the interval included: ``sensor``, ``first``, ``last``,
        ``days``; at most five of a sensor.
    left_out : DataFrame
        ``sensor``, ``reason`` (of the first of its kind), ``scenes``.
    """

    observations: pd.DataFrame
    months: pd.DataFrame
    gaps: pd.DataFrame
    left_out: pd.DataFrame

    def __str__(self) -> str:
        parts = [self._of(str(sensor)) for sensor in self.observations["sensor"].drop_duplicates()]
        return "\n\n".join(parts + ([self._left()] if len(self.left_out) else []))

    def _of(self, sensor: str) -> str:
        seen = self.observations[self.observations["sensor"] == sensor]
        names = ", ".join(seen["collection"].drop_duplicates())
        months = self.months[self.months["sensor"] == sensor]
        if not len(months):  # a surface that does not change
            return f"{sensor} ({names}): {seen['scenes'].sum()} tiles over {seen['share'].max():.0%} of the region"
        heading = (
            f"{sensor} ({names}): {len(seen)} observations of {seen['scenes'].sum()} scenes, "
            f"over {seen['share'].mean():.0%} of the region on average"
        )
        lines = [heading, *_by_year(months)]
        if months["expected"].notna().any():
            lines.append("observations/passes expected of the relative orbits that were found")
        gaps = self.gaps[self.gaps["sensor"] == sensor]
        told = [f"{gap.first:%Y-%m-%d} to {gap.last:%Y-%m-%d} ({gap.days:.0f} days)" for gap in gaps[:3].itertuples()]
        lines.append(f"longest gaps: {'; '.join(told)}")
        none = list(months.loc[months["observations"] == 0, "month"])
        if none:
            lines.append(f"{len(none)} of {len(months)} months without an observation")
        return "\n".join(lines)

    def _left(self) -> str:
        return "\n".join(
            f"{row['scenes']} scene{'s' if row['scenes'] > 1 else ''} left out: {row['reason']} ({row['sensor']})"
            for row in self.left_out.to_dict("records")
        )


def _by_year(months: pd.DataFrame) -> list[str]:
    """A line a year, a column a month: observations, and after a stroke what was expected."""
    cells: dict[str, dict[int, str]] = {}
    for row in months.to_dict("records"):
        year, month = row["month"].split("-")
        expected = "" if math.isnan(row["expected"]) else f"/{row['expected']:.0f}"
        cells.setdefault(year, {})[int(month)] = f"{row['observations']}{expected}"
    width = max([len(cell) for line in cells.values() for cell in line.values()] + [3]) + 1
    lines = ["    " + "".join(name.rjust(width) for name in calendar.month_abbr[1:])]
    lines += [
        year + "".join(line.get(month, "").rjust(width) for month in range(1, 13)) for year, line in cells.items()
    ]
    return [line.rstrip() for line in lines]


def completeness(scenes: Scenes, region: Region) -> Completeness:
    """Compare what was found with what was to be expected.

    Parameters
    ----------
    scenes : Scenes
        From `glaciercube.catalog.find`.
    region : Region
        Where; coverage is measured in its CRS.

    Returns
    -------
    Completeness
        Months and gaps are those of the interval that was searched, else of the time from the first scene to the last.
    """
    observations = _observations(scenes, region)
    timed = [name for name in scenes.sensors if not scenes.sensor(name).static]
    months, gaps = [], []
    for name in timed:
        seen = observations[observations["sensor"] == name]
        begin, end = _span(scenes.interval, seen["time"])
        months += _months(name, seen, begin, end)
        gaps += _gaps(name, seen["time"], begin, end)
    return Completeness(
        observations,
        pd.DataFrame(months, columns=["sensor", "month", "observations", "expected", "share"]),
        pd.DataFrame(gaps, columns=["sensor", "first", "last", "days"]),
        _reasons(scenes.left_out),
    )


def _observations(scenes: Scenes, region: Region) -> pd.DataFrame:
    table = scenes.table
    facts = [
        _facts(json.loads(item), json.loads(notes)) for item, notes in zip(table["item"], table["notes"], strict=True)
    ]
    frame = pd.DataFrame(table.drop(columns=["geometry", "item", "notes", "bands"]))
    frame[["platform", "relative_orbit", "cloud"]] = pd.DataFrame(facts, index=frame.index, dtype=object)
    frame["cloud"] = pd.to_numeric(frame["cloud"])
    groups = frame.groupby(["sensor", "group"], sort=False)
    seen = groups.agg(
        collection=("collection", lambda names: ", ".join(dict.fromkeys(names))),
        time=("time", "first"),
        solar_day=("solar_day", "first"),
        scenes=("id", "size"),
        cloud=("cloud", "mean"),
        # The first as it stands: pandas' own "first" goes on to the next that is not missing.
        platform=("platform", lambda values: values.iloc[0]),
        relative_orbit=("relative_orbit", lambda values: values.iloc[0]),
    ).reset_index()
    number = groups.ngroup().to_numpy()
    footprints: list[list[BaseGeometry]] = [[] for _ in range(len(seen))]
    for index, footprint in zip(number, table["geometry"], strict=True):
        footprints[index].append(footprint)
    return seen.assign(share=shares(footprints, region))


def _facts(item: dict[str, Any], notes: dict[str, Any]) -> tuple[str | None, int | None, float | None]:
    """Platform, relative orbit and cloud cover of a scene, as far as it says."""
    properties = item["properties"]
    platform = notes.get("platform") or properties.get("platform")
    orbit = properties.get("sat:relative_orbit")
    if orbit is None:
        # Earth Search names it in the product only.
        named = _RELATIVE_ORBIT.search(str(properties.get("s2:product_uri", item["id"])))
        orbit = named.group(1) if named else None
    return (
        str(platform).lower() if platform else None,
        None if orbit is None else int(orbit),
        properties.get("eo:cloud_cover"),
    )


def _span(interval: str, times: pd.Series[pd.Timestamp]) -> tuple[pd.Timestamp, pd.Timestamp]:
    begin, end = parse_interval(interval) if interval else (None, None)
    first = pd.Timestamp(begin).tz_localize(None) if begin else times.min()
    last = pd.Timestamp(end).tz_localize(None) if end else times.max()
    return first, last


def _months(sensor: str, seen: pd.DataFrame, begin: pd.Timestamp, end: pd.Timestamp) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for period in pd.period_range(begin, end, freq="M"):
        first, last = max(period.start_time, begin), min(period.end_time, end)
        within = seen[(seen["time"] >= first) & (seen["time"] <= last)]
        share = float(within["share"].mean()) if len(within) else math.nan
        rows.append([sensor, str(period), len(within), expected_passes(sensor, seen, first, last), share])
    return rows


def _gaps(sensor: str, times: pd.Series[pd.Timestamp], begin: pd.Timestamp, end: pd.Timestamp) -> list[list[Any]]:
    moments = sorted({begin, end, *times})
    longest = sorted(itertools.pairwise(moments), key=lambda span: span[0] - span[1])[:5]
    return [[sensor, first, last, (last - first) / pd.Timedelta(days=1)] for first, last in longest]


def _reasons(left_out: pd.DataFrame) -> pd.DataFrame:
    # Reasons that differ in numbers and names only are one.
    kinds = left_out["reason"].str.replace(r"\S*\d\S*", "#", regex=True)
    grouped = left_out.assign(kind=kinds).groupby(["sensor", "kind"], sort=True)
    return grouped.agg(reason=("reason", "first"), scenes=("id", "size")).reset_index()[["sensor", "reason", "scenes"]]
