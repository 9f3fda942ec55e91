"""What Sentinel-2 sees of a surface: light, air, optics and noise."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import ndimage

from glaciercube.simulate.ground import ground_reflectance
from glaciercube.simulate.illumination import illuminate
from glaciercube.simulate.spectra import BANDS, Atmosphere, Level, draw_atmosphere
from glaciercube.simulate.surface import LAND, FloatArray, Surface
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["LOWEST", "render_optical"]

Positions: TypeAlias = npt.NDArray[np.float64]

LOWEST: Final = 1e-4  # reflectance of one digital number: Sentinel-2 products hold no smaller valid value
# Full width at half maximum of the point spread, metres: bands of 10 m and of 20 m (modulation transfer 0.15 to 0.3 at
# Nyquist, Gascon et al. 2017, doi:10.3390/rs9060584).
FWHM: Final = {10: 13.0, 20: 24.0}
MINNAERT: Final = (0.65, 0.95)  # range of exponents found over mountains, e.g. Ge et al. 2008 (0.4 to 1)
SWIR_PIXEL = 20.0  # metres
ADJACENCY_RANGE = 500.0  # metres


def render_optical(
    surface: Surface,
    *,
    sun_azimuth: float,
    sun_elevation: float,
    level: Level,
    seed: int,
    ground_seed: int | None = None,
    steady: float = 0.0,
    wide: bool = False,
) -> xr.Dataset:
    """Render a cloud-free Sentinel-2 scene.

    Ground reflectance drawn from class statistics is lit by sun (slope, cast shadow) and sky (by band), blurred by
    the air's adjacency effect and the instrument's point spread, which mixes pixels at class borders, and at "toa"
    dimmed and veiled by the atmosphere. At "boa" a processor has tried to undo slope and air, with errors. SWIR comes
    from its own 20 m grid, a little misregistered.

    Parameters
    ----------
    surface : Surface
        State of the ground.
    sun_azimuth, sun_elevation : float
        The sun, degrees clockwise from north and above the horizon.
    level : {"boa", "toa"}
        Surface (L2A) or top-of-atmosphere (L1C) reflectance.
    seed : int
        Seed of everything that changes from scene to scene.
    ground_seed : int, optional
        Seed of rock and plants; give the same for every date of one landscape.
    steady : float
        Share of the variance within a class, 0 to 1, that stays where it is from date to date.
    wide : bool
        Whether the ground varies as widely as over many ranges, and now and then lies under haze.

    Returns
    -------
    xarray.Dataset
        Dimensions (y, x), no coordinates: `blue green red nir swir16 swir22` float32 reflectance, never below 1e-4,
        no nodata; `cast_shadow` bool, True in cast shadow and on slopes turned away from the sun. Attribute
        `resolution` in metres.
    """
    rng = np.random.default_rng([seed, 21])
    ground = ground_reflectance(surface, seed=seed, ground_seed=ground_seed, steady=steady, wide=wide)
    air = draw_atmosphere(rng, sun_elevation)
    fixed = np.random.default_rng([seed if ground_seed is None else ground_seed, 22])
    light = illuminate(
        surface.elevation,
        surface.resolution,
        sun_azimuth,
        sun_elevation,
        roughness=_roughness(surface, fixed),
        minnaert=float(rng.uniform(*MINNAERT)),
    )
    diffuse = air.diffuse[:, None, None]
    lit = ground * ((1 - diffuse) * light.direct + diffuse * light.sky)
    seen = _through_air(lit, air, surface.resolution)
    if level == "toa":
        seen = air.path[:, None, None] + air.transmission[:, None, None] * seen
    else:
        seen = _correct(seen, surface, air, (sun_azimuth, sun_elevation), rng)
    if wide:
        seen = _veil(seen, surface.resolution, seed)
    bands = _instrument(seen, surface.resolution, rng)
    data = {name: (("y", "x"), band, {"units": "1"}) for name, band in zip(BANDS, bands, strict=True)}
    return xr.Dataset({**data, "cast_shadow": (("y", "x"), light.shadow)}, attrs={"resolution": surface.resolution})


def _roughness(surface: Surface, rng: np.random.Generator) -> FloatArray:
    """Gradients (2, y, x) of relief finer than the elevation model: rough rock, smoother ice, flat water."""
    rock, ice = rng.uniform(0.05, 0.17), rng.uniform(0.01, 0.05)
    rubble = rng.uniform(0.06, 0.15)
    amount = np.where(surface.ice, ice + (rubble - ice) * surface.debris, rock) * (1 - 0.7 * surface.snow)
    amount[surface.water != LAND] = 0
    shape, resolution = surface.ice.shape, surface.resolution
    relief = spectral_noise(rng, shape, resolution, longest=float(rng.uniform(80, 250)), slope=2.6)
    south, east = np.gradient(relief)
    scale = amount / (float(south.std()) + 1e-9)
    return np.stack([south * scale, east * scale]).astype(np.float32)


def _through_air(lit: FloatArray, air: Atmosphere, resolution: float) -> FloatArray:
    """Mix in the light that the air scatters from the surroundings."""
    out = np.empty_like(lit)
    reach = max(ADJACENCY_RANGE / resolution, 1.0)
    for index, band in enumerate(lit):
        coarse = max(1, int(reach // 3))
        around = _box_mean(band, coarse)
        around = ndimage.gaussian_filter(around, reach / coarse, truncate=2, mode="nearest")
        out[index] = band + air.adjacency[index] * (_resample(around, band.shape, float(coarse)) - band)
    return out


def _veil(seen: FloatArray, resolution: float, seed: int) -> FloatArray:
    """Lay smoke or thin haze over one scene of four, unevenly."""
    rng = np.random.default_rng([seed, 23])
    if rng.uniform() > 0.25:
        return seen
    shape = (seen.shape[1], seen.shape[2])
    uneven = 1 + 0.35 * spectral_noise(rng, shape, resolution, longest=3000, slope=3.4)
    depth = rng.uniform(0, 0.25) * np.array([1.0, 0.8, 0.65, 0.5, 0.2, 0.12], dtype=np.float32)
    share = np.clip(depth[:, None, None] * uneven, 0, 0.6)
    return np.asarray(seen + (np.float32(rng.uniform(0.2, 0.4)) - seen) * share, dtype=np.float32)


def _correct(
    seen: FloatArray, surface: Surface, air: Atmosphere, sun: tuple[float, float], rng: np.random.Generator
) -> FloatArray:
    """Undo slope and air as a processor does: with a smoother terrain model, and never quite.

    Sen2Cor divides by the irradiance that its terrain model predicts, with a lower limit that keeps faint light from
    being blown up: shadowed snow of the table's surface reflectance has 0.4 to 0.6 of snow's blue, not 1. Some
    archives hold products without it.
    """
    strength = rng.uniform(0.5, 1.0) if rng.uniform() < 0.7 else 0.0
    if strength > 0:
        smooth = ndimage.gaussian_filter(surface.elevation, 30 / surface.resolution, mode="nearest")
        light = illuminate(smooth, surface.resolution, *sun)
        diffuse = air.diffuse[:, None, None]
        predicted = (1 - diffuse) * light.direct + diffuse * light.sky
        limited = np.clip(predicted, np.float32(rng.uniform(0.2, 0.5)), np.float32(2.5))
        seen = np.asarray(seen * limited ** np.float32(-strength), dtype=np.float32)
    aerosol = rng.normal(0, 1) * np.array([0.012, 0.008, 0.006, 0.004, 0.001, 0.001]) + rng.normal(0, 0.002, len(BANDS))
    gain = np.exp(rng.normal(0, 0.03, len(BANDS)))
    return np.asarray(seen * gain[:, None, None] + aerosol[:, None, None], dtype=np.float32)


def _instrument(seen: FloatArray, resolution: float, rng: np.random.Generator) -> FloatArray:
    """Point spread, SWIR's own grid, noise and the smallest valid value: (band, y, x) float32."""
    pixel = 0.29 * max(resolution, 10.0) / resolution  # a box of one pixel has this standard deviation, in pixels
    sigma = {size: float(np.hypot(width / 2.355 / resolution, pixel)) for size, width in FWHM.items()}
    offset = rng.uniform(-0.5, 0.5, 2)  # of a 10 m pixel, between the visible and the SWIR focal planes
    linear = bool(rng.uniform() < 0.5)
    out = np.empty_like(seen)
    for index, band in enumerate(seen):
        swir = BANDS[index].startswith("swir")
        blurred = ndimage.gaussian_filter(band, sigma[20 if swir else 10], truncate=3, mode="nearest")
        out[index] = _regrid_swir(blurred, resolution, offset, linear=linear) if swir else blurred
    # Signal-to-noise at the reference radiances is 150 to 250 in these bands; read noise rules in the dark.
    out += (0.0008 + 0.004 * np.clip(out, 0, None)) * rng.standard_normal(out.shape, dtype=np.float32)
    return np.asarray(np.maximum(out, LOWEST), dtype=np.float32)


def _regrid_swir(band: FloatArray, resolution: float, offset: Positions, *, linear: bool) -> FloatArray:
    """Sample a band on a 20 m grid and bring it back, a fraction of 10 m out of register."""
    size = SWIR_PIXEL / resolution
    shift = offset * 10.0 / resolution
    if size < 1.2:
        return np.asarray(ndimage.shift(band, shift, order=1, mode="nearest"), dtype=np.float32)
    rows, cols = (int(np.ceil(n / size)) + 1 for n in band.shape)
    middles = [(np.arange(n) + 0.5) * size - 0.5 + s for n, s in zip((rows, cols), shift, strict=True)]
    coarse = _take(_take(band, middles[0], 0, linear=True), middles[1], 1, linear=True)
    return _resample(coarse, band.shape, size, linear=linear)


def _take(values: FloatArray, position: Positions, axis: int, *, linear: bool) -> FloatArray:
    """Values at fractional positions along one axis, the edge repeated."""
    position = np.clip(position, 0, values.shape[axis] - 1)
    if not linear:
        return np.take(values, np.rint(position).astype(np.intp), axis=axis)
    low = np.minimum(position.astype(np.intp), max(values.shape[axis] - 2, 0))
    high = np.minimum(low + 1, values.shape[axis] - 1)
    part = (position - low).astype(np.float32)
    part = part[:, None] if axis == 0 else part[None, :]
    return np.asarray(np.take(values, low, axis) * (1 - part) + np.take(values, high, axis) * part, dtype=np.float32)


def _resample(coarse: FloatArray, shape: tuple[int, ...], size: float, *, linear: bool = True) -> FloatArray:
    """Bring a grid whose pixels are `size` fine pixels wide back to the fine grid."""
    rows, cols = ((np.arange(n, dtype=np.float64) + 0.5) / size - 0.5 for n in shape)
    return _take(_take(coarse, rows, 0, linear=linear), cols, 1, linear=linear)


def _box_mean(band: FloatArray, size: int) -> FloatArray:
    """Means over boxes of `size` pixels, the last box filled by repeating the edge."""
    if size == 1:
        return band
    full = np.pad(band, [(0, -n % size) for n in band.shape], mode="edge")
    boxes = full.reshape(full.shape[0] // size, size, full.shape[1] // size, size)
    return np.asarray(boxes.mean(axis=(1, 3)), dtype=np.float32)
