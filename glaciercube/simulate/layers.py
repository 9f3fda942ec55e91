"""Layers beside the images that hold for a place: elevation change and velocity, as coarse as they are made."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import ndimage

from glaciercube.simulate.landscape import Landscape
from glaciercube.simulate.surface import FloatArray
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["draw_elevation_change", "draw_velocity", "flow_speed"]

DEFORMATION: Final = (
    5.5e-5  # 2 A (rho g)^3 / 4 of ice at 0 degC (Cuffey & Paterson 2010, table 3.4), doubled: m^-3 a^-1
)
FASTEST: Final = 400.0  # m/year
CHANGE_PIXEL, VELOCITY_PIXEL = 100.0, 120.0  # m: Hugonnet et al. 2021 (doi:10.1038/s41586-021-03436-z), and ITS_LIVE
LEAST_TRACKED: Final = 0.4  # km2: glaciers below are often too small for feature tracking


def flow_speed(thickness: FloatArray, elevation: FloatArray, resolution: float) -> FloatArray:
    """Speed of the ice at its surface by the shallow-ice law, doubled for sliding.

    Parameters
    ----------
    thickness, elevation : (y, x) float32
        Of the ice and of its surface, metres.
    resolution : float
        Pixel size in metres.

    Returns
    -------
    (y, x) float32
        Metres a year, 0 off the ice, at most 400.
    """
    reach = 150 / resolution
    deep = ndimage.gaussian_filter(thickness, reach)
    steep = np.hypot(*np.gradient(ndimage.gaussian_filter(elevation, reach), resolution)).clip(0, 0.5)
    speed = FASTEST * np.tanh(DEFORMATION * deep**4 * steep**3 / FASTEST)
    return np.asarray(np.where(thickness > 0, speed, 0), dtype=np.float32)


def draw_elevation_change(rng: np.random.Generator, landscape: Landscape) -> FloatArray:
    """Mean elevation change over twenty years, from stereo pairs: smooth, noisy, with holes.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    landscape : Landscape
        Ground and ice.

    Returns
    -------
    (y, x) float32
        Metres a year; NaN where no pair saw the ground.
    """
    resolution = landscape.resolution
    first, last = landscape.years[0] - 18, landscape.years[0] + 2
    raw = (landscape.elevation(last) - landscape.elevation(first)) / np.float32(last - first)
    change = _tamed(rng, landscape, np.asarray(raw, dtype=np.float32))
    shape = (change.shape[0], change.shape[1])
    noise = spectral_noise(rng, shape, resolution, longest=float(rng.uniform(300, 1500)), slope=2.4)
    steep = np.hypot(*np.gradient(ndimage.gaussian_filter(landscape.bed, 50 / resolution), resolution))
    error = float(np.exp(rng.normal(np.log(0.15), 0.5))) * (0.5 + 1.2 * np.clip(steep, 0, 1.5))
    change = ndimage.gaussian_filter(change, 80 / resolution) + error * noise + rng.normal(0, 0.03)
    seen = spectral_noise(rng, shape, resolution, longest=800, slope=3.0) > -2.0 - rng.uniform(0, 2)
    coarse = _coarsen(np.where(landscape.sea, np.nan, change), CHANGE_PIXEL / resolution)
    return np.where(seen, coarse, np.nan).astype(np.float32)


def draw_velocity(rng: np.random.Generator, landscape: Landscape) -> FloatArray:
    """Speed from feature tracking: coarse, noisy, and often missing or at the noise's level on small glaciers.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    landscape : Landscape
        Ground and ice.

    Returns
    -------
    (y, x) float32
        Metres a year, never negative; NaN where nothing could be tracked.
    """
    resolution, year = landscape.resolution, landscape.years[0]
    speed = flow_speed(landscape.thickness(year), landscape.elevation(year), resolution)
    speed = np.minimum(speed * np.float32(np.exp(rng.normal(np.log(3), 0.7))), np.float32(FASTEST))
    shape = (speed.shape[0], speed.shape[1])
    glaciers = landscape.glaciers(year)
    area = np.bincount(glaciers.ravel()) * resolution**2 / 1e6
    small = (area < LEAST_TRACKED) & (rng.uniform(size=area.size) < 0.7)
    small[0] = False
    speed = np.where(small[glaciers], 0, speed)
    error = float(np.exp(rng.normal(np.log(2.5), 0.5)))
    parts = [
        ndimage.gaussian_filter(speed, 100 / resolution) * part
        + error * spectral_noise(rng, shape, resolution, longest=400, slope=1.8)
        for part in (0.8, 0.6)
    ]
    lost = spectral_noise(rng, shape, resolution, longest=900, slope=2.8) < -2.4 + rng.uniform(0, 1.6)
    coarse = _coarsen(np.hypot(*parts), VELOCITY_PIXEL / resolution)
    hidden = lost | (small[glaciers] & (rng.uniform() < 0.5))
    return np.where(hidden, np.nan, coarse).astype(np.float32)


def _tamed(rng: np.random.Generator, landscape: Landscape, change: FloatArray) -> FloatArray:
    """Bring thinning to what is measured, 0.1 to 1 m a year on average and most low down: (y, x) float32.

    Means by region of 2000 to 2019 lie between 0.2 and 1.1 m a year (Hugonnet et al. 2021, table 1).
    """
    ice = landscape.ice(landscape.years[0])
    if not ice.any():
        return change
    height = landscape.elevation(landscape.years[0])
    low, high = np.quantile(height[ice], [0.02, 0.98])
    share = np.clip(1.6 - 1.5 * (height - low) / max(float(high - low), 1.0), 0.05, 1.6).astype(np.float32)
    thinning = -float(change[ice].mean())
    wanted = float(np.clip(rng.normal(0.5, 0.3), 0.0, 1.3))
    return np.asarray(change * share * np.float32(min(1.0, wanted / max(thinning, 1e-3))), dtype=np.float32)


def _coarsen(values: FloatArray, size: float) -> FloatArray:
    """Sample at pixels of `size`, and bring it back bilinearly, as resampling to the grid does: (y, x) float32."""
    rows, cols = values.shape
    count = [max(2, int(np.ceil(n / size)) + 1) for n in (rows, cols)]
    at = np.meshgrid(*(np.minimum((np.arange(n) * size), m - 1) for n, m in zip(count, (rows, cols), strict=True)))
    coarse = ndimage.map_coordinates(np.nan_to_num(values), [at[0].T, at[1].T], order=1, mode="nearest")
    gone = ndimage.map_coordinates(np.isnan(values).astype(np.float32), [at[0].T, at[1].T], order=1, mode="nearest")
    back = np.meshgrid(np.arange(rows) / size, np.arange(cols) / size, indexing="ij")
    out = ndimage.map_coordinates(coarse, back, order=1, mode="nearest")
    return np.where(ndimage.map_coordinates(gone, back, order=1, mode="nearest") > 0.5, np.nan, out).astype(np.float32)
