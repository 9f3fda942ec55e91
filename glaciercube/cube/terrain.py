"""Terrain variables from a digital elevation model on a metric grid."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["POSITION_RADIUS", "hillshade", "terrain_halo", "terrain_variables", "topographic_position"]

FloatArray: TypeAlias = npt.NDArray[np.float32]
# NumPy and xarray share the elementwise operations used here, but no common static type.
Field: TypeAlias = Any

#: Metres around a pixel that its topographic position is relative to.
POSITION_RADIUS: Final = 500.0
# Metres added to the spread of the surroundings: about twice what GLO-30 errs by between neighbours (LE90 of 2 m on
# slopes below 20 %, Copernicus DEM product handbook), so that noise on a flat floor is no relief.
_POSITION_NOISE: Final = 5.0
# Elevation is summed as whole numbers of 1/256 m: sums are then the same in whatever order they are made.
_STEPS: Final = 256


def terrain_halo(resolution: float) -> int:
    """Pixels of context on each side that every variable of `terrain_variables` needs.

    Parameters
    ----------
    resolution : float
        Pixel size in metres.
    """
    return max(1, round(POSITION_RADIUS / resolution))


def terrain_variables(elevation: npt.NDArray[np.floating], resolution: float) -> dict[str, FloatArray]:
    """Slope, aspect, curvature and topographic position of a surface.

    Gradients are Horn's third-order finite differences (Horn 1981, Proc. IEEE 69:14-47), as GDAL and xDEM use them;
    curvature is the Laplacian of elevation over the 4 neighbours (Zevenbergen & Thorne 1987), positive in hollows.

    Parameters
    ----------
    elevation : (y, x) floating
        Metres, north up, NaN where unknown.
    resolution : float
        Pixel size in metres, equal in both directions.

    Returns
    -------
    dict
        (y, x) float32 arrays: ``slope`` (degrees, 0 to 90), ``aspect_sin`` and ``aspect_cos`` (of the downslope
        direction, clockwise from north; 0 where flat), ``curvature`` (1/m), ``topographic_position`` (1). A pixel whose
        3 by 3 neighbourhood holds a NaN is NaN; on the array's edge the neighbourhood is continued linearly. The
        position has its own rule, see `topographic_position`.
    """
    east, north = _gradients(elevation, resolution)
    steepness = np.hypot(east, north)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Downslope: where a ball would roll.
        sine = np.where(steepness > 0, -east / steepness, steepness * 0)
        cosine = np.where(steepness > 0, -north / steepness, steepness * 0)
    return {
        "slope": np.degrees(np.arctan(steepness)).astype(np.float32),
        "aspect_sin": sine.astype(np.float32),
        "aspect_cos": cosine.astype(np.float32),
        "curvature": _laplacian(elevation, resolution).astype(np.float32),
        "topographic_position": topographic_position(elevation, resolution),
    }


def topographic_position(elevation: npt.NDArray[np.floating], resolution: float) -> FloatArray:
    """How high a pixel lies among its surroundings, in their own spread.

    ``(z - mean) / (std + 5 m)`` over the square of 2 `terrain_halo` + 1 pixels about the pixel, some 1 km wide: the
    deviation from mean elevation of De Reu et al. (2013, Geomorphology 186:39-49), which divides Weiss's (2001)
    topographic position index by the standard deviation. Unlike elevation it means the same in every range.

    Parameters
    ----------
    elevation : (y, x) floating
        Metres, between -20 km and 20 km, NaN where unknown.
    resolution : float
        Pixel size in metres.

    Returns
    -------
    (y, x) float32
        About -3 (valley floor) to 3 (summit), no unit, NaN where the pixel itself is unknown. Of the square, pixels
        that are unknown or beyond the array are left out: with `terrain_halo` pixels of context on each side, a pixel
        has one value, bit for bit, whatever array it is computed in.
    """
    reach = terrain_halo(resolution)
    known = np.isfinite(elevation)
    steps = np.rint(np.where(known, elevation, 0.0).astype(np.float64) * _STEPS).astype(np.int64)
    count, total, square = (_window_sum(part, reach) for part in (known.astype(np.int64), steps, steps * steps))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        spread = np.sqrt(np.maximum(square / count - mean * mean, 0.0))
        position = (steps - mean) / (spread + _POSITION_NOISE * _STEPS)
    return np.where(known, position, np.nan).astype(np.float32)


def _window_sum(values: npt.NDArray[np.int64], reach: int) -> npt.NDArray[np.int64]:
    """Sum of whole numbers over a square about each pixel, 0 beyond the array."""
    for axis in (0, 1):
        length = values.shape[axis]
        running = np.cumsum(np.insert(values, 0, 0, axis=axis), axis=axis)
        ends = np.arange(length)
        upper, lower = np.minimum(ends + reach + 1, length), np.maximum(ends - reach, 0)
        values = np.take(running, upper, axis=axis) - np.take(running, lower, axis=axis)
    return values


def hillshade(
    slope: Field, aspect_sin: Field, aspect_cos: Field, *, sun_azimuth: Field | float, sun_elevation: Field | float
) -> Field:
    """Cosine of the sun's incidence on the slope, 0 where the slope turns away; cast shadow is not included.

    Elementwise, so that it broadcasts over dates and works on NumPy and lazy xarray alike
    (Burrough & McDonnell 1998: sin h cos s + cos h sin s cos(azimuth - aspect)).

    Parameters
    ----------
    slope : (y, x) array or DataArray
        Degrees, as from `terrain_variables`.
    aspect_sin, aspect_cos : (y, x) array or DataArray
        Of the downslope direction, as from `terrain_variables`.
    sun_azimuth, sun_elevation : float or DataArray (time)
        Degrees, clockwise from north and above the horizon; a NaN gives NaN.

    Returns
    -------
    array or DataArray
        0 to 1, dimensionless, in the broadcast shape and dtype of the arguments; NaN where one of them is.
    """
    azimuth, height, steepness = np.radians(sun_azimuth), np.radians(sun_elevation), np.radians(slope)
    towards = np.cos(azimuth) * aspect_cos + np.sin(azimuth) * aspect_sin
    shade = np.sin(height) * np.cos(steepness) + np.cos(height) * np.sin(steepness) * towards
    return shade.clip(0.0, 1.0)


def _neighbours(elevation: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    # Odd reflection continues a slope beyond the edge, where repeating the edge would flatten it.
    return np.pad(np.asarray(elevation, dtype=np.float64), 1, mode="reflect", reflect_type="odd")


def _gradients(
    elevation: npt.NDArray[np.floating], resolution: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    z = _neighbours(elevation)
    east = (z[:-2, 2:] + 2 * z[1:-1, 2:] + z[2:, 2:]) - (z[:-2, :-2] + 2 * z[1:-1, :-2] + z[2:, :-2])
    north = (z[:-2, :-2] + 2 * z[:-2, 1:-1] + z[:-2, 2:]) - (z[2:, :-2] + 2 * z[2:, 1:-1] + z[2:, 2:])
    # A missing centre does not enter Horn's stencil, but such a pixel has no slope.
    unknown = z[1:-1, 1:-1] * 0.0
    return east / (8 * resolution) + unknown, north / (8 * resolution) + unknown


def _laplacian(elevation: npt.NDArray[np.floating], resolution: float) -> npt.NDArray[np.float64]:
    z = _neighbours(elevation)
    around = z[:-2, 1:-1] + z[2:, 1:-1] + z[1:-1, :-2] + z[1:-1, 2:]
    return (around - 4 * z[1:-1, 1:-1]) / resolution**2
