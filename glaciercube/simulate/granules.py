"""How Sentinel-2 is cut: two granules that overlap, in one UTM zone or, where two zones meet, in both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from glaciercube.simulate.world import ANCHOR, FINEST, World

__all__ = ["Granule", "granules"]

# Beyond them MGRS has no UTM squares, and Sentinel-2 is not published.
NORTHERNMOST, SOUTHERNMOST = 84.0, -80.0


@dataclass(frozen=True, eq=False)
class Granule:
    """One MGRS tile's part of the ground.

    Attributes
    ----------
    tile : str
        MGRS square such as ``"06VVN"``.
    grids : dict of int to GeoBox
        Its grids, by pixel size in metres: 10 and 20.
    """

    tile: str
    grids: dict[int, GeoBox]
    _rows: npt.NDArray[np.int64] | slice = field(repr=False)
    _columns: npt.NDArray[np.int64] | slice = field(repr=False)
    _outside: npt.NDArray[np.bool_] | None = field(repr=False, default=None)

    def cut(self, ground: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Pixels of the ground on the granule's grid of 10 m: (y, x). In another zone, the nearest."""
        return ground[self._rows, self._columns]

    def hole(self, missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """As `cut` of a mask of missing ground; what lies beyond the ground is missing too."""
        found = self.cut(missing)
        return found if self._outside is None else found | self._outside


def granules(world: World) -> list[Granule]:
    """Cut the ground into a western and an eastern granule that share a fifth of it.

    Parameters
    ----------
    world : World
        With `WorldOptions.two_zones` the eastern granule lies in the neighbouring UTM zone. Beyond 84 N and 80 S
        there is none.
    """
    options, ground = world.options, world.ground
    if not SOUTHERNMOST <= options.latitude <= NORTHERNMOST:
        return []
    count = ground.shape[1]
    west_end, east_start = (round(count * share / 2) * 2 for share in (0.6, 0.4))
    box, zone = ground.boundingbox, int(str(ground.crs)[-2:])  # EPSG:326zz north, 327zz south
    middle = (box.bottom + box.top) / 2
    squares = [_square(zone, edge, middle, options.latitude) for edge in (box.left, box.right)]
    if squares[0] == squares[1]:
        squares[1] = _square(zone, box.right + 1e5, middle, options.latitude)
    parts = [ground[:, columns] for columns in (slice(0, west_end), slice(east_start, count))]
    slices = (slice(0, west_end), slice(east_start, count))
    cut = [
        Granule(tile, _grids(fine), slice(None), columns)
        for tile, fine, columns in zip(squares, parts, slices, strict=True)
    ]
    return [cut[0], _in_next_zone(world, parts[1])] if options.two_zones else cut


def _grids(fine: GeoBox) -> dict[int, GeoBox]:
    return {10: fine, 20: fine.zoom_out(2)}


def _in_next_zone(world: World, part: GeoBox) -> Granule:
    """A part of the ground on the grid of the UTM zone whose edge is nearest."""
    options, ground = world.options, world.ground
    own = int(str(ground.crs)[-2:])
    east = (options.longitude + 180.0) % 6.0 >= 3.0
    zone = (own - 1 + (1 if east else -1)) % 60 + 1
    crs = str(ground.crs)[:-2] + f"{zone:02d}"
    box = part.extent.to_crs(crs, resolution=100).boundingbox
    left, bottom = (np.floor(edge / ANCHOR) * ANCHOR for edge in (box.left, box.bottom))
    right, top = (np.ceil(edge / ANCHOR) * ANCHOR for edge in (box.right, box.top))
    shape = (round((top - bottom) / FINEST), round((right - left) / FINEST))
    fine = GeoBox(shape, Affine(FINEST, 0, left, 0, -FINEST, top), crs)
    x, y = np.meshgrid(left + FINEST * (np.arange(shape[1]) + 0.5), top - FINEST * (np.arange(shape[0]) + 0.5))
    across, up = Transformer.from_crs(crs, str(ground.crs), always_xy=True).transform(x, y)
    columns = np.floor((across - ground.affine.c) / FINEST).astype(np.int64)
    rows = np.floor((ground.affine.f - up) / FINEST).astype(np.int64)
    outside = (columns < 0) | (columns >= ground.shape[1]) | (rows < 0) | (rows >= ground.shape[0])
    rows, columns = (np.clip(n, 0, size - 1) for n, size in zip((rows, columns), ground.shape, strict=True))
    tile = _square(zone, (left + right) / 2, (bottom + top) / 2, options.latitude)
    return Granule(tile, _grids(fine), rows, columns, outside)


def _square(zone: int, easting: float, northing: float, latitude: float) -> str:
    """Name of the MGRS square of 100 km that holds a place (DMA Technical Manual 8358.1)."""
    band = "CDEFGHJKLMNPQRSTUVWXX"[int((latitude + 80) // 8)]
    column = ("STUVWXYZ", "ABCDEFGH", "JKLMNPQR")[zone % 3][(int(easting // 1e5) - 1) % 8]
    row = "ABCDEFGHJKLMNPQRSTUV"[(int(northing // 1e5) + (5 if zone % 2 == 0 else 0)) % 20]
    return f"{zone:02d}{band}{column}{row}"
