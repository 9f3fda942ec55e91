"""Families of generators: which code draws the ground, the ice, the images and the coherence of a simulated place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypedDict

import numpy as np
import xarray as xr

from glaciercube.simulate.clouds import add_clouds
from glaciercube.simulate.coherence import draw_coherence
from glaciercube.simulate.landscape import Landscape, random_landscape
from glaciercube.simulate.optical import render_optical
from glaciercube.simulate.radar import Orbit, render_radar
from glaciercube.simulate.second import second_landscape
from glaciercube.simulate.second_sensors import (
    add_second_clouds,
    draw_second_coherence,
    render_second_optical,
    render_second_radar,
)
from glaciercube.simulate.spectra import Level
from glaciercube.simulate.surface import FloatArray, Surface
from glaciercube.simulate.wide import widen

__all__ = ["FAMILIES", "Family", "Light"]

STEADY = 0.7  # share of a class's variance that stays from date to date: rock does, grain and wetness do not
# dB between the VV of debris and of rock, as a standard deviation over scenes: at Khumbu -1.7 to 1.3 over four dates
# and three masks, but for -2.9 once (area under the curve of rock over debris 0.44 to 0.57, and 0.64).
DEBRIS_APART = 0.6


class Light(TypedDict):
    """Where the sun stands, degrees."""

    sun_azimuth: float
    sun_elevation: float


def _optical(surface: Surface, light: Light, level: Level, seed: int, ground_seed: int) -> xr.Dataset:
    return render_optical(surface, **light, level=level, seed=seed, ground_seed=ground_seed, steady=STEADY, wide=True)


def _clouds(optical: xr.Dataset, light: Light, level: Level, cover: float, seed: int) -> xr.Dataset:
    return add_clouds(optical, **light, level=level, cover=cover, seed=seed)


def _radar(surface: Surface, orbit: Orbit, seed: int, ground_seed: int) -> xr.Dataset:
    return render_radar(surface, orbit=orbit, seed=seed, ground_seed=ground_seed, debris_apart=DEBRIS_APART)


def _landscape(
    seed: int, shape: tuple[int, int], resolution: float, *, years: tuple[int, int], latitude: float
) -> Landscape:
    rng = np.random.default_rng([seed, 55])
    many = float(np.exp(rng.uniform(0, np.log(3.5))))
    dirt = float(rng.uniform(0.15, 1.0)) if rng.uniform() < 0.75 else 0.0
    plain = random_landscape(seed, shape, resolution, years=years, latitude=latitude, lakes=many, dirt=dirt)
    return widen(plain)


def _second_optical(surface: Surface, light: Light, level: Level, seed: int, ground_seed: int) -> xr.Dataset:
    return render_second_optical(surface, **light, level=level, seed=seed, ground_seed=ground_seed)


def _second_clouds(optical: xr.Dataset, light: Light, level: Level, cover: float, seed: int) -> xr.Dataset:
    del level  # their light is drawn, not computed
    return add_second_clouds(optical, **light, cover=cover, seed=seed)


def _second_radar(surface: Surface, orbit: Orbit, seed: int, ground_seed: int) -> xr.Dataset:
    return render_second_radar(surface, orbit=orbit, seed=seed, ground_seed=ground_seed)


@dataclass(frozen=True)
class Family:
    """Generators that belong together."""

    landscape: Callable[..., Landscape]
    optical: Callable[[Surface, Light, Level, int, int], xr.Dataset]
    clouds: Callable[[xr.Dataset, Light, Level, float, int], xr.Dataset]
    radar: Callable[[Surface, Orbit, int, int], xr.Dataset]
    coherence: Callable[[Surface, FloatArray, xr.Dataset, float, int, int], FloatArray]


FAMILIES: Final = {
    "a": Family(_landscape, _optical, _clouds, _radar, draw_coherence),
    "b": Family(second_landscape, _second_optical, _second_clouds, _second_radar, draw_second_coherence),
}
