"""When the satellites pass over a world."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np

from glaciercube.region.sun import sun_position
from glaciercube.simulate.radar import Orbit
from glaciercube.simulate.world import WorldOptions

__all__ = ["OpticalPass", "RadarPass", "optical_passes", "radar_passes"]

# Inclination (degrees) and mean local solar time of the equator crossing (hours): Sentinel-2 descends at 10:30,
# Sentinel-1 at 06:00 (ESA mission pages).
SENTINEL2_ORBIT = (98.62, 10.5)
SENTINEL1_ORBIT = (98.18, 6.0)
OFFSET_SINCE = dt.date(2022, 1, 25)  # baseline 04.00, the first with an offset in its numbers


@dataclass(frozen=True)
class OpticalPass:
    """One overpass of Sentinel-2.

    Attributes
    ----------
    when : datetime.datetime
        Time of sensing, UTC.
    day : datetime.date
        Date in local solar time: the one whose ground is seen.
    platform : str
        ``"A"`` or ``"B"``.
    orbit : int
        Relative orbit.
    absolute_orbit : int
        Running number.
    baseline : str
        Processing baseline, such as ``"05.11"``.
    cover : float
        Wanted cloud cover, 0 to 1.
    sun_azimuth, sun_elevation : float
        The sun in the middle of the world, degrees.
    missing : float
        Share of the world beyond the edge of the swath, 0 to 1.
    seed : int
        Seed of the scene.
    """

    when: dt.datetime
    day: dt.date
    platform: str
    orbit: int
    absolute_orbit: int
    baseline: str
    cover: float
    sun_azimuth: float
    sun_elevation: float
    missing: float
    seed: int

    @property
    def offset(self) -> float:
        """Additive offset (reflectance) that a reader has to apply: -0.1 since baseline 04.00."""
        return -0.1 if float(self.baseline) >= 4 else 0.0


@dataclass(frozen=True)
class RadarPass:
    """One overpass of Sentinel-1; fields as of `OpticalPass`.

    Attributes
    ----------
    mode : str
        ``"IW"`` or ``"EW"``.
    polarizations : tuple of str
        Such as ``("vv", "vh")`` or ``("hh",)``.
    slice_number : int
        Which slice of its datatake it is, from 1 on; 0 where the item does not say.
    """

    when: dt.datetime
    day: dt.date
    direction: Orbit
    orbit: int
    absolute_orbit: int
    seed: int
    platform: str = "A"
    mode: str = "IW"
    polarizations: tuple[str, ...] = ("vv", "vh")
    slice_number: int = 0


def optical_passes(options: WorldOptions) -> list[OpticalPass]:
    """Plan the Sentinel-2 overpasses of a world: late summer, one date a year nearly clear.

    Scenes before 2022 have baselines without offset, but for every third, which was reprocessed since; those from
    2022 on have it.
    """
    rng = np.random.default_rng([options.seed, 3])
    passes: list[OpticalPass] = []
    for year in options.years:
        clear = int(rng.integers(options.dates_per_year))
        for number, day in enumerate(_days(rng, options, year)):
            index = len(passes)
            cover = rng.uniform(0, 0.03) if number == clear else _cover(rng, options.cloud)
            when = _sensed(day, options, SENTINEL2_ORBIT, "descending")
            azimuth, elevation = sun_position(when, options.longitude, options.latitude)
            missing = rng.uniform(0.05, 0.25) if number != clear and rng.random() < 0.25 else 0.0
            passes.append(
                OpticalPass(
                    when=when,
                    day=day,
                    platform="AB"[index % 2],
                    orbit=(43, 86)[index // 2 % 2],
                    absolute_orbit=12000 + (day - dt.date(2018, 1, 1)).days * 143 // 10,
                    baseline=_baseline(day, index),
                    cover=float(cover),
                    sun_azimuth=azimuth,
                    sun_elevation=elevation,
                    missing=float(missing),
                    seed=int(rng.integers(2**31)),
                )
            )
    return passes


def radar_passes(options: WorldOptions) -> list[RadarPass]:
    """Plan the Sentinel-1 overpasses: one within three days of each of Sentinel-2's, by turns on both passes."""
    rng = np.random.default_rng([options.seed, 4])
    passes = []
    for index, optical in enumerate(optical_passes(options)):
        direction: Orbit = "ascending" if index % 2 == 0 else "descending"
        day = optical.day + dt.timedelta(days=int(rng.choice([-3, -2, -1, 1, 2, 3])))
        passes.append(
            RadarPass(
                when=_sensed(day, options, SENTINEL1_ORBIT, direction),
                day=day,
                direction=direction,
                orbit=65 if direction == "ascending" else 131,
                absolute_orbit=20000 + (day - dt.date(2018, 1, 1)).days * 146 // 10,
                seed=int(rng.integers(2**31)),
            )
        )
    return passes


def _days(rng: np.random.Generator, options: WorldOptions, year: int) -> list[dt.date]:
    """Dates of late summer: 20 July to 20 September, or 20 January to 20 March in the south."""
    start = dt.date(year, 7, 20) if options.latitude >= 0 else dt.date(year, 1, 20)
    step = 62 / options.dates_per_year
    days = (np.arange(options.dates_per_year) + rng.uniform(0.2, 0.8, options.dates_per_year)) * step
    return [start + dt.timedelta(days=int(day)) for day in days]


def _cover(rng: np.random.Generator, mean: float) -> float:
    """Draw a cloud cover about a mean, 0 to 1."""
    return float(rng.beta(3 * mean, 3 * (1 - mean))) if 0 < mean < 1 else mean


def _baseline(day: dt.date, index: int) -> str:
    """Processing baseline of a scene that was seen on a day."""
    if day < OFFSET_SINCE:
        return "05.00" if index % 3 == 2 else "02.12"
    return ("04.00", "05.09")[index % 2] if day.year < 2024 else ("05.10", "05.11")[index % 2]


def _sensed(day: dt.date, options: WorldOptions, satellite: tuple[float, float], direction: Orbit) -> dt.datetime:
    """Time (UTC) at which a sun-synchronous satellite passes a place on a day of local solar time."""
    inclination, crossing = satellite
    # Nearer to a pole than its track comes, a satellite sees a place sideways from where it turns.
    turn = np.tan(np.radians(options.latitude)) / np.tan(np.radians(inclination))
    away = np.arcsin(np.clip(turn, -1, 1)) * 12 / np.pi
    local = crossing - away if direction == "descending" else (crossing + 12) % 24 + away
    midnight = dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
    return midnight + dt.timedelta(seconds=round(3600 * (local - options.longitude / 15)))
