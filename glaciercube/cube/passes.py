"""What radar acquisitions are comparable by, and which of them a row is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from glaciercube.catalog import Scenes
from glaciercube.sensors.sentinel1 import CO_POLARIZED, POLARIZATIONS

__all__ = [
    "PASS_COORDS",
    "Pass",
    "choose_companion",
    "choose_track",
    "pass_table",
    "passes_of_node",
    "passes_of_scenes",
    "window_passes",
]

Times: TypeAlias = npt.NDArray[np.datetime64]

# What is known of each observation, as coordinates along time.
PASS_COORDS: Final = ("orbit_state", "relative_orbit", "platform", "instrument_mode", "polarizations", "group")


@dataclass(frozen=True)
class Pass:
    """How one radar acquisition looked at the ground; what is not known is 0 or empty.

    Attributes
    ----------
    relative_orbit : int
        1 to 175.
    orbit_state : str
        ``"ascending"`` or ``"descending"``.
    instrument_mode : str
        ``"IW"``, ``"EW"``, ...
    polarizations : str
        Such as ``"vv+vh"``.
    """

    relative_orbit: int = 0
    orbit_state: str = ""
    instrument_mode: str = ""
    polarizations: str = ""

    @property
    def track(self) -> tuple[int, str, str, str]:
        """Acquisitions of one track see the ground alike: same orbit, direction, mode and co-polarised band.

        Satellites of one mission share their orbits and their looks, so that the satellite is no part of it.
        """
        known = self.polarizations.split("+")
        lead = next((name for name in CO_POLARIZED if name in known), "")
        return (self.relative_orbit, self.orbit_state, self.instrument_mode, lead)

    @property
    def without_vv(self) -> bool:
        """Whether it is known to have no VV: HH is another quantity, and what needs VV finds nothing there."""
        return bool(self.polarizations) and "vv" not in self.polarizations.split("+")

    @property
    def single(self) -> bool:
        """Whether it is known to have one polarisation alone."""
        return bool(self.polarizations) and "+" not in self.polarizations


def pass_table(scenes: Scenes) -> pd.DataFrame:
    """What is known of each observation of Sentinel-1.

    Parameters
    ----------
    scenes : Scenes
        Of Sentinel-1 alone.

    Returns
    -------
    DataFrame
        A row per observation, by time: `PASS_COORDS`, of the first of its scenes but for ``polarizations``, which are
        those of all, and ``looks``.
    """
    table = scenes.table.drop_duplicates("time").sort_values("time")
    notes = [json.loads(text) for text in table["notes"]]
    columns: dict[str, list[Any]] = {
        name: [str(note.get(name) or "") for note in notes] for name in PASS_COORDS if name != "relative_orbit"
    }
    columns["relative_orbit"] = [int(note.get("relative_orbit") or 0) for note in notes]
    columns["group"] = list(table["group"])
    columns["looks"] = [note.get("looks") for note in notes]
    present: dict[Any, set[str]] = {}
    for time, text in zip(scenes.table["time"], scenes.table["notes"], strict=True):
        present.setdefault(time, set()).update(json.loads(text).get("polarizations") or ())
    columns["polarizations"] = [_joined(present[time]) for time in table["time"]]
    return pd.DataFrame(columns, index=pd.DatetimeIndex(table["time"]))


def passes_of_scenes(scenes: Scenes) -> tuple[Pass, ...]:
    """The passes of Sentinel-1's scenes, one per observation, ascending in time."""
    table = pass_table(scenes)
    columns = (table[name] for name in ("relative_orbit", "orbit_state", "instrument_mode", "polarizations"))
    return tuple(Pass(int(orbit), *texts) for orbit, *texts in zip(*columns, strict=True))


def passes_of_node(node: xr.Dataset) -> tuple[Pass, ...]:
    """The passes of a series along time, by its coordinates; what a tree made by hand does not say is not known."""
    count = node.sizes["time"]
    orbits = np.nan_to_num(node["relative_orbit"].to_numpy()) if _has(node, "relative_orbit") else np.zeros(count)
    texts = [
        node[name].to_numpy().astype(str) if _has(node, name) else np.full(count, "")
        for name in ("orbit_state", "instrument_mode", "polarizations")
    ]
    return tuple(Pass(int(orbit), *map(str, said)) for orbit, *said in zip(orbits, *texts, strict=True))


def choose_companion(
    candidates: npt.NDArray[np.integer[Any]],
    days: npt.NDArray[np.floating[Any]],
    covers: npt.NDArray[np.bool_],
    passes: Sequence[Pass],
) -> int:
    """The acquisition that stands beside an observation, whatever other observations there are.

    Parameters
    ----------
    candidates : int array
        Acquisitions that are near enough in time, ascending; at least one.
    days : array (acquisition)
        Distances in time.
    covers : bool array (acquisition)
        Whether each covers enough of the region.
    passes : sequence of Pass
        Of the acquisitions; empty where the sensor has none.

    Returns
    -------
    int
        Of the candidates one that has VV, if any does; of those one that covers enough, if any does; of those one of
        both polarisations; of those the nearest in time, the earlier of two as near.
    """

    def rank(index: int) -> tuple[bool, bool, bool, float, int]:
        own = passes[index] if passes else Pass()
        return (own.without_vv, not covers[index], own.single, float(days[index]), index)

    return min(map(int, candidates), key=rank)


def choose_track(
    times: Times, passes: Sequence[Pass], covers: npt.NDArray[np.bool_], near: pd.Timestamp | None
) -> npt.NDArray[np.bool_]:
    """The acquisitions of one window that are averaged: those of one track, whatever other windows hold.

    Parameters
    ----------
    times : datetime64 array
        Acquisitions within the window.
    passes : sequence of Pass
        As many.
    covers : bool array
        As many: whether each covers enough of the region.
    near : Timestamp or None
        Mean time of the leading sensor in the window.

    Returns
    -------
    bool array
        True for the track that has VV, if any does; of those the one with most dates that cover enough, then with most
        dates at all; then the one whose mean is nearest to `near`; then the one of the smallest orbit number.
    """
    tracks: dict[tuple[int, str, str, str], list[int]] = {}
    for index, own in enumerate(passes):
        tracks.setdefault(own.track, []).append(index)

    def rank(track: tuple[int, str, str, str]) -> tuple[Any, ...]:
        own = tracks[track]
        away = abs(pd.DatetimeIndex(times[own]).mean() - near) if near is not None else pd.Timedelta(0)
        return (passes[own[0]].without_vv, -int(covers[own].sum()), -len(own), away, track)

    chosen = np.zeros(len(times), np.bool_)
    chosen[tracks[min(tracks, key=rank)]] = True
    return chosen


def window_passes(node: xr.Dataset, members: Sequence[Times]) -> dict[str, xr.DataArray]:
    """What windows say of the radar that they are made of.

    Parameters
    ----------
    node : Dataset
        The series, with its `PASS_COORDS` as far as they are known.
    members : sequence of datetime64 arrays
        Per window, the acquisitions that it is made of.

    Returns
    -------
    dict
        Coordinate name -> (time): ``orbit_state``, ``relative_orbit`` (int16, 0 where unknown or none),
        ``instrument_mode``, ``platform`` and ``polarizations`` (all of them, joined by ``+``) where they are known, and
        ``dates`` (int16), how many acquisitions entered.
    """
    times = node["time"].to_numpy()
    rows = [np.flatnonzero(np.isin(times, own)) for own in members]
    dates = np.array([len(own) for own in rows], "int16")
    found = {"dates": xr.DataArray(dates, dims="time", attrs={"long_name": "acquisitions that entered"})}
    for name in PASS_COORDS:
        if name == "group" or not _has(node, name):
            continue
        values = node[name].to_numpy()
        if name == "relative_orbit":
            said = np.array([int(np.nan_to_num(values[own[0]])) if own.size else 0 for own in rows], "int16")
        else:
            said = np.array([_joined({part for text in values[own] for part in str(text).split("+")}) for own in rows])
        found[name] = xr.DataArray(said, dims="time", attrs=node[name].attrs)
    return found


def _joined(parts: set[str]) -> str:
    order = {name: rank for rank, name in enumerate(POLARIZATIONS)}
    return "+".join(sorted(parts - {""}, key=lambda part: (order.get(part, len(order)), part)))


def _has(node: xr.Dataset, name: str) -> bool:
    return name in node.coords and node[name].dims == ("time",)
