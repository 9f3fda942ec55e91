"""What Sentinel-1 sees of a surface: backscatter, slope, speckle, layover and shadow."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
import xarray as xr
from scipy import ndimage

from glaciercube.simulate.illumination import sweep_horizon
from glaciercube.simulate.surface import LAND, OCEAN, BoolArray, FloatArray, Surface
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["Orbit", "render_radar"]

Orbit: TypeAlias = Literal["ascending", "descending"]

LOOK_AZIMUTH: Final = {"ascending": 77.0, "descending": 283.0}  # degrees that the right-looking antenna points to
NOISE_FLOOR = {"vv": -24.0, "vh": -27.0}  # dB, near the noise-equivalent sigma zero of the IW mode
LOOKS = 4.4  # equivalent number of looks of IW GRD at high resolution (Sentinel-1 product specification)
SPECKLE_REACH = 0.6  # pixels: correlation of speckle after resampling, as a Gaussian's standard deviation

# C-band gamma nought by class: mean VV (dB), its standard deviation from scene to scene, and VH below VV with its
# own. Wet snow lies 3 dB or more under the rest (Nagler et al. 2016, doi:10.3390/rs8040348); bare ice, rock and debris
# differ by less than they scatter; dry firn scatters from its volume.
BACKSCATTER: Final = {
    "rock": (-9.5, 1.8, 6.5, 1.0),
    "debris": (-8.8, 1.8, 6.2, 1.0),
    "ice": (-10.5, 2.2, 6.5, 1.5),
    "wet_snow": (-17.0, 2.5, 6.0, 1.5),
    "dry_snow": (-8.5, 2.5, 5.5, 1.5),
    "lake": (-19.0, 4.0, 7.0, 1.5),
    "ocean": (-15.0, 4.0, 9.0, 2.0),
}


def render_radar(
    surface: Surface,
    *,
    orbit: Orbit,
    seed: int,
    ground_seed: int | None = None,
    terrain_residual: float | None = None,
    debris_apart: float | None = None,
) -> xr.Dataset:
    """Render a Sentinel-1 scene as terrain-corrected backscatter.

    Parameters
    ----------
    surface : Surface
        State of the ground.
    orbit : {"ascending", "descending"}
        Pass, which sets the look direction.
    seed : int
        Seed of everything that changes from scene to scene.
    ground_seed : int, optional
        Seed of the ground's own texture and of the incidence angle; give the same for every date of one landscape.
    terrain_residual : float, optional
        Share of the slope's effect that the processing has left in: 0 flattened, 1 not. Drawn if not given, mostly
        small.
    debris_apart : float, optional
        Standard deviation (dB) of what parts debris from rock; if not given they are drawn one by one.

    Returns
    -------
    xarray.Dataset
        Dimensions (y, x), no coordinates: `vv`, `vh` float32, gamma nought in linear power, NaN in part of the radar
        shadow (no data); `layover`, `radar_shadow` bool. Attributes `incidence_angle` (degrees), `orbit`,
        `resolution` (metres).
    """
    rng = np.random.default_rng([seed, 41])
    ground = np.random.default_rng([seed if ground_seed is None else ground_seed, 42])
    incidence = float(ground.uniform(31, 45))  # of the IW swath
    azimuth = (LOOK_AZIMUTH[orbit] + float(ground.uniform(-6, 6))) % 360
    layover, shadow = _distortion(surface, azimuth, incidence)
    slope = _slope_effect(surface, azimuth, incidence)
    if terrain_residual is None:
        terrain_residual = float(rng.uniform(0.4, 1.0) if rng.uniform() < 0.25 else rng.normal(0, 0.15))
    texture = _texture(surface, ground)
    backscatter = _backscatter(surface, rng, debris_apart)
    speckle = _speckle(rng, surface)
    masked = bool(rng.uniform() < 0.5)
    data: dict[str, FloatArray] = {}
    for index, name in enumerate(("vv", "vh")):
        decibel = backscatter[index] + texture + terrain_residual * slope
        decibel = np.where(layover, decibel + rng.uniform(1, 4), decibel)
        decibel = np.where(shadow, NOISE_FLOOR[name], decibel)
        power = (10 ** (decibel / 10) + 0.5 * 10 ** (NOISE_FLOOR[name] / 10)) * speckle[index]
        data[name] = np.where(shadow & masked, np.nan, power).astype(np.float32)
    return xr.Dataset(
        {name: (("y", "x"), value, {"units": "1"}) for name, value in data.items()}
        | {"layover": (("y", "x"), layover), "radar_shadow": (("y", "x"), shadow)},
        attrs={"incidence_angle": incidence, "orbit": orbit, "resolution": surface.resolution},
    )


def _distortion(surface: Surface, azimuth: float, incidence: float) -> tuple[BoolArray, BoolArray]:
    """Layover and shadow: (y, x) bool each.

    A place is in shadow where higher ground towards the radar hides it. It is in layover where another place has
    the same slant range: ground before it that lies below the wave front, or ground behind it that rises above.
    """
    z, resolution = surface.elevation, surface.resolution
    radar = (azimuth + 180) % 360
    shadow = sweep_horizon(z, resolution, radar, 90 - incidence) > z
    before = sweep_horizon(-z, resolution, radar, incidence) > -z
    behind = sweep_horizon(z, resolution, azimuth, incidence) > z
    layover = ndimage.binary_opening(before | behind)
    return np.asarray(layover & ~shadow, dtype=bool), np.asarray(shadow, dtype=bool)


def _slope_effect(surface: Surface, azimuth: float, incidence: float) -> FloatArray:
    """Brightening (dB) by slope of backscatter that was not flattened: (y, x) float32.

    The illuminated area by the local angle in range, tan(incidence) / tan(incidence - slope) (Small 2011,
    doi:10.1109/TGRS.2011.2120616), limited where the wave front grazes.
    """
    south, east = np.gradient(surface.elevation, np.float32(surface.resolution))
    rise = east * np.sin(np.radians(azimuth)) - south * np.cos(np.radians(azimuth))  # along the look: faces the radar
    local = np.clip(np.radians(incidence) - np.arctan(rise), np.radians(6), np.radians(84))
    return np.asarray(10 * np.log10(np.tan(np.radians(incidence)) / np.tan(local)), dtype=np.float32)


def _texture(surface: Surface, ground: np.random.Generator) -> FloatArray:
    """Variation (dB) of the ground itself: rough and smooth rock, crevasses: (y, x) float32."""
    shape, resolution = surface.ice.shape, surface.resolution
    broad = spectral_noise(ground, shape, resolution, longest=float(ground.uniform(300, 1500)), slope=2.4)
    fine = spectral_noise(ground, shape, resolution, longest=80.0, slope=1.5)
    amount = np.where(surface.water == LAND, 1.3, 0.4).astype(np.float32)
    return np.asarray(amount * (broad + 0.8 * fine), dtype=np.float32)


def _backscatter(surface: Surface, rng: np.random.Generator, debris_apart: float | None = None) -> FloatArray:
    """Mean backscatter (dB) of VV and VH: (2, y, x) float32; covers mix as power."""
    power = {}
    for name, (mean, spread, less, less_spread) in BACKSCATTER.items():
        vv = mean + spread * float(rng.standard_normal())
        pair = np.array([vv, vv - less - less_spread * float(rng.standard_normal())], dtype=np.float32)
        power[name] = (10 ** (pair / 10))[:, None, None]
    if debris_apart is not None:
        power["debris"] = power["rock"] * np.float32(10 ** (debris_apart * rng.standard_normal() / 10))
    # Summer snow is wet up to a height above which it still freezes; now and then all of it is dry, and then the
    # ground shows through.
    low, high = np.quantile(surface.elevation, [0.02, 0.98])
    line = low + (high - low) * (rng.uniform(0.6, 1.6) if rng.uniform() < 0.75 else rng.uniform(-0.5, 0.5))
    frozen = 1 / (1 + np.exp(-(surface.elevation - line) / (0.05 * (high - low) + 10)))
    ice = power["ice"] + (power["debris"] - power["ice"]) * surface.debris
    below = np.where(surface.ice, ice, power["rock"])
    dry = np.where(surface.ice, power["dry_snow"], 0.8 * power["rock"])
    snow = power["wet_snow"] + (dry - power["wet_snow"]) * frozen
    total = below + (snow - below) * surface.snow
    total = np.where(surface.water == OCEAN, power["ocean"], np.where(surface.water != LAND, power["lake"], total))
    soft = [ndimage.gaussian_filter(band, 0.5, truncate=3) for band in total]
    return np.asarray(10 * np.log10(np.maximum(soft, 1e-5)), dtype=np.float32)


def _speckle(rng: np.random.Generator, surface: Surface) -> FloatArray:
    """Multiplicative speckle with mean 1 of VV and VH, gamma-distributed and correlated: (2, y, x) float32."""
    looks = LOOKS * rng.uniform(0.9, 1.2)
    if rng.uniform() < 0.5:  # resampled with averaging rather than by the nearest pixel
        looks *= max(1.0, 0.5 * (surface.resolution / 10) ** 2)
    kernel = np.zeros(9)
    kernel[4] = 1
    kernel = ndimage.gaussian_filter1d(kernel, SPECKLE_REACH)
    white_looks = looks * float((kernel**2).sum()) ** 2  # smoothing multiplies the looks
    white = rng.gamma(white_looks, 1 / white_looks, (2, *surface.ice.shape)).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(white, (0, SPECKLE_REACH, SPECKLE_REACH), mode="wrap"), dtype=np.float32)
