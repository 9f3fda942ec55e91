"""Interferometric coherence of a pair of radar images twelve days apart: what moves, melts or grows loses it.

What real pairs show of ice differs as much as it can. With Sentinel-1 alone, coherence parts glaciers, debris-covered
tongues among them, from the ground around them with an error of 0.5 % (Lippl et al. 2018, doi:10.1017/jog.2018.70); it
tells debris-covered ice where backscatter does not (Yao et al. 2022, doi:10.3390/rs14091980); and in the one undated
band of six tiles of the western Himalaya (doi:10.3390/rs14061352) it parts nothing from anything, snow from rock as
little as debris from rock. So most pairs show ice more or less, and `LOST` of them nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from scipy import ndimage

from glaciercube.simulate.surface import LAND, FloatArray, Surface
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["CONTRAST", "LOST", "MOST_CONTRAST", "draw_coherence"]

#: How far clean ice lies below rock in the coherence of a pixel, in the standard deviations of rock, at most.
MOST_CONTRAST: Final = 4.0
CONTRAST: Final = (0.55, 0.3)  # share of `MOST_CONTRAST`: mean and standard deviation over places
LOST: Final = 0.3  # share of the pairs in which snowfall, thaw or a long baseline took all coherence
_STAGNANT = 8.0  # m/year, 0.26 m in 12 days: five wavelengths


def draw_coherence(
    surface: Surface, speed: FloatArray, optical: xr.Dataset, contrast: float, seed: int, ground_seed: int
) -> FloatArray:
    """Coherence of one pair of the first family.

    Ice that moves or melts, plants, water and snow that changed in between lose it; bare rock keeps it, and debris on
    ice that hardly moves keeps a third of what clean ice loses. All of it scatters by the few looks and by the ground's
    own texture.

    Parameters
    ----------
    surface : Surface
        State of the ground.
    speed : (y, x) float32
        Of the ice, metres a year.
    optical : xarray.Dataset
        Bands of the same date without cloud; plants are seen by them.
    contrast : float
        How well pairs of the place show its ice, 0 to 1.
    seed, ground_seed : int
        Of the pair, and of the ground's texture.

    Returns
    -------
    (y, x) float32
        0 to 1.
    """
    rng, ground = np.random.default_rng([seed, 61]), np.random.default_rng([ground_seed, 62])
    shape, resolution = (surface.ice.shape[0], surface.ice.shape[1]), surface.resolution
    longest = float(np.exp(ground.uniform(np.log(250), np.log(1500))))
    texture = spectral_noise(ground, shape, resolution, longest=longest, slope=2.6)
    passing = spectral_noise(rng, shape, resolution, longest=float(rng.uniform(60, 250)), slope=2.4)
    # Of the few looks: as fine as the window of the estimate is small.
    grain = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.4, 1.8))
    noise = passing + np.float32(rng.uniform(0, 2.0) / grain.std()) * grain
    lost = bool(rng.uniform() < LOST)
    shown = float(rng.uniform(-0.1, 0.15)) if lost else contrast
    changed = min(abs(float(rng.normal(0, 1))), 1.5)  # fresh or melting snow in between
    below = MOST_CONTRAST * shown * _ice_loss(surface, speed)
    below = np.where(surface.ice, below, 0) + (0.1 if lost else 1.5) * np.float32(changed) * surface.snow
    red, nir = optical["red"].to_numpy(), optical["nir"].to_numpy()
    below = below + 1.8 * np.clip((nir - red) / (nir + red) / 0.6, 0, 1) * (surface.snow < 0.5)
    value = 0.75 * texture + 0.66 * noise - np.minimum(below, MOST_CONTRAST + 0.5)
    value = np.where(surface.water != LAND, -MOST_CONTRAST - 0.2 + 0.5 * noise, value)
    middle = rng.uniform(0.2, 0.4) if lost else rng.uniform(0.5, 0.8)
    spread = rng.uniform(0.04, 0.1) if lost else rng.uniform(0.08, 0.16)
    # An estimate of a few looks never comes down to 0 (Touzi et al. 1999, doi:10.1109/36.739146).
    least = rng.uniform(0.1, 0.25)
    return np.asarray(np.clip(np.hypot(np.maximum(middle + spread * value, 0), least), 0, 0.99), dtype=np.float32)


def _ice_loss(surface: Surface, speed: FloatArray) -> FloatArray:
    """Share of the contrast that ice shows: clean ice melts and shows all, debris by how fast it is carried."""
    moving = speed / (speed + np.float32(_STAGNANT))
    return np.asarray(1 - surface.debris * 0.35 * (1 - moving), dtype=np.float32)
