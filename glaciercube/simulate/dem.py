"""The one elevation model that everybody has: older than the images, 30 m, in tiles of a degree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy import ndimage

from glaciercube.region import Bounds, geographic_bounds
from glaciercube.simulate.landscape import Landscape
from glaciercube.simulate.surface import FloatArray
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["DemTile", "dem_tiles", "stale_dem"]

ROWS = 3600  # of a tile: 1 arc second
# Columns of a tile by the latitude of its edge nearer to the equator (Copernicus DEM Product Handbook, table 4).
COLUMNS = ((85, 360), (80, 720), (70, 1200), (60, 1800), (50, 2400), (0, 3600))
FOOTPRINT = 30.0  # m: full width at half maximum of the elevation model's own smoothing
BEYOND = 0.03  # degrees past the simulated ground over which the tiles go on with its edge; then 0, like the ocean


@dataclass(frozen=True)
class DemTile:
    """One tile of the elevation model.

    Attributes
    ----------
    name : str
        Such as ``Copernicus_DSM_COG_10_N60_00_W147_00_DEM``.
    transform : affine.Affine
        Degrees of EPSG:4326; pixel centres fall on whole multiples of the spacing, so that the edges lie half a
        pixel to the north and west of the degree.
    elevation : (y, x) float32
        Metres; 0 on the ocean.
    """

    name: str
    transform: Affine
    elevation: FloatArray


def stale_dem(landscape: Landscape, epoch_year: float, rng: np.random.Generator | None = None) -> FloatArray:
    """Elevation as a 30 m model of another year has it: with the ice of that year.

    Parameters
    ----------
    landscape : Landscape
        Ground and ice.
    epoch_year : float
        Year of the survey; TanDEM-X flew from 2011 to 2015.
    rng : numpy.random.Generator, optional
        Source of the model's errors, 1 m and more on slopes (its specification is better than 4 m at 90 %);
        none if not given.

    Returns
    -------
    (y, x) float32
        Metres on the landscape's grid; 0 on the ocean.
    """
    truth = landscape.elevation(epoch_year)
    elevation = ndimage.gaussian_filter(truth, FOOTPRINT / 2.355 / landscape.resolution)
    if rng is not None:
        steep = np.hypot(*np.gradient(elevation, landscape.resolution))
        shape = (elevation.shape[0], elevation.shape[1])
        noise = spectral_noise(rng, shape, landscape.resolution, longest=150, slope=2.0)
        elevation = elevation + (0.5 + 2.5 * np.clip(steep, 0, 1.5)) * noise
    ocean = landscape.sea & ~landscape.ice(epoch_year)
    return np.asarray(np.where(ocean, 0, elevation), dtype=np.float32)


def dem_tiles(elevation: FloatArray, geobox: GeoBox) -> list[DemTile]:
    """Cut an elevation model into the geographic tiles that it touches.

    Parameters
    ----------
    elevation : (y, x) float32
        Metres, on `geobox`.
    geobox : odc.geo.geobox.GeoBox
        A grid in metres.

    Returns
    -------
    list of DemTile
        Whole degrees, from north-west to south-east.
    """
    left, bottom, right, top = _bounds(geobox)
    norths = range(math.floor(top), math.floor(bottom) - 1, -1)
    wests = range(math.floor(left), math.floor(right) + 1)
    around = (left - BEYOND, bottom - BEYOND / 2, right + BEYOND, top + BEYOND / 2)
    return [_tile(elevation, geobox, south, west, around) for south in norths for west in wests]


def _bounds(geobox: GeoBox) -> Bounds:
    """Bounds in degrees; across the antimeridian east exceeds 180."""
    west, south, east, north = geographic_bounds(geobox)
    if west > east:
        return (west, south, east + 360.0, north)
    box = geobox.extent.to_crs("EPSG:4326", resolution=500).boundingbox
    return (box.left, box.bottom, box.right, box.top)


def _tile(
    elevation: FloatArray, geobox: GeoBox, south: int, west: int, around: tuple[float, float, float, float]
) -> DemTile:
    """Sample one tile of a degree bilinearly at its pixel centres."""
    nearer = south if south >= 0 else -south - 1
    columns = next(count for least, count in COLUMNS if nearer >= least)
    step_x, step_y = 1 / columns, 1 / ROWS
    named = (west + 180) % 360 - 180
    transform = Affine(step_x, 0, named - step_x / 2, 0, -step_y, south + 1 + step_y / 2)
    tile = np.zeros((ROWS, columns), dtype=np.float32)
    left, right = (int(np.clip(math.ceil((edge - west) / step_x), 0, columns)) for edge in (around[0], around[2]))
    top, bottom = (int(np.clip(math.ceil((south + 1 - edge) / step_y), 0, ROWS)) for edge in (around[3], around[1]))
    if left < right and top < bottom:
        longitude, latitude = np.meshgrid(
            west + np.arange(left, right) * step_x, south + 1 - np.arange(top, bottom) * step_y
        )
        x, y = Transformer.from_crs("EPSG:4326", str(geobox.crs), always_xy=True).transform(longitude, latitude)
        col, row = ~geobox.transform * (x, y)
        at = np.stack([np.asarray(row) - 0.5, np.asarray(col) - 0.5])
        tile[top:bottom, left:right] = ndimage.map_coordinates(elevation, at, order=1, mode="nearest")
    north_south, east_west = "N" if south >= 0 else "S", "E" if named >= 0 else "W"
    name = f"Copernicus_DSM_COG_10_{north_south}{abs(south):02d}_00_{east_west}{abs(named):03d}_00_DEM"
    return DemTile(name, transform, tile)
