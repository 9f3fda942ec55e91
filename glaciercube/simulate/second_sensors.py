"""Images of the second family of worlds: spectra of single real scenes, haze by height, compact clouds, other speckle.

Light on slopes and shadows cast are those of `glaciercube.simulate.illumination`: the sun is the same in every world.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from scipy import ndimage

from glaciercube.simulate.coherence import LOST
from glaciercube.simulate.illumination import illuminate, sweep_horizon
from glaciercube.simulate.second_terrain import lattice_noise
from glaciercube.simulate.spectra import (
    BANDS,
    CLEAR_WATER,
    FOREST,
    MEADOW,
    MILKY_WATER,
    TILT,
    Level,
    Vector,
    load_atmospheres,
    load_statistics,
)
from glaciercube.simulate.surface import LAND, OCEAN, FloatArray, Surface

__all__ = ["add_second_clouds", "draw_second_coherence", "render_second_optical", "render_second_radar"]

SKY: Final = np.array([0.24, 0.18, 0.13, 0.09, 0.05, 0.04], dtype=np.float32)  # share of skylight under a high sun
HAZE_HEIGHT = 1200.0  # m over which haze thins to a third
MOST_LOST = 0.9  # share of its coherence that clean ice loses at most
TAIL = 5  # degrees of freedom of the scatter of a scene about its pattern
# Gamma nought (dB) of VV, and VH below it.
ECHO: Final = {
    "rock": (-10.5, 7.0),
    "ice": (-11.5, 7.5),
    "wet_snow": (-16.0, 6.5),
    "dry_snow": (-9.5, 5.0),
    "lake": (-20.0, 6.0),
    "ocean": (-16.0, 8.5),
}


def render_second_optical(
    surface: Surface, *, sun_azimuth: float, sun_elevation: float, level: Level, seed: int, ground_seed: int
) -> xr.Dataset:
    """Render a cloud-free Sentinel-2 scene, as `glaciercube.simulate.optical.render_optical` does."""
    rng, ground = np.random.default_rng([seed, 71]), np.random.default_rng([ground_seed, 72])
    paint = _paint(surface, rng, ground)
    light = illuminate(
        surface.elevation,
        surface.resolution,
        sun_azimuth,
        sun_elevation,
        roughness=_rubble(surface, ground),
        minnaert=0.85,
    )
    sky = np.clip(SKY * np.exp(0.3 * rng.standard_normal()) / np.sin(np.radians(max(sun_elevation, 10))) ** 0.4, 0, 0.5)
    lit = paint * ((1 - sky)[:, None, None] * light.direct + sky[:, None, None] * light.sky)
    seen = _air(lit, surface, rng, level)
    bands = _camera(seen, surface.resolution, rng)
    data = {name: (("y", "x"), band, {"units": "1"}) for name, band in zip(BANDS, bands, strict=True)}
    return xr.Dataset({**data, "cast_shadow": (("y", "x"), light.shadow)}, attrs={"resolution": surface.resolution})


def add_second_clouds(
    optical: xr.Dataset, *, cover: float, sun_azimuth: float, sun_elevation: float, seed: int
) -> xr.Dataset:
    """Put heaps of cloud, or streaks of cirrus, and their shadows into a scene.

    Returns
    -------
    xarray.Dataset
        With `cloud`, `cloud_shadow` (bool) and `scl` (uint8: 4 ground, 3 shadow, 9 cloud, 10 cirrus).
    """
    rng = np.random.default_rng([seed, 73])
    bands = np.stack([optical[name].to_numpy() for name in BANDS])
    shape, resolution = (bands.shape[1], bands.shape[2]), float(optical.attrs["resolution"])
    cloud = shadow = np.zeros(shape, dtype=bool)
    streaks = bool(rng.uniform() < 0.3)
    if cover > 0:
        opacity = _streaks(rng, shape, resolution, cover) if streaks else _heaps(rng, shape, resolution, cover)
        far = rng.uniform(600, 3000) / np.tan(np.radians(sun_elevation)) / resolution
        away = np.array([np.cos(np.radians(sun_azimuth)), -np.sin(np.radians(sun_azimuth))]) * min(far, min(shape) / 2)
        shade = ndimage.shift(opacity, away, order=1, mode="mirror")
        bands = bands * (1 - (1 - 1.4 * SKY)[:, None, None] * (0.3 if streaks else 0.9) * shade)
        bright = np.float32(rng.uniform(0.45, 0.85)) * np.array([1, 1, 1.01, 1, 0.65, 0.5], dtype=np.float32)
        bright = bright * (np.array([1, 1, 1, 1, 0.55, 0.5]) if streaks else 1)
        bands = bands + (bright[:, None, None] - bands) * opacity
        cloud, shadow = opacity > 0.2, (shade > 0.3) & (opacity <= 0.2) & (not streaks)
    scl = np.where(cloud, 10 if streaks else 9, np.where(shadow, 3, 4)).astype(np.uint8)
    bands = np.maximum(bands, 1e-4).astype(np.float32)
    out = optical.assign({name: (("y", "x"), band) for name, band in zip(BANDS, bands, strict=True)})
    return out.assign(cloud=(("y", "x"), cloud), cloud_shadow=(("y", "x"), shadow), scl=(("y", "x"), scl))


def render_second_radar(surface: Surface, *, orbit: str, seed: int, ground_seed: int) -> xr.Dataset:
    """Render `vv` and `vh`, linear gamma nought: NaN in shadow; by a cosine law of the slope, with clumped speckle."""
    rng, ground = np.random.default_rng([seed, 74]), np.random.default_rng([ground_seed, 75])
    shape, resolution = (surface.ice.shape[0], surface.ice.shape[1]), surface.resolution
    incidence, look = float(ground.uniform(30, 44)), 78.0 if orbit == "ascending" else 282.0
    south, east = np.gradient(ndimage.gaussian_filter(surface.elevation, 15 / resolution), resolution)
    facing = np.degrees(np.arctan(east * np.sin(np.radians(look)) - south * np.cos(np.radians(look))))
    hidden = sweep_horizon(surface.elevation, resolution, (look + 180) % 360, 90 - incidence) > surface.elevation
    left = float(rng.uniform(0, 0.35)) * 0.12 * np.clip(facing, -35, 35) + 3.0 * (facing > incidence)
    rough = 1.6 * lattice_noise(ground, shape, resolution, longest=700, octaves=6, gain=0.8)
    high = np.quantile(surface.elevation, np.clip(rng.uniform(0.2, 1.4), 0, 1))
    shift = {name: 1.6 * rng.standard_normal(2) * (1, 0.5) for name in ECHO}
    out = {}
    for index, name in enumerate(("vv", "vh")):
        echo = {kind: vv - index * less + shift[kind][: index + 1].sum() for kind, (vv, less) in ECHO.items()}
        debris = echo["rock"] + 0.5 * rng.standard_normal()
        bare = np.where(surface.ice, echo["ice"] + (debris - echo["ice"]) * surface.debris, echo["rock"])
        snow = np.where(surface.elevation > high, np.where(surface.ice, echo["dry_snow"], bare), echo["wet_snow"])
        level = bare + (snow - bare) * surface.snow
        level = np.where(surface.water == OCEAN, echo["ocean"], np.where(surface.water != LAND, echo["lake"], level))
        level = level + np.where(surface.water == LAND, rough + left, 0.3 * rough)
        looks = rng.uniform(3, 7) * max(1.0, (resolution / 12) ** rng.uniform(0, 2))
        grain = rng.gamma(looks, 1 / looks, shape) * rng.gamma(12, 1 / 12, shape)
        grain = ndimage.uniform_filter(grain, 2) if rng.uniform() < 0.5 else grain
        power = 10 ** (level / 10) * grain + 10 ** (-2.45 - 0.25 * index)
        out[name] = (("y", "x"), np.where(hidden, np.nan, power).astype(np.float32), {"units": "1"})
    return xr.Dataset(out, attrs={"incidence_angle": incidence, "orbit": orbit, "resolution": resolution})


def draw_second_coherence(
    surface: Surface, speed: FloatArray, optical: xr.Dataset, contrast: float, seed: int, ground_seed: int
) -> FloatArray:
    """Coherence as it is estimated: of two complex images over a window of a few looks, so that none is below chance.

    Parameters, return and meaning as of `glaciercube.simulate.coherence.draw_coherence`; here each cause leaves a share
    of what the others left, and what moves loses by a Gaussian of its way (Zebker & Villasenor 1992,
    doi:10.1109/36.175330).
    """
    rng, ground = np.random.default_rng([seed, 76]), np.random.default_rng([ground_seed, 77])
    shape, resolution = (surface.ice.shape[0], surface.ice.shape[1]), surface.resolution
    lost = rng.uniform() < LOST
    shown = rng.uniform(0, 0.1) if lost else MOST_LOST * contrast
    moved = 1 - np.exp(-((speed / ground.uniform(5, 15)) ** 2))
    kept = 1 - shown * np.where(surface.ice, 1 - surface.debris * (0.4 - 0.3 * moved), 0)
    kept = kept * (1 - rng.uniform(0, 0.2 if lost else 0.8) * surface.snow)
    red, nir = optical["red"].to_numpy(), optical["nir"].to_numpy()
    kept = kept * (1 - 0.7 * np.clip((nir - red) / (nir + red) / 0.6, 0, 1) * (surface.snow < 0.5))
    stable = ground.uniform(0.5, 0.8) + ground.uniform(0.05, 0.11) * lattice_noise(
        ground, shape, resolution, longest=900, octaves=5
    )
    true = np.clip(stable * (rng.uniform(0.2, 0.5) if lost else rng.uniform(0.85, 1.0)), 0, 0.95) * kept
    true = np.where(surface.water != LAND, 0, true)
    first, other = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(2))
    second = true * first + np.sqrt(1 - true**2) * other
    looks = int(rng.integers(3, 6))
    both, one, two = (
        ndimage.uniform_filter(product, looks, mode="mirror")
        for product in (first * second.conj(), np.abs(first) ** 2, np.abs(second) ** 2)
    )
    return np.asarray(np.clip(np.abs(both) / np.sqrt(one * two), 0.02, 0.99), dtype=np.float32)


def _spectrum(rng: np.random.Generator, name: str) -> Vector:
    """Mean of one real scene, or between two, with heavy-tailed scatter: log reflectance (band,)."""
    means = load_statistics("boa")[name].means
    one, two = rng.integers(len(means), size=2)
    part = rng.uniform() ** 3
    common, tilt = rng.standard_t(TAIL, 2) * (0.12, 0.05)
    return np.asarray((1 - part) * means[one] + part * means[two] + common + tilt * TILT, dtype=np.float32)


def _pattern(
    rng: np.random.Generator, ground: np.random.Generator, shape: tuple[int, int], resolution: float
) -> FloatArray:
    """Six unit fields (6, y, x) of which some change with the date."""
    sources = (ground, ground, ground, ground, rng, rng)
    lengths = (120, 350, 900, 2500, 200, 1200)
    fields = [
        lattice_noise(source, shape, resolution, longest=length * float(ground.uniform(0.6, 1.5)), octaves=7, gain=0.65)
        for source, length in zip(sources, lengths, strict=True)
    ]
    grain = np.random.default_rng(rng.integers(2**31)).standard_normal((6, *shape), dtype=np.float32)
    return np.asarray(0.93 * np.stack(fields) + 0.3 * grain, dtype=np.float32)


def _spread(name: str, pattern: FloatArray, mean: Vector, amount: float) -> FloatArray:
    """Reflectance (band, y, x) with the covariance within real scenes, as a mixture of all six fields."""
    root = np.linalg.cholesky(load_statistics("boa")[name].within + 1e-6 * np.eye(len(BANDS))).astype(np.float32)
    turned = np.tensordot(np.float32(amount) * root, pattern, axes=1)
    return np.asarray(np.exp(mean[:, None, None] + turned), dtype=np.float32)


def _paint(surface: Surface, rng: np.random.Generator, ground: np.random.Generator) -> FloatArray:
    """Reflectance of level ground (band, y, x)."""
    shape, resolution = (surface.ice.shape[0], surface.ice.shape[1]), surface.resolution
    pattern = _pattern(rng, ground, shape, resolution)
    kinds = [_spread("rock", pattern, _spectrum(ground, "rock"), 0.7) for _ in range(2)]
    border = lattice_noise(ground, shape, resolution, longest=float(ground.uniform(600, 2500)))
    rock = np.where(border > ground.uniform(-0.5, 1.5), kinds[0], kinds[1])
    rock = rock + (_green(ground) * np.exp(0.2 * pattern[1]) - rock) * _growth(surface, pattern[2], ground)
    rubble = _spread("rock", pattern[::-1], 0.5 * np.log(kinds[0].mean((1, 2))) + 0.5 * _spectrum(ground, "rock"), 0.6)
    ice = _spread("ice", pattern, _spectrum(rng, "ice"), 0.8)
    depth = np.clip(surface.elevation - np.quantile(surface.elevation, 0.1), 0, None)
    dirt = np.clip(rng.beta(1, 4) * np.exp(-depth / 250) + 0.08 * rng.uniform() * pattern[0], 0, 0.6)
    ice = ice + (rubble - ice) * dirt
    snow = np.minimum(_spread("snow", pattern[::-1], _spectrum(rng, "snow"), 0.7), 1.1)
    cover = [
        ndimage.gaussian_filter(part.astype(np.float32), 0.5)
        for part in (surface.ice, surface.debris, surface.snow, surface.water != LAND)
    ]
    out = rock + (ice - rock) * cover[0]
    out = out + (rubble - out) * cover[1]
    out = out + (snow - out) * cover[2]
    return np.asarray(np.clip(out + (_lake(surface, pattern, rng) - out) * cover[3], 5e-4, 1.15), dtype=np.float32)


def _green(ground: np.random.Generator) -> FloatArray:
    """Plants between forest and meadow, drier or greener: reflectance (band, 1, 1)."""
    part = ground.uniform()
    mixed = part * np.array(MEADOW) + (1 - part) * np.array(FOREST)
    return np.asarray(mixed * np.exp(0.15 * ground.standard_normal(len(BANDS))), dtype=np.float32)[:, None, None]


def _growth(surface: Surface, uneven: FloatArray, ground: np.random.Generator) -> FloatArray:
    """Share of plants: low down and on gentle ground."""
    south, east = np.gradient(surface.elevation, surface.resolution)
    low, high = np.quantile(surface.elevation, [0.0, 0.9])
    height = (surface.elevation - low) / max(float(high - low), 50.0)
    share = ground.uniform(-0.6, 0.9) - 1.8 * height + 0.4 * uneven - 0.6 * np.hypot(south, east)
    return np.asarray(np.clip(share, 0, 0.95), dtype=np.float32)


def _lake(surface: Surface, pattern: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Water from clear to milky, browner or bluer: reflectance (band, y, x)."""
    clear, milky = np.array(CLEAR_WATER), np.array(MILKY_WATER)
    milky = milky * np.exp(rng.normal(0, 0.25) + rng.normal(0, 0.25) * TILT)
    part = np.clip(surface.turbidity + 0.05 * pattern[4], 0, 1) ** 1.3
    water = clear[:, None, None] * (1 - part) + milky[:, None, None] * part
    return np.asarray(water * np.exp(0.1 * pattern[0]) + 0.004 * rng.exponential(), dtype=np.float32)


def _rubble(surface: Surface, ground: np.random.Generator) -> FloatArray:
    """Gradients (2, y, x) of relief finer than the elevation."""
    shape = (surface.ice.shape[0], surface.ice.shape[1])
    amount = np.where(surface.ice, 0.03 + 0.09 * surface.debris, 0.11) * (surface.water == LAND) * (1 - surface.snow)
    fields = [lattice_noise(ground, shape, surface.resolution, longest=90, octaves=2) for _ in range(2)]
    return np.asarray(np.stack(fields) * amount, dtype=np.float32)


def _air(lit: FloatArray, surface: Surface, rng: np.random.Generator, level: Level) -> FloatArray:
    """Haze that lies in the valleys, of one real scene's strength; at "boa" what a correction leaves of it."""
    path, transmission = load_atmospheres()[int(rng.integers(7))]
    path = np.minimum(path, np.array([1, 1, 1, 0.05, 0.006, 0.005])) * np.exp(0.15 * rng.standard_normal())
    above = surface.elevation - float(surface.elevation.min())
    thin = np.exp(-above / HAZE_HEIGHT).astype(np.float32)
    thin = 0.4 + 0.6 * thin / max(float(thin.mean()), 1e-3)
    hazy = path[:, None, None] * thin + transmission[:, None, None] ** thin * lit
    if level == "toa":
        return np.asarray(hazy, dtype=np.float32)
    middle = 0.4 + 0.6 * np.float32(rng.uniform(0.7, 1.3))
    back = (hazy - path[:, None, None] * middle) / transmission[:, None, None] ** np.clip(thin, 0.6, 1.4)
    return np.asarray(back, dtype=np.float32)


def _camera(seen: FloatArray, resolution: float, rng: np.random.Generator) -> FloatArray:
    """Blur, 20 m pixels of SWIR and noise: (band, y, x) float32."""
    out = np.empty_like(seen)
    block = max(1, round(20 / resolution))
    for index, band in enumerate(seen):
        if BANDS[index].startswith("swir"):
            wide = ndimage.uniform_filter(band, block)
            out[index] = ndimage.gaussian_filter(wide, 8 / resolution + 0.2)
        else:
            out[index] = ndimage.gaussian_filter(band, 5.5 / resolution + 0.1)
    noise = rng.uniform(0.0005, 0.003)
    return np.maximum(out + noise * rng.standard_normal(out.shape, dtype=np.float32), 1e-4).astype(np.float32)


def _heaps(rng: np.random.Generator, shape: tuple[int, int], resolution: float, cover: float) -> FloatArray:
    """Opacity of round heaps with sharp edges: (y, x)."""
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    height = np.full(shape, -9.0, dtype=np.float32)
    size = float(np.exp(rng.uniform(np.log(150), np.log(900)))) / resolution
    for _ in range(int(np.clip(2.5 * cover * shape[0] * shape[1] / size**2 / 3, 3, 60))):
        row, col = rng.uniform(-size, np.array(shape) + size)
        radius = size * rng.uniform(0.4, 1.4)
        height = np.maximum(height, 1 - ((y - row) ** 2 + (x - col) ** 2) / radius**2)
    height += 0.35 * lattice_noise(rng, shape, resolution, longest=300, octaves=4, gain=0.7)
    edge = np.quantile(height, 1 - cover)
    return np.asarray(np.clip((height - edge) / rng.uniform(0.1, 0.4) + 0.2, 0, 1), dtype=np.float32)


def _streaks(rng: np.random.Generator, shape: tuple[int, int], resolution: float, cover: float) -> FloatArray:
    """Opacity of a veil drawn out by the wind: (y, x)."""
    field = lattice_noise(rng, (shape[0] * 2, shape[1] * 2), resolution, longest=1200, octaves=5, gain=0.6)
    turn, long = rng.uniform(0, np.pi), rng.uniform(3, 7)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn) / long, np.cos(turn) / long]])
    middle = np.array(shape, dtype=float)
    drawn = ndimage.affine_transform(field, matrix, middle - matrix @ (middle / 2), shape, None, 1, "mirror")
    edge = np.quantile(drawn, 1 - cover)
    return np.asarray(np.clip((drawn - edge) * 0.5 + 0.2, 0, rng.uniform(0.3, 0.8)), dtype=np.float32)
