"""Sun and slope: incidence, cast shadow and the share of sky that a pixel sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from glaciercube.simulate.surface import BoolArray, FloatArray

__all__ = ["Illumination", "cast_shadow", "illuminate", "sweep_horizon"]


@dataclass(frozen=True)
class Illumination:
    """Light on the ground.

    Attributes
    ----------
    direct : (y, x) float32
        Direct sun relative to that on level ground: cos(incidence) / cos(zenith), 0 in shadow.
    sky : (y, x) float32
        Share of the sky that is seen, 0 to 1.
    shadow : (y, x) bool
        Cast shadow, and slopes turned away from the sun.
    """

    direct: FloatArray
    sky: FloatArray
    shadow: BoolArray


def _march(height: FloatArray, shift: float, drop: float) -> FloatArray:
    """Height (y, x) of the shadow's upper edge, for light that comes from row 0 and beyond.

    Row by row, each row inherits the higher of ground and shadow of the row before, moved sideways by `shift` pixels
    and lowered by `drop`: a sweep over rows, each a vector.
    """
    edge = np.full_like(height, -np.inf)
    columns = np.arange(height.shape[1])
    whole = int(np.floor(shift))
    part = np.float32(shift - whole)
    left = np.clip(columns - whole, 0, columns[-1])
    right = np.clip(columns - whole - 1, 0, columns[-1])
    top = height[0]
    for row in range(1, height.shape[0]):
        edge[row] = top[left] * (1 - part) + top[right] * part - drop
        top = np.maximum(height[row], edge[row])
    return edge


def sweep_horizon(elevation: FloatArray, resolution: float, azimuth: float, angle: float) -> FloatArray:
    """Height below which the ground lies in the shadow of light from one direction.

    Parameters
    ----------
    elevation : (y, x) float32
        Elevation in metres, north up.
    resolution : float
        Pixel size in metres.
    azimuth : float
        Where the light comes from, degrees clockwise from north.
    angle : float
        Its angle above the horizon in degrees.

    Returns
    -------
    (y, x) float32
        Elevation of the shadow's upper edge in metres; -inf at the rim that faces the light.
    """
    # Towards the light: dy rows (south positive) and dx columns.
    dy, dx = -np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))
    transpose = abs(dx) > abs(dy)
    along, across = (dx, dy) if transpose else (dy, dx)
    flip = along > 0
    grid = elevation.T if transpose else elevation
    grid = grid[::-1] if flip else grid
    step = resolution / abs(along)
    edge = _march(np.ascontiguousarray(grid), -across / abs(along), float(step * np.tan(np.radians(angle))))
    edge = edge[::-1] if flip else edge
    return edge.T if transpose else edge


def cast_shadow(elevation: FloatArray, resolution: float, azimuth: float, angle: float) -> FloatArray:
    """Share of each pixel in cast shadow.

    Parameters
    ----------
    elevation : (y, x) float32
        Elevation in metres, north up.
    resolution : float
        Pixel size in metres.
    azimuth, angle : float
        Direction of the light in degrees: clockwise from north, above the horizon.

    Returns
    -------
    (y, x) float32
        0 lit to 1 dark; the edge is as soft as the sun's disc (half a degree) and the pixel make it.
    """
    depth = sweep_horizon(elevation, resolution, azimuth, angle) - elevation
    # A pixel is half shaded where the edge grazes its middle; its own relief spans about a pixel times the tangent.
    soft = max(0.5 * resolution * float(np.tan(np.radians(angle))), 0.5)
    return np.asarray(np.clip(depth / soft, 0, 1), dtype=np.float32)


def illuminate(
    elevation: FloatArray,
    resolution: float,
    azimuth: float,
    angle: float,
    *,
    roughness: FloatArray | None = None,
    minnaert: float = 1.0,
) -> Illumination:
    """Light on terrain from a sun at one place in the sky.

    Parameters
    ----------
    elevation : (y, x) float32
        Elevation in metres, north up.
    resolution : float
        Pixel size in metres.
    azimuth, angle : float
        The sun, degrees clockwise from north and above the horizon.
    roughness : (2, y, x) float32, optional
        Gradients (m/m, south and east) of relief too fine for the elevation.
    minnaert : float
        Exponent of cos(incidence) / cos(zenith): 1 for a Lambertian ground, less for one that looks brighter at
        grazing light (Minnaert 1941).

    Returns
    -------
    Illumination
    """
    south, east = np.gradient(elevation, np.float32(resolution))
    if roughness is not None:
        south, east = south + roughness[0], east + roughness[1]
    flat = 1 / np.sqrt(1 + south**2 + east**2)  # cosine of the slope
    azimuth_rad, zenith = np.radians(azimuth), np.radians(90 - angle)
    towards = -east * np.sin(azimuth_rad) + south * np.cos(azimuth_rad)
    incidence = flat * (np.cos(zenith) + np.sin(zenith) * towards)
    dark = cast_shadow(elevation, resolution, azimuth, angle)
    direct = (np.clip(incidence, 0, None) / np.cos(zenith)) ** np.float32(minnaert) * (1 - dark)
    hollow = (ndimage.gaussian_filter(elevation, 400 / resolution, truncate=2) - elevation) / 400
    sky = np.clip((1 + flat) / 2 - 0.25 * np.clip(hollow, 0, 1.5), 0.3, 1)
    shadow = (dark > 0.5) | (incidence <= 0)
    return Illumination(direct.astype(np.float32), sky.astype(np.float32), np.asarray(shadow, dtype=bool))
