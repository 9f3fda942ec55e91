"""Sequences: one simulated place at one or several dates, as every sensor sees it, with its truth."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np
import xarray as xr

from glaciercube.errors import require
from glaciercube.simulate.acquisition import (
    YEARS,
    draw_beyond_edge,
    draw_cover,
    draw_day,
    draw_latitude,
    draw_sun,
)
from glaciercube.simulate.coherence import CONTRAST
from glaciercube.simulate.dem import stale_dem
from glaciercube.simulate.families import FAMILIES, Light
from glaciercube.simulate.landscape import EARLIER, LATER, Landscape
from glaciercube.simulate.layers import draw_elevation_change, draw_velocity, flow_speed
from glaciercube.simulate.radar import Orbit
from glaciercube.simulate.spectra import BANDS, Level
from glaciercube.simulate.surface import LAND, FloatArray, IntArray, Surface

__all__ = ["GROUND_CLASSES", "SequenceOptions", "draw_sequence"]

Epoch: TypeAlias = float | Literal["first", "last"]

#: Truth of a pixel at a date, in the order of its numbers.
GROUND_CLASSES: Final = ("other", "clean_ice", "debris_covered_ice", "seasonal_snow", "water")
LAYERS: Final = ("coherence", "elevation_change", "velocity")
LOWEST_SUN = 12.0  # degrees
SMALLEST, MOST_DATES = 8, 100  # pixels a side; dates, of which a season has 145 days at most
LONGEST = 8  # years between the first and the last date, unless told otherwise


@dataclass(frozen=True)
class SequenceOptions:
    """What to hold fixed when a sequence is drawn; None means drawn.

    Attributes
    ----------
    size : int
        Rows and columns.
    resolution : float or None
        Pixel size in metres; drawn from 10 to 30 (log-uniform) if None.
    dates : int or (int, int)
        How many dates, or the least and the most.
    years : (int, int) or None
        Years of the first and the last date; if None, drawn from 2015 to 2025 and at most eight years apart. Half of
        the sequences that are drawn lie within one year.
    level : {"boa", "toa"} or None
        Level of the reflectance of all dates; a third are "toa" if None.
    cloud_cover : float or None
        Share of each date under cloud; if None, none in half of the dates and up to 0.5 in the rest.
    stale : float or None
        Age of the elevation model at the first date in years; drawn from 0 to 15 if None.
    dem_year : float, "first", "last" or None
        Year of the elevation model instead: of the first date, of the last date, or any from 20 years before the
        first on.
    loss : float or None
        Share of the ice area, 0 to 1, that goes between the first and the last date; if None, what the climate takes.
        Takes two dates or more and, unless `years` says otherwise, 6 to 12 years.
    gaps : bool
        Whether some dates have pixels without data (swath edge).
    layers : tuple of str
        Which of coherence, elevation_change and velocity to draw.
    layers_missing : float
        Share of the sequences, 0 to 1, in which a layer is missing (NaN) throughout.
    family : {"a", "b"}
        Family of generators: "b" makes its terrain, its ice and its images by other rules, so that a model that was
        trained on "a" can be tested on what it has not learned by heart.
    """

    size: int = 128
    resolution: float | None = None
    dates: int | tuple[int, int] = 1
    years: tuple[int, int] | None = None
    level: Level | None = None
    cloud_cover: float | None = None
    stale: float | None = None
    dem_year: Epoch | None = None
    loss: float | None = None
    gaps: bool = True
    layers: tuple[str, ...] = LAYERS
    layers_missing: float = 0.3
    family: str = "a"

    def __post_init__(self) -> None:
        least, most = (self.dates, self.dates) if isinstance(self.dates, int) else self.dates
        first, last = self.years or YEARS
        checks = (
            (self.size >= SMALLEST, f"size {self.size} is too small", f"give {SMALLEST} pixels or more"),
            (self.resolution is None or self.resolution > 0, f"resolution {self.resolution} is none", "give metres"),
            (
                1 <= least <= most <= MOST_DATES,
                f"dates {self.dates} are none",
                f"give 1 to {MOST_DATES}, or the least and the most",
            ),
            (1900 <= first <= last <= 2100, f"years {first} to {last} are none", "give the first and the last"),
            (self.level in (None, "boa", "toa"), f"there is no level {self.level!r}", "give boa or toa"),
            (_is_share(self.cloud_cover), f"cloud_cover {self.cloud_cover} is not a share", "give 0 to 1"),
            (
                self.stale is None or 0 <= self.stale <= EARLIER,
                f"an elevation model that is {self.stale} years old is out of range",
                f"give stale 0 to {EARLIER}",
            ),
            (_is_share(self.loss), f"loss {self.loss} is not a share", "give 0 to 1"),
            (
                self.loss is None or (least > 1 and (self.years is None or first < last)),
                "nothing can be lost at one date or within one year",
                "give 2 dates or more of several years, or no loss",
            ),
            (
                set(self.layers) <= set(LAYERS),
                f"layers {list(self.layers)} are none",
                f"choose among {', '.join(LAYERS)}",
            ),
            (_is_share(self.layers_missing), f"layers_missing {self.layers_missing} is not a share", "give 0 to 1"),
            (self.family in FAMILIES, f"there is no family {self.family!r}", f"give {' or '.join(FAMILIES)}"),
        )
        for fine, problem, remedy in checks:
            require(fine, f"simulated sequence: {problem}", remedy)
        self._check_dem_year()

    def _check_dem_year(self) -> None:
        year, earliest = self.dem_year, (self.years or YEARS)[0] - EARLIER
        require(
            year in (None, "first", "last") or (isinstance(year, int | float) and year >= earliest),
            f"simulated sequence: the elevation model of {year} is out of range",
            f"give dem_year {earliest} or later, first or last",
        )


def _is_share(value: float | None) -> bool:
    return value is None or 0 <= value <= 1


@dataclass(frozen=True)
class _Plan:
    """What holds for all dates of a sequence; contrast is that of coherence, 0 to 1."""

    latitude: float
    days: list[dt.date]
    resolution: float
    level: Level
    orbit: Orbit
    contrast: float


def draw_sequence(seed: int, options: SequenceOptions | None = None) -> xr.Dataset:
    """Draw a simulated place at its dates: inputs as a user would have them, and the truth.

    Parameters
    ----------
    seed : int
        The same seed and options give the same sequence.
    options : SequenceOptions, optional
        What to hold fixed.

    Returns
    -------
    xarray.Dataset
        Dimensions (time, y, x), coordinates `time`, and `y`, `x` in metres (y falls). Inputs: `blue green red nir
        swir16 swir22` float32 reflectance (NaN: no data), `scl` uint8 (0: no data), `vv vh` float32 linear gamma
        nought (NaN: no data), all (time, y, x); `elevation` (y, x) float32 metres, of the year `dem_year`, with the
        ice of that year; `coherence` (time, y, x) float32, 0 to 1, `elevation_change` and `velocity` (y, x) float32
        metres a year, NaN where missing. Truth: `ground` (time, y, x) uint8 by `GROUND_CLASSES` (snow on a glacier is
        clean ice), `cloud`, `cloud_shadow`, `cast_shadow` (time, y, x) bool, `glaciers` (y, x) int32, the glacier that
        a pixel belongs to at the first date, 0 for none. On time: `sun_azimuth`, `sun_elevation` (degrees). Attributes:
        `level`, `resolution` (metres), `seed`, `latitude`, `longitude` (degrees), `orbit`, `dem_year`, `family`,
        `loss` (share of the ice area of the first date that is gone by the last).
    """
    options = options or SequenceOptions()
    rng = np.random.default_rng([seed, 51])
    plan = _plan(rng, options)
    first, last = plan.days[0].year, plan.days[-1].year
    family = FAMILIES[options.family]
    shape = (options.size, options.size)
    landscape = family.landscape(seed, shape, plan.resolution, years=(first, last), latitude=plan.latitude)
    if options.loss is not None:
        landscape = _lose(landscape, options.loss)
    dates = [_date(rng, landscape, plan, options, number) for number in range(len(plan.days))]
    scene = xr.concat(dates, xr.DataArray(_times(rng, plan.days), dims="time", name="time"), combine_attrs="drop")
    epoch = _epoch(rng, options, first, last)
    elevation = stale_dem(landscape, epoch, rng) + np.float32(rng.normal(0, 2))
    ice = [int(landscape.ice(year).sum()) for year in (first, last)]
    scene = scene.assign(elevation=(("y", "x"), elevation), glaciers=(("y", "x"), landscape.glaciers(first)))
    scene = scene.assign(_static_layers(landscape, options))
    scene.attrs = {
        "level": plan.level,
        "resolution": plan.resolution,
        "seed": seed,
        "latitude": plan.latitude,
        "longitude": float(rng.uniform(-180, 180)),
        "orbit": plan.orbit,
        "dem_year": epoch,
        "family": options.family,
        "loss": 1 - ice[1] / ice[0] if ice[0] else 0.0,
    }
    return _described(scene, plan.resolution)


def _plan(rng: np.random.Generator, options: SequenceOptions) -> _Plan:
    resolution = options.resolution or float(np.exp(rng.uniform(np.log(10), np.log(30))))
    latitude = draw_latitude(rng)
    least, most = (options.dates, options.dates) if isinstance(options.dates, int) else options.dates
    count = int(rng.integers(least, most + 1))
    years = options.years or _draw_years(rng, count, options.loss is not None)
    numbers = np.sort(rng.integers(years[0], years[1] + 1, count))
    numbers[0] = years[0]
    if count > 1:
        numbers[-1] = years[1]
    return _Plan(
        latitude=latitude,
        days=sorted(_draw_distinct(rng, latitude, [int(number) for number in numbers])),
        resolution=resolution,
        level=options.level or ("toa" if rng.uniform() < 1 / 3 else "boa"),
        orbit="ascending" if rng.uniform() < 0.5 else "descending",
        contrast=float(np.clip(rng.normal(*CONTRAST), 0, 1)),
    )


def _draw_years(rng: np.random.Generator, count: int, retreat: bool) -> tuple[int, int]:
    """Years of the first and the last date."""
    span = int(rng.integers(6, 13)) if retreat else int(rng.integers(1, LONGEST + 1)) * int(rng.uniform() < 0.5)
    span = min(span, YEARS[1] - YEARS[0]) if count > 1 else 0
    first = int(rng.integers(YEARS[0], YEARS[1] - span + 1))
    return first, first + span


def _draw_distinct(rng: np.random.Generator, latitude: float, years: list[int]) -> list[dt.date]:
    """Days of the years, no two the same."""
    days: list[dt.date] = []
    for year in years:
        day = draw_day(rng, latitude, year)
        while day in days:
            day = draw_day(rng, latitude, year)
        days.append(day)
    return days


def _times(rng: np.random.Generator, days: list[dt.date]) -> list[np.datetime64]:
    """Mid-morning of the days."""
    return [np.datetime64(day, "s") + np.timedelta64(int(rng.uniform(9.5, 11.5) * 3600), "s") for day in days]


def _epoch(rng: np.random.Generator, options: SequenceOptions, first: int, last: int) -> float:
    """Year of the elevation model."""
    age = float(rng.uniform(0, 15)) if options.stale is None else options.stale
    if options.dem_year is None:
        return first - age
    return float({"first": first, "last": last}.get(str(options.dem_year), options.dem_year))


def _lose(landscape: Landscape, share: float) -> Landscape:
    """Let a share of the ice area go between the first and the last year, evenly in time."""
    first, last = landscape.years
    before = landscape.progress[: EARLIER + 1]
    count = last - first + EARLIER + LATER + 1

    def until(end: float) -> Landscape:
        grown = np.linspace(before[-1], end, last - first + 1)
        progress = np.concatenate([before[:-1], grown, np.full(LATER, end)])[:count]
        return replace(landscape, progress=progress)

    wanted = (1 - share) * int(landscape.ice(first).sum())
    low, high = float(before[-1]), float(before[-1]) + 8.0
    for _ in range(18):
        middle = (low + high) / 2
        low, high = (middle, high) if int(until(middle).ice(last).sum()) > wanted else (low, middle)
    # Patches under 0.03 km2 go at once, so that the area falls in steps.
    return min((until(low), until(high)), key=lambda state: abs(int(state.ice(last).sum()) - wanted))


def _date(
    rng: np.random.Generator, landscape: Landscape, plan: _Plan, options: SequenceOptions, number: int
) -> xr.Dataset:
    """One date: (y, x)."""
    when = plan.days[number]
    seed = int(np.random.default_rng([landscape.seed, 52, number]).integers(2**31))
    sun = draw_sun(rng, plan.latitude, when)
    if rng.uniform() < 0.2:  # long shadows
        sun = (sun[0], max(LOWEST_SUN, sun[1] - float(rng.uniform(0, 20))))
    cover = draw_cover(rng) if options.cloud_cover is None else options.cloud_cover
    surface = landscape.surface(when)
    light: Light = {"sun_azimuth": sun[0], "sun_elevation": sun[1]}
    family, keys = FAMILIES[options.family], (seed, landscape.seed)
    optical = family.optical(surface, light, plan.level, *keys)
    scene = family.clouds(optical, light, plan.level, cover, seed)
    radar = family.radar(surface, plan.orbit, *keys)
    scene = scene.assign(vv=radar["vv"], vh=radar["vh"], ground=(("y", "x"), _ground(surface)))
    if "coherence" in options.layers:
        speed = flow_speed(landscape.thickness(when.year), surface.elevation, plan.resolution)
        pair = family.coherence(surface, speed, optical, plan.contrast, *keys)
        missing = _layer_missing(landscape.seed, "coherence", options) or _layer_missing(seed, "pair", options)
        scene = scene.assign(coherence=(("y", "x"), np.full_like(pair, np.nan) if missing else pair))
    if options.gaps:
        scene = _with_gaps(rng, scene)
    return scene.assign(sun_azimuth=sun[0], sun_elevation=sun[1])


def _layer_missing(seed: int, name: str, options: SequenceOptions) -> bool:
    rng = np.random.default_rng([seed, 53, *name.encode()])
    return bool(rng.uniform() < options.layers_missing)


def _static_layers(landscape: Landscape, options: SequenceOptions) -> dict[str, tuple[tuple[str, str], FloatArray]]:
    rng = np.random.default_rng([landscape.seed, 54])
    drawn = {"elevation_change": draw_elevation_change(rng, landscape), "velocity": draw_velocity(rng, landscape)}
    gone = {name: np.float32(np.nan if _layer_missing(landscape.seed, name, options) else 0) for name in drawn}
    return {name: (("y", "x"), value + gone[name]) for name, value in drawn.items() if name in options.layers}


def _ground(surface: Surface) -> IntArray:
    """Class of the larger part of each pixel, by `GROUND_CLASSES`: (y, x) uint8."""
    out = np.where(surface.snow > 0.5, 3, 0)
    out = np.where(surface.ice, np.where(surface.debris > 0.5, 2, 1), out)
    return np.where(surface.water != LAND, 4, out).astype(np.uint8)


def _with_gaps(rng: np.random.Generator, scene: xr.Dataset) -> xr.Dataset:
    """Cut the optical bands off at one date of eight, and the radar's at one of twelve."""
    shape = scene["scl"].shape
    for share, names in ((1 / 8, BANDS), (1 / 12, ("vv", "vh"))):
        if rng.uniform() < share:
            beyond = draw_beyond_edge(rng, shape)
            scene = scene.assign({name: (("y", "x"), np.where(beyond, np.nan, scene[name])) for name in names})
            if "blue" in names:
                scene["scl"] = (("y", "x"), np.where(beyond, 0, scene["scl"]).astype(np.uint8))
    return scene


def _described(scene: xr.Dataset, resolution: float) -> xr.Dataset:
    """Add coordinates, units and the meaning of the flags."""
    rows, cols = scene["glaciers"].shape
    y = (rows - np.arange(rows) - 0.5) * resolution
    x = (np.arange(cols) + 0.5) * resolution
    scene = scene.assign_coords(y=("y", y, {"units": "m"}), x=("x", x, {"units": "m"}))
    scene = scene.set_coords(["sun_azimuth", "sun_elevation"])
    scene["elevation"].attrs["units"] = "m"
    scene["ground"].attrs = {
        "flag_values": np.arange(len(GROUND_CLASSES), dtype=np.uint8),
        "flag_meanings": " ".join(GROUND_CLASSES),
    }
    return scene
