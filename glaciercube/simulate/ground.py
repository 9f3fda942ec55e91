"""From the state of the ground to its reflectance: which class covers a pixel, and how bright it is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
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
from glaciercube.simulate.surface import LAND, BoolArray, FloatArray, Surface
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["ground_reflectance"]

COMPONENTS = 3  # principal components that vary smoothly; the rest is noise from pixel to pixel
NOISE_SHARE = 0.25  # standard deviation of that noise, in units of the class's own within-scene deviation
ROCK_SMOOTH = 0.6  # share of rock's variation without regard to relief and rock units, which make the rest
BRIGHTEST = 1.15  # highest surface reflectance; specular wet snow apart, snow does not exceed it


@dataclass(frozen=True)
class _Fields:
    """Unit fields (y, x) float32 that the classes share: no pixel is two classes, save in mixtures."""

    smooth: list[FloatArray]
    fine: FloatArray
    rock_unit: FloatArray
    texture: FloatArray
    gully: FloatArray


def ground_reflectance(
    surface: Surface, *, seed: int, ground_seed: int | None = None, steady: float = 0.0, wide: bool = False
) -> FloatArray:
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
    steady : float
        Share of the variance within a class, 0 to 1, that stays where it is from date to date.
    wide : bool
        Whether lakes, dirty ice, old snow off the ice and debris vary as widely as they do over many ranges.

    Returns
    -------
    (band, y, x) float32
        Reflectance of a level, sunlit ground, in the order of `BANDS`, above 0.
    """
    rng = np.random.default_rng([seed, 11])
    ground = np.random.default_rng([seed if ground_seed is None else ground_seed, 12])
    spectra = draw_scene_spectra(rng, ground)
    fields = _draw_fields(surface, rng, ground)
    if steady > 0:
        fields = _keep(fields, steady, seed if ground_seed is None else ground_seed, surface.resolution)
    bare = _bare_ground(surface, spectra, fields, ground)
    ice = _ice(surface, spectra, fields, bare, rng)
    debris = _debris(spectra, fields, ground)
    water = _water(surface, spectra, fields, rng)
    if wide:
        ice, debris, water = _widen(surface, (ice, debris, water), bare, fields, seed, ground_seed)
    debris += (water.mean(axis=(1, 2), keepdims=True) - debris) * _ponds(surface, fields, ground)
    out = np.where(surface.ice, ice + (debris - ice) * surface.debris, bare)
    snow = _snow(surface, spectra, fields, rng)
    if wide:
        snow = _old_snow(surface, snow, ice, fields, seed)
    out += (snow - out) * _patchy(surface.snow, fields.fine)
    if (surface.water != LAND).any():
        water += (ice - water) * _bergs(surface, fields, rng)
        out = np.where(surface.water != LAND, water, out)
    return np.asarray(np.clip(out, 5e-4, BRIGHTEST), dtype=np.float32)


def _draw_fields(surface: Surface, rng: np.random.Generator, ground: np.random.Generator) -> _Fields:
    """Draw the fields of one scene, correlated over 150 m to 2 km."""
    shape, resolution = surface.ice.shape, surface.resolution
    lengths = np.exp(rng.uniform(np.log(150), np.log(2000), COMPONENTS))
    smooth = [spectral_noise(rng, shape, resolution, longest=float(n), slope=2.4) for n in lengths]
    fine = rng.standard_normal(shape, dtype=np.float32)
    unit = spectral_noise(ground, shape, resolution, longest=float(ground.uniform(400, 3000)), slope=3.0)
    texture = spectral_noise(ground, shape, resolution, longest=float(ground.uniform(80, 300)), slope=1.8)
    return _Fields(smooth, fine, unit, texture, _gully(surface))


def _keep(fields: _Fields, steady: float, ground_seed: int, resolution: float) -> _Fields:
    """Let a share of the variance of the fields of one scene be the ground's own."""
    ground = np.random.default_rng([ground_seed, 13])
    stays, moves = np.float32(np.sqrt(steady)), np.float32(np.sqrt(1 - steady))
    shape = (fields.fine.shape[0], fields.fine.shape[1])
    lengths = np.exp(ground.uniform(np.log(150), np.log(2000), COMPONENTS))
    kept = [spectral_noise(ground, shape, resolution, longest=float(n), slope=2.4) for n in lengths]
    return replace(
        fields,
        smooth=[stays * own + moves * field for own, field in zip(kept, fields.smooth, strict=True)],
        fine=stays * ground.standard_normal(shape, dtype=np.float32) + moves * fields.fine,
    )


def _gully(surface: Surface) -> FloatArray:
    """How far a place stands above what is around it, standardised: ribs against gullies and screes: (y, x)."""
    above = surface.elevation - ndimage.gaussian_filter(surface.elevation, 60 / surface.resolution, mode="nearest")
    return np.asarray(np.clip(above / (above.std() + 0.1), -2.5, 2.5), dtype=np.float32)


def _vary(spectra: SceneSpectra, name: str, fields: _Fields, mean: FloatArray, amount: float = 1.0) -> FloatArray:
    """Log reflectance (band, y, x) of a class about its mean (band,)."""
    factors = np.float32(amount) * spectra.factors[name]
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
    log = _vary(spectra, "rock", fields, spectra.mean["rock"], ROCK_SMOOTH)
    # Ribs of bare rock and gullies filled with scree differ along the strongest component of the table.
    log += np.float32(ground.uniform(-0.6, 0.6)) * spectra.factors["rock"][0][:, None, None] * fields.gully
    unit = 1 / (1 + np.exp(-8 * (fields.rock_unit - ground.uniform(-1, 1)))).astype(np.float32)
    log += draw_lithology(ground, UNIT_BRIGHTNESS, UNIT_TILT)[:, None, None] * unit
    log += np.float32(ground.uniform(0.05, 0.2)) * fields.texture
    out = np.exp(log)
    if ground.uniform() < 0.5:
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
    line = low + span * ground.uniform(-0.1, 0.5)
    height = (line - surface.elevation) / (0.12 * span) + 0.9 * fields.rock_unit + 0.4 * fields.texture
    return np.asarray(ground.uniform(0.5, 1) / (1 + np.exp(-2.5 * height)), dtype=np.float32)


def _debris(spectra: SceneSpectra, fields: _Fields, ground: np.random.Generator) -> FloatArray:
    """Rubble on the ice: the scene's rock, often a little greyer, with hummocks: reflectance (band, y, x)."""
    mean = spectra.mean["rock"] + np.float32(0.15 * ground.standard_normal())
    mean += np.float32(0.12 * ground.standard_normal() - 0.08) * TILT
    log = _vary(spectra, "rock", fields, mean, ROCK_SMOOTH)
    log += np.float32(ground.uniform(0.05, 0.25)) * fields.texture
    return np.exp(log)


def _widen(
    surface: Surface,
    classes: tuple[FloatArray, FloatArray, FloatArray],
    bare: FloatArray,
    fields: _Fields,
    seed: int,
    ground_seed: int | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Ice, debris and water (band, y, x each) as they vary beyond the four glaciers of the table."""
    rng = np.random.default_rng([seed, 14])
    ground = np.random.default_rng([seed if ground_seed is None else ground_seed, 15])
    ice, debris, water = classes
    # Dust, soot and algae darken the ice, most in the visible, and lowest down.
    if ground.uniform() < 0.5:
        down = 1 - _relative_height(surface.elevation, surface.ice)
        dark = ground.uniform(0, 0.9) * down * np.exp(0.4 * fields.rock_unit - 0.2)
        ice = ice * np.exp(-dark * np.array([1.1, 1.0, 0.95, 0.8, 0.0, 0.0], dtype=np.float32)[:, None, None])
        dirty = np.clip(rng.uniform(0, 0.5) * down * (0.6 + 0.4 * fields.texture), 0, 0.75)
        ice = ice + (debris - ice) * dirty
    # Debris is of the rock that stands around it: what parts them is slight.
    if ground.uniform() < 0.6:
        offset = 0.07 * ground.standard_normal() + 0.05 * ground.standard_normal() * TILT
        around = bare * np.exp(offset.astype(np.float32))[:, None, None]
        part = np.float32(ground.uniform(0.4, 1.0))
        ndvi = (bare[3] - bare[2]) / (bare[3] + bare[2])
        debris = debris + (around - debris) * part * (ndvi < 0.3)
    # Lakes are brighter or browner, and reflect more near infrared with coarser sediment.
    shift = 0.3 * rng.standard_normal() + 0.2 * rng.standard_normal() * TILT
    shift = shift + np.array([0, 0, 0.05, 0.45, 0.4, 0.4]) * rng.standard_normal()
    water = np.minimum(water * np.exp(shift.astype(np.float32))[:, None, None], 0.45)
    return ice.astype(np.float32), debris.astype(np.float32), water.astype(np.float32)


def _old_snow(surface: Surface, snow: FloatArray, ice: FloatArray, fields: _Fields, seed: int) -> FloatArray:
    """Let snow off the ice be old and dirty, so that it looks like ice, on some dates: (band, y, x) float32."""
    rng = np.random.default_rng([seed, 16])
    if rng.uniform() < 0.5:
        return snow
    like_ice = np.clip(rng.uniform(0, 1.1) + 0.15 * fields.texture, 0, 1) * ~surface.ice
    typical = np.median(ice[:, surface.ice], axis=1) if surface.ice.any() else ice.mean(axis=(1, 2))
    old = typical[:, None, None] * np.exp(0.15 * fields.rock_unit)
    return np.asarray(snow * (old / snow) ** like_ice, dtype=np.float32)


def _ponds(surface: Surface, fields: _Fields, ground: np.random.Generator) -> FloatArray:
    """Cover of melt ponds among thick debris on gently sloping ice, 0 or 1: (y, x) float32; at most 2% of it."""
    least = 3.5 - ground.uniform(0, 1.2)
    gentle = np.hypot(*np.gradient(surface.elevation, surface.resolution)) < 0.3
    return np.asarray((fields.texture - 0.5 * fields.gully > least) & (surface.debris > 0.6) & gentle, dtype=np.float32)


def _bergs(surface: Surface, fields: _Fields, rng: np.random.Generator) -> FloatArray:
    """Cover of floating ice, 0 to 1, dense in front of ice that ends in water, in some scenes: (y, x) float32."""
    if not surface.ice.any() or rng.uniform() < 0.4:
        return np.zeros(surface.ice.shape, dtype=np.float32)
    away = ndimage.distance_transform_edt(~surface.ice).astype(np.float32) * surface.resolution
    dense = rng.uniform(0.5, 2.5) * np.exp(-away / rng.uniform(100, 800))
    return np.asarray(np.clip(0.5 * (fields.fine + fields.texture) + dense - 2.2, 0, 1), dtype=np.float32)


def _relative_height(elevation: FloatArray, where: BoolArray | None = None) -> FloatArray:
    """Height between the lowest and the highest, 0 to 1; of the ice, if `where` says where it is: (y, x) float32."""
    if where is not None and not where.any():
        return np.zeros(elevation.shape, dtype=np.float32)
    low, high = np.quantile(elevation if where is None else elevation[where], [0.02, 0.98])
    return np.asarray(np.clip((elevation - low) / max(float(high - low), 1.0), 0, 1), dtype=np.float32)


def _ice(
    surface: Surface, spectra: SceneSpectra, fields: _Fields, bare: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Bare ice from dirty tongue to bright firn edge: reflectance (band, y, x)."""
    height = _relative_height(surface.elevation, surface.ice)
    towards_snow = spectra.mean["snow"] - spectra.mean["ice"]
    # Weathering crust brightens the visible; wet slush near the snow line darkens near infrared and SWIR.
    rise = np.float32(rng.uniform(0, 0.8)) * (height - 0.5)
    slush = np.float32(rng.uniform(0, 0.5)) * np.exp(-(((height - 0.85) / 0.12) ** 2))
    log = _vary(spectra, "ice", fields, spectra.mean["ice"]) + towards_snow[:, None, None] * rise
    log[3:] -= slush * np.array([0.3, 0.8, 0.8], dtype=np.float32)[:, None, None]
    log += np.float32(rng.uniform(0.02, 0.12)) * fields.texture  # crevasses, meltwater runnels
    clean = np.exp(log)
    edge = np.exp(-ndimage.distance_transform_edt(surface.ice).astype(np.float32) * surface.resolution / 60)
    dirt = 0.35 * rng.beta(1, 3) * (1 - height) ** 2 + rng.uniform(0, 0.06) * (fields.rock_unit - 0.2)
    dirt += rng.uniform(0, 0.25) * edge
    return np.asarray(clean + (bare - clean) * np.clip(dirt, 0, 0.7), dtype=np.float32)


def _snow(surface: Surface, spectra: SceneSpectra, fields: _Fields, rng: np.random.Generator) -> FloatArray:
    """Snow, finer and cleaner higher up: reflectance (band, y, x)."""
    height = _relative_height(surface.elevation) - np.float32(0.5)
    mean = np.minimum(spectra.mean["snow"], np.float32(0.0))
    # Coarser grains low down take near infrared and SWIR (Warren 1982), dust takes the visible.
    grain = rng.uniform(0, 0.6) * np.array([0, 0, 0.02, 0.15, 0.9, 0.9])
    dust = rng.uniform(0, 0.35) * np.array([1.0, 0.8, 0.6, 0.3, 0.0, 0.0])
    gradient = (grain + dust).astype(np.float32)
    log = _vary(spectra, "snow", fields, mean) + gradient[:, None, None] * height
    return np.asarray(np.exp(log), dtype=np.float32)


def _patchy(cover: FloatArray, fine: FloatArray) -> FloatArray:
    """Break up partial snow cover from pixel to pixel."""
    return np.asarray(np.clip(cover + 0.3 * fine * cover * (1 - cover), 0, 1), dtype=np.float32)


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
