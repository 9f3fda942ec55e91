"""A calendar of what a search found."""

from __future__ import annotations

import calendar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from glaciercube.catalog import Scenes
from glaciercube.errors import CubeError
from glaciercube.region import Region
from glaciercube.view.canvas import empty_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from glaciercube.catalog.completeness import Completeness

__all__ = ["plot_calendar"]

_STARTS: Final = np.cumsum([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])  # of the months, in a year of 366 days
_BAR: Final = 1.8  # days; thinner ones vanish
_CLOUD: Final = 34.0  # points squared, area of the marker of a scene that is all cloud
_GREY = "#6b6b6b"


def plot_calendar(scenes: Scenes, region: Region) -> Figure:
    """Draw when each sensor saw a region: a row a year, a stroke an observation, its colour the share that it covers.

    Parameters
    ----------
    scenes : Scenes
        From `glaciercube.catalog.find`.
    region : Region
        Where.

    Returns
    -------
    matplotlib Figure
        A dot on a stroke grows with the cloud cover that its scenes state; months without an observation are marked
        red, and times that were not searched are grey.

    Raises
    ------
    CubeError
        If there is nothing to draw, or matplotlib is not installed.
    """
    sensors = [name for name in scenes.sensors if not scenes.sensor(name).static]
    if not sensors:
        raise CubeError("there are no dates to draw: only surfaces that do not change", "search for another sensor too")
    report = scenes.completeness(region)
    years = sorted({int(month[:4]) for month in report.months["month"]})
    figure = empty_figure((11.0, 1.0 + len(sensors) * (0.75 + 0.42 * len(years))))
    axes = np.atleast_1d(figure.subplots(len(sensors), 1, sharex=True))
    for name, panel in zip(sensors, axes, strict=True):
        _panel(panel, name, report, years)
    _months_below(axes[-1])
    _legend(figure, axes)
    figure.suptitle(f"{region.name}: observations in {_short(scenes.source)}", fontsize=11, x=0.01, ha="left")
    return figure


def _short(source: str) -> str:
    """A catalogue's name: folders above its own say nothing."""
    return source if "://" in source else "/".join(Path(source).parts[-2:])


def _panel(axes: Axes, sensor: str, report: Completeness, years: list[int]) -> None:
    from matplotlib import colormaps

    seen = report.observations[report.observations["sensor"] == sensor]
    months = report.months[report.months["sensor"] == sensor].set_index("month")
    row = {year: index for index, year in enumerate(years)}
    axes.barh(list(row.values()), 366, height=0.86, color="#eeeeee")
    for month, found in months["observations"].items():
        year, number = map(int, str(month).split("-"))
        days = 29 if number == 2 else calendar.monthrange(year, number)[1]
        axes.barh(row[year], days, left=_STARTS[number - 1], height=0.86, color="white" if found else "#fbd9d3")
    day, line = _position(seen["time"]), [row[year] for year in pd.DatetimeIndex(seen["time"]).year]
    axes.bar(
        day, 0.78, bottom=np.array(line) - 0.39, width=_BAR, color=colormaps["YlGnBu"](seen["share"].to_numpy(float))
    )
    cloud = seen["cloud"].to_numpy(float)
    known = np.isfinite(cloud)
    if known.any():
        marker: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.6, "zorder": 3}
        axes.scatter(day[known], np.array(line)[known], s=_CLOUD * cloud[known] / 100.0, **marker)
    axes.set(ylim=(len(years) - 0.5, -0.5), xlim=(0, 366), yticks=range(len(years)), yticklabels=years)
    axes.tick_params(length=0)
    axes.set_xticks(_STARTS[1:], minor=False)
    axes.grid(axis="x", color="#bbbbbb", linewidth=0.6)
    axes.set_axisbelow(False)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{sensor}, {_counted(seen, months, report.gaps[report.gaps['sensor'] == sensor])}", fontsize=9, loc="left"
    )


def _counted(seen: pd.DataFrame, months: pd.DataFrame, gaps: pd.DataFrame) -> str:
    expected = months["expected"].sum(min_count=len(months))
    passes = "" if np.isnan(expected) else f" of {expected:.0f} expected passes"
    gap = gaps.iloc[0]
    return (
        f"{len(seen)} observations{passes}, {seen['share'].mean():.0%} of the region on average, "
        f"longest gap {gap['days']:.0f} days from {gap['first']:%Y-%m-%d}"
    )


def _position(times: pd.Series[pd.Timestamp]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Place in a year of 366 days, so that a date is at the same place in every year."""
    index = pd.DatetimeIndex(times)
    return np.asarray(_STARTS[index.month - 1] + index.day - 0.5, dtype=float)


def _months_below(axes: Axes) -> None:
    axes.set_xticklabels([])
    for start, name in zip(_STARTS, calendar.month_abbr[1:], strict=True):
        axes.annotate(
            name, (start + 15, 0), xycoords=("data", "axes fraction"), xytext=(0, -4), textcoords="offset points",
            ha="center", va="top", fontsize=9, color=_GREY,
        )  # fmt: skip


def _legend(figure: Figure, axes: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bar = figure.colorbar(ScalarMappable(Normalize(0, 100), "YlGnBu"), ax=list(axes), pad=0.01, aspect=18, shrink=0.9)
    bar.set_label("share of the region (%)", fontsize=9)
    bar.outline.set_visible(False)
    dot: dict[str, Any] = {"marker": "o", "color": "none", "markerfacecolor": "white", "markeredgecolor": "black"}
    handles: list[Any] = [
        Line2D([], [], markersize=float(np.sqrt(_CLOUD * cover / 100.0)), label=f"{cover} % cloud", **dot)
        for cover in (20, 60, 100)
    ]
    handles += [Patch(color="#fbd9d3", label="month without any"), Patch(color="#eeeeee", label="not searched")]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
