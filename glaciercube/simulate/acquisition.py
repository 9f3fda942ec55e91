"""When and under what sun and sky a simulated image is taken."""

from __future__ import annotations

import datetime as dt

import numpy as np

from glaciercube.region.sun import sun_position
from glaciercube.simulate.surface import BoolArray

__all__ = ["YEARS", "draw_beyond_edge", "draw_cover", "draw_day", "draw_latitude", "draw_sun"]

YEARS = (2015, 2025)


def draw_latitude(rng: np.random.Generator) -> float:
    """Latitude (degrees) where glaciers are."""
    return float(rng.uniform(28, 80) if rng.uniform() < 0.7 else -rng.uniform(15, 68))


def draw_day(rng: np.random.Generator, latitude: float, year: int) -> dt.date:
    """Day of a year between early summer and the first snow, late summer the likelier."""
    first = dt.date(year, 6 if latitude > 0 else 1, 1)
    return first + dt.timedelta(days=int(145 * rng.beta(2.5, 2.2)))


def draw_sun(rng: np.random.Generator, latitude: float, when: dt.date) -> tuple[float, float]:
    """Azimuth and elevation (degrees) of the sun at the overpass; the elevation kept within 15 to 65."""
    hour = dt.timedelta(hours=float(rng.uniform(9.5, 11.5)))
    azimuth, elevation = sun_position(dt.datetime(when.year, when.month, when.day, tzinfo=dt.UTC) + hour, 0.0, latitude)
    return (azimuth + float(rng.normal(0, 5))) % 360, float(np.clip(elevation + rng.normal(0, 4), 15, 65))


def draw_cover(rng: np.random.Generator) -> float:
    """Cloud cover: none in half of the scenes, mostly little in the rest."""
    return 0.0 if rng.uniform() < 0.5 else float(0.5 * rng.beta(1, 2))


def draw_beyond_edge(rng: np.random.Generator, shape: tuple[int, ...]) -> BoolArray:
    """Pixels beyond a straight swath edge that cuts off up to a third: (y, x) bool."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-1, 1, n) for n in shape)
    across = np.cos(angle) * y[:, None] + np.sin(angle) * x[None, :]
    return np.asarray(across > np.quantile(across, rng.uniform(0.67, 0.98)), dtype=bool)
