"""Class statistics of reflectance, and the spectra that one scene draws from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "BANDS",
    "CLASSES",
    "Atmosphere",
    "ClassStatistics",
    "Level",
    "SceneSpectra",
    "Vector",
    "draw_atmosphere",
    "draw_lithology",
    "draw_scene_spectra",
    "load_atmospheres",
    "load_statistics",
    "log_vector",
]

Level: TypeAlias = Literal["boa", "toa"]
Vector: TypeAlias = npt.NDArray[np.float32]

BANDS: Final = ("blue", "green", "red", "nir", "swir16", "swir22")
CLASSES: Final = ("snow", "shadowed_snow", "ice", "rock", "water")

# Broadening of rock beyond the four mountain ranges of the table, as standard deviations of log reflectance:
# brightness (granite and limestone against slate and basalt), redness (tilt from blue to SWIR), and the same within
# one scene, between two units of rock. Of the order of the spread between lithologies in the ECOSTRESS library.
LITHOLOGY_BRIGHTNESS, LITHOLOGY_TILT = 0.20, 0.16
UNIT_BRIGHTNESS, UNIT_TILT = 0.22, 0.10
TILT: Final = np.array([-1.0, -0.6, -0.25, 0.1, 0.8, 0.95], dtype=np.float32)  # mean 0, by wavelength

# Reflectance of a clear deep lake and of one milky with rock flour, and of green plants and of dark moss or forest;
# typical values (e.g. Giardino et al. 2010 for glacial lakes; the ECOSTRESS library for plants).
CLEAR_WATER = (0.030, 0.022, 0.012, 0.006, 0.003, 0.002)
MILKY_WATER = (0.190, 0.230, 0.190, 0.070, 0.014, 0.010)
MEADOW = (0.035, 0.065, 0.055, 0.300, 0.200, 0.100)
FOREST = (0.018, 0.030, 0.022, 0.170, 0.080, 0.035)

# Half of the variance along "all bands brighter" within a scene of the table is taken to be slope and sun, which the
# renderer adds itself.
ILLUMINATION_SHARE = 0.5


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of natural-log reflectance of one class at one level, bands in the order of `BANDS`.

    Attributes
    ----------
    scenes, pixels : int
        How many scenes and pixels they rest on.
    share_between : float
        Share of the variance that lies between scenes, 0 to 1.
    mean : (band,) float32
        Mean over scenes.
    between : (band, band) float64
        Predictive covariance of a new scene's mean, regularised (see the method stated in `spectra.json`).
    within : (band, band) float64
        Covariance of pixels within a scene.
    means : (scene, band) float32
        Means of the single scenes.
    """

    scenes: int
    pixels: int
    share_between: float
    mean: Vector
    between: npt.NDArray[np.float64]
    within: npt.NDArray[np.float64]
    means: Vector


@dataclass(frozen=True)
class SceneSpectra:
    """What one scene drew: its class means, and how pixels vary about them.

    Attributes
    ----------
    mean : dict of str to (band,) float32
        Log reflectance by class.
    factors : dict of str to (component, band) float32
        Principal standard deviations within the scene, strongest first: log reflectance varies as a sum of unit
        fields times these.
    """

    mean: dict[str, Vector]
    factors: dict[str, Vector]


@dataclass(frozen=True)
class Atmosphere:
    """How surface reflectance is seen from above.

    Attributes
    ----------
    path : (band,) float32
        Path reflectance, added.
    transmission : (band,) float32
        Two-way transmission, multiplied.
    diffuse : (band,) float32
        Share of skylight (and of light from slopes around) in the irradiance of a sunlit level pixel.
    adjacency : (band,) float32
        Share of a pixel's signal that comes from its surroundings.
    """

    path: Vector
    transmission: Vector
    diffuse: Vector
    adjacency: Vector


@cache
def _document() -> dict[str, dict[str, dict[str, list[float]]]]:
    """Read `spectra.json`, once."""
    text = files("glaciercube.simulate").joinpath("spectra.json").read_text(encoding="utf-8")
    document: dict[str, dict[str, dict[str, list[float]]]] = json.loads(text)
    return document


@cache
def load_statistics(level: Level) -> dict[str, ClassStatistics]:
    """Load the class statistics of one level.

    Parameters
    ----------
    level : {"boa", "toa"}
        Surface or top-of-atmosphere reflectance.

    Returns
    -------
    dict of str to ClassStatistics
        By class name, see `CLASSES`.
    """
    return {
        name: ClassStatistics(
            scenes=int(np.asarray(entry["scenes"])),
            pixels=int(np.asarray(entry["pixels"])),
            share_between=float(np.asarray(entry["share_between"])),
            mean=np.asarray(entry["mean"], dtype=np.float32),
            between=np.asarray(entry["between"], dtype=np.float64),
            within=np.asarray(entry["within"], dtype=np.float64),
            means=np.asarray(entry["means"], dtype=np.float32),
        )
        for name, entry in _document()[level].items()
    }


def load_atmospheres() -> list[tuple[Vector, Vector]]:
    """Path reflectance and transmission (band,) of each scene of the table."""
    table = _document()["atmosphere"]
    pairs = zip(table["path"], table["transmission"], strict=True)
    return [(np.asarray(path, dtype=np.float32), np.asarray(part, dtype=np.float32)) for path, part in pairs]


def log_vector(reflectance: tuple[float, ...]) -> Vector:
    """Natural logarithm of a spectrum given as reflectance: (band,) float32."""
    return np.log(np.asarray(reflectance, dtype=np.float32))


@cache
def _factors(name: str) -> Vector:
    """Principal standard deviations of a class within a scene, part of the common brightness taken out."""
    within = load_statistics("boa")[name].within
    common = np.full((len(BANDS), 1), len(BANDS) ** -0.5)
    damp = np.eye(len(BANDS)) - (1 - np.sqrt(1 - ILLUMINATION_SHARE)) * (common @ common.T)
    variance, vectors = np.linalg.eigh(damp @ within @ damp)
    return np.asarray((vectors * np.sqrt(np.clip(variance, 0, None))).T[::-1], dtype=np.float32)


def draw_lithology(rng: np.random.Generator, brightness: float, tilt: float) -> Vector:
    """Draw an offset of log reflectance that makes rock brighter or darker and redder or greyer.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    brightness, tilt : float
        Standard deviations in log reflectance.

    Returns
    -------
    (band,) float32
    """
    return np.asarray(brightness * rng.standard_normal() + tilt * rng.standard_normal() * TILT, dtype=np.float32)


def draw_scene_spectra(rng: np.random.Generator, ground: np.random.Generator) -> SceneSpectra:
    """Draw a scene's own surface-reflectance statistics.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source for what changes from scene to scene: snow, ice, water.
    ground : numpy.random.Generator
        Source for what stays from scene to scene: rock.

    Returns
    -------
    SceneSpectra
    """
    table = load_statistics("boa")
    mean: dict[str, Vector] = {}
    for name in CLASSES:
        source = ground if name == "rock" else rng
        entry = table[name]
        mean[name] = source.multivariate_normal(entry.mean, entry.between, method="cholesky").astype(np.float32)
    mean["rock"] += draw_lithology(ground, LITHOLOGY_BRIGHTNESS, LITHOLOGY_TILT)
    # Rock dries and wets: a little of its mean belongs to the date.
    mean["rock"] += np.float32(0.08 * rng.standard_normal())
    return SceneSpectra(mean, {name: _factors(name) for name in CLASSES})


def draw_atmosphere(rng: np.random.Generator, sun_elevation: float) -> Atmosphere:
    """Draw an atmosphere along the table's range from clear to smoky.

    Path and transmission are interpolated between the scenes of the table ordered by their transmission of blue,
    clear air the likelier, and jittered; near infrared and SWIR path are capped at what aerosol leaves there, since
    the fitted lines take light from slopes around for path. The diffuse share is that of shadowed snow, falling on
    towards SWIR as skylight does; it grows as the sun sinks (air mass).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    sun_elevation : float
        Degrees above the horizon.

    Returns
    -------
    Atmosphere
    """
    table = _document()["atmosphere"]
    path, transmission = (np.asarray(table[key], dtype=np.float64) for key in ("path", "transmission"))
    order = np.argsort(-transmission[:, 0])
    haze = rng.uniform() ** 1.8
    position = haze * (len(order) - 1)
    low, part = int(position), position % 1
    high = min(low + 1, len(order) - 1)
    path, transmission = (value[order[low]] * (1 - part) + value[order[high]] * part for value in (path, transmission))
    path = np.minimum(path, np.array([1, 1, 1, 0.03 + 0.05 * haze, 0.004 + 0.006 * haze, 0.003 + 0.004 * haze]))
    path = path * np.exp(0.18 * rng.standard_normal() + 0.05 * rng.standard_normal(len(BANDS)))
    transmission = np.clip(transmission * np.exp(0.05 * rng.standard_normal()), 0.25, 1)
    # High mountains stand above part of the scattering air.
    thin = rng.uniform(0.6, 1)
    path, transmission = path * thin, transmission**thin
    shadow = np.log(np.asarray(table["diffuse"], dtype=np.float64)[:, :4])
    diffuse = np.empty(len(BANDS))
    diffuse[:4] = shadow.mean(axis=0) + 0.3 * rng.standard_normal() + 0.3 * rng.standard_normal() * TILT[:4]
    diffuse[4], diffuse[5] = diffuse[3] - 0.35, diffuse[3] - 0.5
    diffuse += 0.25 * np.log(np.sin(np.radians(45)) / np.sin(np.radians(max(sun_elevation, 8.0))))
    adjacency = np.array([0.12, 0.10, 0.08, 0.05, 0.02, 0.01]) * rng.uniform(0.3, 1.3) * (1 + haze)
    values = (path, transmission, np.clip(np.exp(diffuse), 0.02, 0.5), adjacency)
    return Atmosphere(*(np.asarray(value, dtype=np.float32) for value in values))
