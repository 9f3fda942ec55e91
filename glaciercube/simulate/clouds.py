"""Clouds, their shadows, and the scene classification that a processor would make of them."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from scipy import ndimage

from glaciercube.simulate.spectra import BANDS, Level
from glaciercube.simulate.surface import BoolArray, FloatArray, IntArray
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["SCL", "add_clouds", "cloud_percentages", "mistake_ice"]

# Sen2Cor's scene classification (Level-2A algorithm theoretical basis document).
SCL: Final = {
    "no_data": 0,
    "dark": 2,
    "cloud_shadow": 3,
    "vegetation": 4,
    "bare": 5,
    "water": 6,
    "unclassified": 7,
    "cloud_medium": 8,
    "cloud_high": 9,
    "thin_cirrus": 10,
    "snow": 11,
}
SEEN_CLOUD, SEEN_SHADOW = 0.2, 0.3  # opacity from which the truth calls a pixel cloud or shaded

# Reflectance of thick cloud of water drops and of ice crystals, and the share of light that comes from the sky;
# typical values (King et al. 2013, doi:10.1109/TGRS.2012.2227333: ice absorbs in SWIR, drops do so less).
WATER_CLOUD = np.array([0.70, 0.70, 0.71, 0.70, 0.48, 0.36], dtype=np.float32)
ICE_CLOUD = np.array([0.62, 0.62, 0.63, 0.62, 0.26, 0.20], dtype=np.float32)
SKYLIGHT = np.array([0.25, 0.19, 0.14, 0.09, 0.05, 0.04], dtype=np.float32)
PATH = np.array([0.080, 0.055, 0.038, 0.024, 0.002, 0.001], dtype=np.float32)


def add_clouds(
    optical: xr.Dataset, *, cover: float, sun_azimuth: float, sun_elevation: float, level: Level, seed: int
) -> xr.Dataset:
    """Put clouds and their shadows into a rendered scene and classify it.

    Parameters
    ----------
    optical : xarray.Dataset
        From `render_optical`: six bands and `cast_shadow` on (y, x), attribute `resolution` in metres.
    cover : float
        Wanted share of the scene under cloud, thick and thin, 0 to 1.
    sun_azimuth, sun_elevation : float
        The sun, degrees clockwise from north and above the horizon.
    level : {"boa", "toa"}
        Level of the reflectance.
    seed : int
        Seed of the clouds and of the classifier's mistakes.

    Returns
    -------
    xarray.Dataset
        The input with clouds in its bands, and `cloud`, `cloud_shadow` (bool, truth) and `scl` (uint8, Sen2Cor's
        classes with its usual mistakes; 0 is no data).
    """
    rng = np.random.default_rng([seed, 31])
    bands = np.stack([optical[name].to_numpy() for name in BANDS])
    dark = optical["cast_shadow"].to_numpy()
    resolution = float(optical.attrs["resolution"])
    opacity = shade = np.zeros(dark.shape, dtype=np.float32)
    if cover > 0:
        opacity, shade = _opacity(rng, dark.shape, resolution, cover, (sun_azimuth, sun_elevation))
        bands = _blend(rng, bands, opacity, shade, level)
    cloud = opacity > SEEN_CLOUD
    shadow = (shade > SEEN_SHADOW) & ~cloud
    scl = _classify(rng, bands, dark, opacity, shadow, resolution)
    out = optical.assign(
        {name: (("y", "x"), band, optical[name].attrs) for name, band in zip(BANDS, bands, strict=True)}
    )
    return out.assign(cloud=(("y", "x"), cloud), cloud_shadow=(("y", "x"), shadow), scl=(("y", "x"), scl))


def mistake_ice(scl: IntArray, ice: BoolArray, share: float, seed: int, resolution: float) -> IntArray:
    """Let the classification call the same patches of bright ice cloud on every date, as Sen2Cor does.

    Parameters
    ----------
    scl : (y, x) uint8
        Classes of one date.
    ice : (y, x) bool
        Where ice may be mistaken; give the same for every date.
    share : float
        Share of it that is, 0 to 1.
    seed : int
        Seed of the patches; give the same for every date.
    resolution : float
        Pixel size in metres.

    Returns
    -------
    (y, x) uint8
        Classes in which snow (11) of the patches is cloud of medium (8) or high (9) probability.
    """
    if share <= 0 or not ice.any():
        return scl
    field = spectral_noise(np.random.default_rng([seed, 33]), scl.shape, resolution, longest=600.0, slope=2.2)
    edge, middle = np.quantile(field[ice], [1 - share, 1 - share / 2])
    wrong = ice & (scl == SCL["snow"]) & (field >= edge)
    kind = np.where(field >= middle, SCL["cloud_high"], SCL["cloud_medium"]).astype(np.uint8)
    return np.where(wrong, kind, scl).astype(np.uint8)


def cloud_percentages(scene: xr.Dataset, seed: int) -> dict[str, IntArray]:
    """Sen2Cor's confidences of cloud and of snow that go with a classification.

    Classes 9, 8 and 10 stand for cloud probabilities above 65, from 35 to 65 and below 35 percent; snow is certain from
    an NDSI of 0.42 and excluded below 0.2 (Level-2A algorithm theoretical basis document).

    Parameters
    ----------
    scene : xarray.Dataset
        From `add_clouds`.
    seed : int
        Seed of the scene.

    Returns
    -------
    dict of str to (y, x) uint8
        ``cloud_probability`` and ``snow_probability``, percent.
    """
    rng = np.random.default_rng([seed, 34])
    scl = scene["scl"].to_numpy()
    low, high = np.zeros(scl.shape), np.full(scl.shape, 5.0)
    for kind, bounds in (("thin_cirrus", (5, 35)), ("cloud_medium", (35, 65)), ("cloud_high", (65, 100))):
        low[scl == SCL[kind]], high[scl == SCL[kind]] = bounds
    green, nir, swir = (scene[name].to_numpy() for name in ("green", "nir", "swir16"))
    ndsi = (green - swir) / (green + swir)
    snow = np.clip((ndsi - 0.2) / 0.22, 0, 1) * (nir > 0.15)
    percentages = {"cloud_probability": rng.uniform(low, high), "snow_probability": 100 * snow}
    return {name: np.rint(value).astype(np.uint8) for name, value in percentages.items()}


def _opacity(
    rng: np.random.Generator, shape: tuple[int, ...], resolution: float, cover: float, sun: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Opacity of the clouds and of their shadows on the ground, 0 to 1: (y, x) float32 each."""
    height = float(np.exp(rng.uniform(np.log(400), np.log(4000))))  # metres above the ground
    away = height / np.tan(np.radians(sun[1])) / resolution
    # Clouds stand away from their shadows towards the sun; farther than the scene is wide, any cloud will do.
    shift = np.array([-np.cos(np.radians(sun[0])), np.sin(np.radians(sun[0]))]) * away
    rows, cols = (int(np.clip(round(s), -n, n)) for s, n in zip(shift, shape, strict=True))
    size = (shape[0] + abs(rows), shape[1] + abs(cols))
    field = spectral_noise(
        rng, size, resolution, longest=float(rng.uniform(500, 4000)), slope=float(rng.uniform(2.6, 3.6))
    )
    there = (max(0, rows), max(0, cols))
    view, cast_from = (
        (slice(top, top + shape[0]), slice(left, left + shape[1]))
        for top, left in ((there[0] - rows, there[1] - cols), there)
    )
    edge = np.quantile(field[view], 1 - np.clip(cover, 0, 1))
    alpha = np.clip((field - edge) / rng.uniform(0.15, 0.7) + SEEN_CLOUD, 0, 1)
    if rng.uniform() < 0.4:  # a veil, rather than a dense heart
        alpha = np.minimum(alpha, rng.uniform(0.25, 0.7))
    alpha = ndimage.gaussian_filter(alpha.astype(np.float32), 15 / resolution)  # vapour has no sharp edge
    penumbra = height * 0.0093 / resolution  # the sun's disc is half a degree wide
    shade = ndimage.gaussian_filter(alpha[cast_from], 0.5 * penumbra + 0.5)
    return np.asarray(alpha[view], dtype=np.float32), np.asarray(shade, dtype=np.float32)


def _blend(
    rng: np.random.Generator, bands: FloatArray, opacity: FloatArray, shade: FloatArray, level: Level
) -> FloatArray:
    """Shade the ground, then lay the clouds over it: (band, y, x) float32."""
    path = (PATH if level == "toa" else np.zeros_like(PATH))[:, None, None]
    lost = np.float32(rng.uniform(0.8, 1.0)) * (1 - SKYLIGHT)[:, None, None] * shade
    ground = path + (bands - path) * (1 - lost)
    ice = np.float32(rng.uniform() < 0.35)
    bright = (ice * ICE_CLOUD + (1 - ice) * WATER_CLOUD) * np.float32(rng.uniform(0.75, 1.2))
    relief = 0.75 + 0.25 * ndimage.gaussian_filter(opacity, 2)
    out = ground + (bright[:, None, None] * relief - ground) * opacity
    return np.asarray(np.maximum(out, 1e-4), dtype=np.float32)


def _classify(
    rng: np.random.Generator,
    bands: FloatArray,
    dark: BoolArray,
    opacity: FloatArray,
    shadow: BoolArray,
    resolution: float,
) -> IntArray:
    """Sen2Cor's scene classification, by thresholds like its own, and with its mistakes: (y, x) uint8."""
    scl = _ground_classes(bands)
    patch = spectral_noise(rng, dark.shape, resolution, longest=float(rng.uniform(150, 1200)), slope=2.2)
    # Terrain shade is called dark, cloud shadow or, where light is blue, water.
    scl[dark & (scl != SCL["snow"])] = SCL["dark"]
    scl[dark & (patch > rng.uniform(0.3, 2.5))] = SCL["cloud_shadow"]
    scl[dark & (patch < -rng.uniform(1.0, 3.0))] = SCL["water"]
    scl[shadow & (patch > -rng.uniform(0, 2))] = SCL["cloud_shadow"]
    # Bright snow and ice are called cloud in patches, most where they mix with rock, whose SWIR is high.
    snowy = scl == SCL["snow"]
    mixed = ndimage.gaussian_filter(snowy.astype(np.float32), 1.2)
    doubt = patch + 1.2 * (mixed < 0.9) + 2 * (bands[0] - 0.6)
    scl[snowy & (doubt > rng.uniform(0.8, 4))] = SCL["cloud_medium"]
    scl[snowy & (doubt > rng.uniform(1.5, 5))] = SCL["cloud_high"]
    scl[(opacity > rng.uniform(0.1, 0.4)) & (bands[0] > 0.12)] = SCL["thin_cirrus"]
    scl[opacity > rng.uniform(0.3, 0.6)] = SCL["cloud_medium"]
    scl[opacity > rng.uniform(0.6, 0.9)] = SCL["cloud_high"]
    scl[rng.uniform(size=dark.shape) < 0.004] = SCL["unclassified"]
    step = max(1, round(20 / resolution))  # the classification has pixels of 20 m
    rows, cols = ((np.arange(n) // step) * step for n in dark.shape)
    return np.asarray(scl[np.ix_(rows, cols)], dtype=np.uint8)


def _ground_classes(bands: FloatArray) -> IntArray:
    """Classes of cloud-free ground by Sen2Cor's indices: (y, x) uint8."""
    blue, green, red, nir, swir, _ = bands
    ndsi = (green - swir) / (green + swir)
    ndvi = (nir - red) / (nir + red)
    scl = np.full(blue.shape, SCL["bare"], dtype=np.uint8)
    scl[ndvi > 0.4] = SCL["vegetation"]
    scl[(nir < 0.1) & (swir < 0.1) & (red < 0.1)] = SCL["dark"]
    scl[(nir < 0.15) & (swir < 0.05) & (green > nir) & (ndsi > 0.2)] = SCL["water"]
    scl[(ndsi > 0.35) & (nir > 0.14) & (blue > 0.17)] = SCL["snow"]
    return scl
