"""From the state of the ground to its reflectance: which class covers a pixel, and how bright it is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.simulate.spectra import (
    BANDS,
    CLEAR_WATER,
    FOREST,
    MEADOW,
    MILKY_WATER,
    TILT,
    UNIT_BRIGHTNESS,
    UNIT_TILT,
    SceneSpectra,
    draw_lithology,
    draw_scene_spectra,
    log_vector,
)
from glaciercube.simulate.surface import LAND, OCEAN, FloatArray, Surface
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["SURFACE_CLASSES", "ground_reflectance", "surface_class"]

SURFACE_CLASSES: Final = (
    "bare_ground",
    "clean_ice",
    "debris_covered_ice",
    "snow_on_ice",
    "snow_off_ice",
    "lake",
    "ocean",
)
COMPONENTS = 3  # principal components that vary smoothly; the rest is noise from pixel to pixel
NOISE_SHARE = 0.35  # standard deviation of that noise, in units of the class's own within-scene deviation
BRIGHTEST = 1.15  # highest surface reflectance; specular wet snow apart, snow does not exceed it


@dataclass(frozen=True)
class _Fields:
    """Unit fields (y, x) float32 that the classes share: no pixel is two classes, save in mixtures."""

    smooth: list[FloatArray]
    fine: FloatArray
    rock_unit: FloatArray
    texture: FloatArray


def surface_class(surface: Surface) -> npt.NDArray[np.uint8]:
    """Name what is seen of each pixel: flags in the order of `SURFACE_CLASSES`.

    Parameters
    ----------
    surface : Surface
        State of the ground.

    Returns
    -------
    (y, x) uint8
        Class of the larger part of the pixel; no nodata value.
    """
    snowy = surface.snow > 0.5
    out = np.zeros(surface.ice.shape, dtype=np.uint8)
    out[surface.ice] = 1
    out[surface.ice & (surface.debris > 0.5)] = 2
    out[surface.ice & snowy] = 3
    out[~surface.ice & snowy] = 4
    out[surface.water != LAND] = 5
    out[surface.water == OCEAN] = 6
    return out


def ground_reflectance(surface: Surface, *, seed: int, ground_seed: int | None = None) -> FloatArray:
    """Draw the scene's spectra and paint the ground with them.

    The scene's own class statistics come first, then log reflectance that varies in space within each class with a
    correlation length of its own. On the ice reflectance falls and dirt gathers from the snow line to the tongue;
    debris is of the scene's own rock; plants grow low down; water runs from clear to milky with its turbidity.

    Parameters
    ----------
    surface : Surface
        State of the ground.
    seed : int
        Seed of what changes from date to date.
    ground_seed : int, optional
        Seed of rock and plants, which stay; by default drawn from `seed`.

    Returns
    -------
    (band, y, x) float32
        Reflectance of a level, sunlit ground, in the order of `BANDS`, above 0.
    """
    rng = np.random.default_rng([seed, 11])
    ground = np.random.default_rng([seed if ground_seed is None else ground_seed, 12])
    spectra = draw_scene_spectra(rng, ground)
    fields = _draw_fields(surface, rng, ground)
    bare = _bare_ground(surface, spectra, fields, ground)
    ice = _ice(surface, spectra, fields, bare, rng)
    debris = _debris(spectra, fields, ground)
    out = np.where(surface.ice, ice + (debris - ice) * surface.debris, bare)
    snow = _snow(surface, spectra, fields, rng)
    out += (snow - out) * _patchy(surface.snow, fields.fine)
    if (surface.water != LAND).any():
        out = np.where(surface.water != LAND, _water(surface, spectra, fields, rng), out)
    return np.asarray(np.clip(out, 5e-4, BRIGHTEST), dtype=np.float32)


def _draw_fields(surface: Surface, rng: np.random.Generator, ground: np.random.Generator) -> _Fields:
    """Draw the fields of one scene, correlated over 150 m to 2 km."""
    shape, resolution = surface.ice.shape, surface.resolution
    lengths = np.exp(rng.uniform(np.log(150), np.log(2000), COMPONENTS))
    smooth = [spectral_noise(rng, shape, resolution, longest=float(n), slope=2.4) for n in lengths]
    fine = rng.standard_normal(shape, dtype=np.float32)
    unit = spectral_noise(ground, shape, resolution, longest=float(ground.uniform(400, 3000)), slope=3.0)
    texture = spectral_noise(ground, shape, resolution, longest=float(ground.uniform(80, 300)), slope=1.8)
    return _Fields(smooth, fine, unit, texture)


def _vary(spectra: SceneSpectra, name: str, fields: _Fields, mean: FloatArray) -> FloatArray:
    """Log reflectance (band, y, x) of a class about its mean (band,) or (band, y, x)."""
    factors = spectra.factors[name]
    smooth_share = np.float32(np.sqrt(1 - NOISE_SHARE**2))
    out = np.broadcast_to(
        mean.reshape(len(BANDS), *(mean.shape[1:] or (1, 1))), (len(BANDS), *fields.fine.shape)
    ).copy()
    for field, factor in zip(fields.smooth, factors, strict=False):
        out += (smooth_share * factor)[:, None, None] * field
    out += (np.float32(NOISE_SHARE) * factors[:2].sum(axis=0))[:, None, None] * fields.fine
    return out


def _bare_ground(surface: Surface, spectra: SceneSpectra, fields: _Fields, ground: np.random.Generator) -> FloatArray:
    """Rock of two units, soil, and plants low down: reflectance (band, y, x)."""
    log = _vary(spectra, "rock", fields, spectra.mean["rock"])
    unit = 1 / (1 + np.exp(-8 * (fields.rock_unit - ground.uniform(-1, 1)))).astype(np.float32)
    log += draw_lithology(ground, UNIT_BRIGHTNESS, UNIT_TILT)[:, None, None] * unit
    log += np.float32(ground.uniform(0.05, 0.2)) * fields.texture
    out = np.exp(log)
    if ground.uniform() < 0.6:
        out += (_plants(fields, ground) - out) * _plant_cover(surface, fields, ground)
    return np.asarray(out, dtype=np.float32)


def _plants(fields: _Fields, ground: np.random.Generator) -> FloatArray:
    """Meadow to forest: reflectance (band, y, x)."""
    kind = np.float32(ground.uniform())
    log = kind * log_vector(MEADOW) + (1 - kind) * log_vector(FOREST) + 0.2 * np.float32(ground.standard_normal())
    return np.exp(log[:, None, None] + np.float32(0.15) * (fields.texture + fields.rock_unit))


def _plant_cover(surface: Surface, fields: _Fields, ground: np.random.Generator) -> FloatArray:
    """Share of plants, 0 to 1: below a tree or grass line that wavers, thinner on steep ground."""
    low, high = np.quantile(surface.elevation, [0.02, 0.98])
    span = max(float(high - low), 50.0)
    line = low + span * ground.uniform(0.0, 0.45)
    height = (line - surface.elevation) / (0.12 * span) + 0.9 * fields.rock_unit + 0.4 * fields.texture
    return np.asarray(ground.uniform(0.4, 1) / (1 + np.exp(-1.5 * height)), dtype=np.float32)


def _debris(spectra: SceneSpectra, fields: _Fields, ground: np.random.Generator) -> FloatArray:
    """Rubble on the ice: the scene's rock, often a little greyer, with hummocks: reflectance (band, y, x)."""
    mean = spectra.mean["rock"] + np.float32(0.15 * ground.standard_normal())
    mean += np.float32(0.12 * ground.standard_normal() - 0.08) * TILT
    log = _vary(spectra, "rock", fields, mean)
    log += np.float32(ground.uniform(0.05, 0.25)) * fields.texture
    return np.exp(log)


def _relative_height(surface: Surface) -> FloatArray:
    """Height on the ice, 0 at the lowest and 1 at the highest of it."""
    if not surface.ice.any():
        return np.zeros(surface.ice.shape, dtype=np.float32)
    low, high = np.quantile(surface.elevation[surface.ice], [0.02, 0.98])
    return np.asarray(np.clip((surface.elevation - low) / max(float(high - low), 1.0), 0, 1), dtype=np.float32)


def _ice(
    surface: Surface, spectra: SceneSpectra, fields: _Fields, bare: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Bare ice from dirty tongue to bright firn edge: reflectance (band, y, x)."""
    height = _relative_height(surface)
    towards_snow = spectra.mean["snow"] - spectra.mean["ice"]
    # Weathering crust brightens the visible; wet slush near the snow line darkens near infrared and SWIR.
    rise = np.float32(rng.uniform(0, 0.8)) * (height - 0.5)
    slush = np.float32(rng.uniform(0, 0.5)) * np.exp(-(((height - 0.85) / 0.12) ** 2))
    log = _vary(spectra, "ice", fields, spectra.mean["ice"]) + towards_snow[:, None, None] * rise
    log[3:] -= slush * np.array([0.3, 0.8, 0.8], dtype=np.float32)[:, None, None]
    log += np.float32(rng.uniform(0.02, 0.12)) * fields.texture  # crevasses, meltwater runnels
    clean = np.exp(log)
    edge = np.exp(-ndimage.distance_transform_edt(surface.ice).astype(np.float32) * surface.resolution / 60)
    dirt = rng.uniform(0, 0.3) * (1 - height) ** 2 + rng.uniform(0, 0.12) * (fields.rock_unit + 0.5)
    dirt += rng.uniform(0, 0.3) * edge
    return np.asarray(clean + (bare - clean) * np.clip(dirt, 0, 0.7), dtype=np.float32)


def _snow(surface: Surface, spectra: SceneSpectra, fields: _Fields, rng: np.random.Generator) -> FloatArray:
    """Snow, finer and cleaner higher up: reflectance (band, y, x)."""
    low, high = np.quantile(surface.elevation, [0.02, 0.98])
    height = np.clip((surface.elevation - low) / max(float(high - low), 1.0), 0, 1) - np.float32(0.5)
    mean = np.minimum(spectra.mean["snow"], np.float32(0.0))
    # Coarser grains low down take near infrared and SWIR (Warren 1982), dust takes the visible.
    grain = rng.uniform(0, 0.6) * np.array([0, 0, 0.02, 0.15, 0.9, 0.9])
    dust = rng.uniform(0, 0.35) * np.array([1.0, 0.8, 0.6, 0.3, 0.0, 0.0])
    gradient = (grain + dust).astype(np.float32)
    log = _vary(spectra, "snow", fields, mean) + gradient[:, None, None] * height
    return np.asarray(np.exp(log), dtype=np.float32)


def _patchy(cover: FloatArray, fine: FloatArray) -> FloatArray:
    """Break up partial snow cover from pixel to pixel."""
    return np.asarray(np.clip(cover + 0.5 * fine * cover * (1 - cover), 0, 1), dtype=np.float32)


def _water(surface: Surface, spectra: SceneSpectra, fields: _Fields, rng: np.random.Generator) -> FloatArray:
    """Lakes from clear through the table's to milky, and the sea: reflectance (band, y, x)."""
    knots = np.stack([log_vector(CLEAR_WATER), spectra.mean["water"], log_vector(MILKY_WATER)])
    turbidity = np.clip(surface.turbidity, 0, 1) * 2
    low, high = np.clip(1 - turbidity, 0, 1), np.clip(turbidity - 1, 0, 1)
    weights = np.stack([low, 1 - low - high, high]).astype(np.float32)
    log = np.tensordot(knots.T, weights, axes=1)
    log += np.float32(0.4) * (_vary(spectra, "water", fields, np.zeros(len(BANDS), dtype=np.float32)))
    glint = np.float32(0.02 * rng.exponential() if rng.uniform() < 0.15 else 0.001)
    return np.asarray(np.exp(log) + glint, dtype=np.float32)
