"""Which acquisitions make which row of the time axis; decided from what is known before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from glaciercube.cube.masks import MaskOptions
from glaciercube.cube.passes import Pass, choose_companion, choose_track
from glaciercube.errors import CubeError, require

__all__ = ["ComposeOptions", "Row", "Times", "schedule"]

Times: TypeAlias = npt.NDArray[np.datetime64]
Shares: TypeAlias = Mapping[str, npt.NDArray[np.floating[Any]]]
Passes: TypeAlias = Mapping[str, Sequence[Pass]]

# pandas frequency of the start of each window; seasons are meteorological, December first.
_WINDOWS = {"month": "MS", "season": "QS-DEC", "year": "YS"}


@dataclass(frozen=True)
class ComposeOptions:
    """How sensors meet.

    Attributes
    ----------
    every : str
        ``"observation"``: the dates of the leading sensor (Sentinel-2, else Sentinel-1); ``"month"``, ``"season"``,
        ``"year"``: the median of clear pixels in calendar windows (a southern ablation season falls into two years).
        Radar in a window is of one track (relative orbit, direction, mode and co-polarised band): ascending and
        descending passes see a slope from two sides, and their median is neither. It is chosen window by window, since
        old rows must not change with new dates, by what `glaciercube.cube.passes.choose_track` says; the filter
        ``orbit`` of `SensorOptions` forces one for all windows.
    max_age : float
        Days; in ``observation``, a companion further away in time than this is not used. The nearest in time is taken,
        but for radar VV goes before HH, and a pair of polarisations before a single one
        (`glaciercube.cube.passes.choose_companion`).
    min_coverage : float
        Share of the region, 0 to 1. A companion whose footprint covers less is passed over where another within
        `max_age` covers as much; where none does, the nearest is taken all the same. In windows, passes that cover
        less do not count in the choice of a track.
    mask : MaskOptions
        What counts as hidden by cloud.
    """

    every: Literal["observation", "month", "season", "year"] = "observation"
    max_age: float = 30.0
    min_coverage: float = 0.5
    mask: MaskOptions = field(default_factory=MaskOptions)

    def __post_init__(self) -> None:
        require(self.max_age >= 0, f"max_age {self.max_age} is not a number of days", "give 0 or more")
        fine = 0 <= self.min_coverage <= 1
        require(fine, f"min_coverage {self.min_coverage} is not a share", "give 0 to 1")


@dataclass(frozen=True)
class Row:
    """One step of the time axis.

    Attributes
    ----------
    time : numpy.datetime64
        Acquisition of the leading sensor, or the start of the window.
    end : numpy.datetime64 or None
        End of the window; None on observations.
    members : mapping
        Node name -> acquisitions that it is made of.
    """

    time: np.datetime64
    end: np.datetime64 | None
    members: Mapping[str, tuple[np.datetime64, ...]]

    def age(self, companion: str, leading: str) -> float:
        """Days from the leading sensor's mean acquisition to the companion's; NaN where one is missing."""
        if not self.members.get(companion) or not self.members.get(leading):
            return float("nan")
        means = [pd.DatetimeIndex(list(self.members[name])).mean() for name in (companion, leading)]
        return float((means[0] - means[1]) / pd.Timedelta(days=1))


def schedule(
    axes: Mapping[str, Times],
    options: ComposeOptions,
    coverage: Shares | None = None,
    passes: Passes | None = None,
) -> list[Row]:
    """Lay the acquisitions of several sensors on one time axis.

    Parameters
    ----------
    axes : mapping
        Node name -> acquisition times (datetime64, ascending); the first leads.
    options : ComposeOptions
        How they meet.
    coverage : mapping or None
        Node name -> share of the region that each acquisition covers (`glaciercube.cube.coverage`); what is not known
        counts as all of it.
    passes : mapping or None
        Node name -> what each acquisition is comparable by, for radar (`glaciercube.cube.passes`).

    Returns
    -------
    list of Row
        Ascending in time.

    Raises
    ------
    CubeError
        If the option is unknown or there is no time at all.
    """
    if options.every != "observation" and options.every not in _WINDOWS:
        raise CubeError(f"cannot compose on {options.every!r}", "choose observation, month, season or year")
    if not axes or not any(len(times) for times in axes.values()):
        raise CubeError("there is no acquisition to compose", "load at least one sensor")
    if options.every == "observation":
        return _observations(axes, options, coverage or {}, passes or {})
    return _windows(axes, options, coverage or {}, passes or {})


def _observations(axes: Mapping[str, Times], options: ComposeOptions, coverage: Shares, passes: Passes) -> list[Row]:
    leading, *companions = axes
    covers = _covers(axes, options, coverage)
    rows = []
    for time in axes[leading]:
        members: dict[str, tuple[np.datetime64, ...]] = {leading: (time,)}
        for name in companions:
            days = np.abs((axes[name] - time) / np.timedelta64(1, "D"))
            within = np.flatnonzero(days <= options.max_age)
            if within.size:
                members[name] = (axes[name][choose_companion(within, days, covers[name], passes.get(name, ()))],)
        rows.append(Row(time, None, members))
    return rows


def _windows(axes: Mapping[str, Times], options: ComposeOptions, coverage: Shares, passes: Passes) -> list[Row]:
    offset: Any = pd.tseries.frequencies.to_offset(_WINDOWS[options.every])
    starts = {name: _starts(times, offset) for name, times in axes.items()}
    covers = _covers(axes, options, coverage)
    leading = next(iter(axes))
    rows = []
    for window in np.unique(np.concatenate(list(starts.values()))):
        inside = {name: np.flatnonzero(starts[name] == window) for name in axes}
        # The mean date that ties are settled by is that of another sensor.
        near = pd.DatetimeIndex(axes[leading][inside[leading]]).mean() if inside[leading].size else None
        for name in set(passes) & {name for name in axes if inside[name].size}:
            own = inside[name]
            seen = [passes[name][int(index)] for index in own]
            chosen = choose_track(axes[name][own], seen, covers[name][own], None if name == leading else near)
            inside[name] = own[chosen]
        members = {name: tuple(axes[name][own]) for name, own in inside.items() if own.size}
        end = (pd.Timestamp(window) + offset).to_datetime64().astype(window.dtype)
        rows.append(Row(window, end, members))
    return rows


def _covers(axes: Mapping[str, Times], options: ComposeOptions, coverage: Shares) -> dict[str, npt.NDArray[np.bool_]]:
    """Whether each acquisition covers enough of the region."""
    return {name: coverage.get(name, np.ones(len(times))) >= options.min_coverage for name, times in axes.items()}


def _starts(times: Times, offset: Any) -> Times:
    days = [pd.Timestamp(time).normalize() for time in times]
    return pd.DatetimeIndex([offset.rollback(day) for day in days]).to_numpy().astype(times.dtype)
