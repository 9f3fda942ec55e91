"""How tiles of an elevation model lie: rows of a degree with their own spacing, and the cells that have no tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from affine import Affine
from odc.geo.geobox import GeoBox

from glaciercube.cube.interpolate import Rows
from glaciercube.region import Bounds

__all__ = ["METRES_PER_DEGREE", "Cell", "Layer", "Strip", "Tile", "absent_cells", "layers", "neighbours"]

Cell = tuple[int, int]  # latitude and longitude of its south-western corner, whole degrees

# Columns of a GLO-30 tile by the latitude of its edge nearer to the equator (Copernicus DEM Product Handbook, table 4),
# as shares of its rows; needed only where a whole row of tiles is missing.
_COLUMNS: Final = ((85, 0.1), (80, 0.2), (70, 1 / 3), (60, 0.5), (50, 2 / 3), (0, 1.0))
_TOLERANCE = 0.1  # pixels
METRES_PER_DEGREE: Final = 111_320.0  # of latitude, to tell pixel sizes by


@dataclass(frozen=True)
class Tile:
    """One raster in degrees.

    Attributes
    ----------
    index : int
        Its place among the scenes.
    transform : Affine
        From pixels to degrees, north up.
    shape : (int, int)
        Rows and columns.
    """

    index: int
    transform: Affine
    shape: tuple[int, int]

    @property
    def cell(self) -> Cell | None:
        """The degree that it fills, if its pixel centres fall on whole degrees as those of GLO-30 do; else None."""
        rows, columns = self.shape
        a = self.transform
        north, west = a.f + a.e / 2, a.c + a.a / 2
        whole = (
            abs(rows * a.e + 1) < -_TOLERANCE * a.e
            and abs(columns * a.a - 1) < _TOLERANCE * a.a
            and abs(north - round(north)) < -_TOLERANCE * a.e
            and abs(west - round(west)) < _TOLERANCE * a.a
        )
        return (round(north) - 1, round(west)) if whole else None


@dataclass(frozen=True)
class Strip:
    """Native pixels of one spacing: a row of degree tiles, or rasters of another layout.

    Attributes
    ----------
    row, column : int
        Numbers of its first row and column.
    shape : (int, int)
        Rows and columns.
    left, step_x : float
        Degrees; see `glaciercube.cube.interpolate.Window`.
    turn : int
        Columns around the Earth; 0 where they do not close.
    top, step_y : float
        Degrees: upper edge of its first row, and spacing of rows.
    factor : int
        Stored pixels in a side of one of these.
    tiles : tuple of int
        Scenes that fill it.
    cells : tuple of Cell
        Degree cells of it that a tile fills.
    """

    row: int
    column: int
    shape: tuple[int, int]
    left: float
    step_x: float
    turn: int
    top: float
    step_y: float
    factor: int
    tiles: tuple[int, ...]
    cells: tuple[Cell, ...] = ()

    @property
    def geobox(self) -> GeoBox:
        """Its pixels as a grid in EPSG:4326."""
        corner = Affine(self.step_x, 0, self.left + self.column * self.step_x, 0, -self.step_y, self.top)
        return GeoBox(self.shape, corner, "EPSG:4326")

    def window(self, cell: Cell) -> tuple[slice, slice]:
        """Rows and columns of a degree cell within the strip."""
        width = round(1 / self.step_x)
        # Cells of one strip lie side by side, from its first column on.
        start = (cell[1] - self.first_cell) * width
        return slice(0, self.shape[0]), slice(start, start + width)

    @property
    def first_cell(self) -> int:
        """Longitude of its westernmost degree cell."""
        return round(self.left + self.column * self.step_x + 0.5 * self.step_x)

    @property
    def all_cells(self) -> list[Cell]:
        """Its degree cells, whether a tile fills them or not."""
        south = round(self.top - 0.5 * self.step_y) - 1
        count = round(self.shape[1] * self.step_x)
        return [(south, self.first_cell + i) for i in range(count)]


@dataclass(frozen=True)
class Layer:
    """Strips whose rows go on from one to the next.

    Attributes
    ----------
    rows : Rows
        Numbers of rows by latitude.
    strips : tuple of Strip
        No two share a row and a column.
    degrees : bool
        True if made of whole degree tiles, so that a missing tile can be told.
    """

    rows: Rows
    strips: tuple[Strip, ...]
    degrees: bool


def layers(tiles: Sequence[Tile], boxes: Sequence[Bounds], resolution: float) -> tuple[list[Layer], int]:
    """Lay tiles out.

    Parameters
    ----------
    tiles : sequence of Tile
        Rasters in degrees; at least one.
    boxes : sequence of (west, south, east, north)
        Degrees that are needed.
    resolution : float
        Metres of a target pixel. From twice the native spacing on, means of 2, 4 or 8 native pixels are laid out in
        the stead of native pixels.

    Returns
    -------
    layers : list of Layer
        Degree tiles first, the finest before the others; then other rasters one by one.
    samples : int
        Samples to take along each side of a target pixel, so that none of the finest native pixels is passed over.
    """
    shrink = resolution / (min(-tile.transform.e for tile in tiles) * METRES_PER_DEGREE)
    whole: dict[int, list[Tile]] = {}
    other: list[Tile] = []
    for tile in tiles:
        same = whole.setdefault(tile.shape[0], []) if tile.cell else other
        # One spacing to a row of degrees; what differs stands alone.
        alike = all(t.shape == tile.shape for t in same if t.cell and tile.cell and t.cell[0] == tile.cell[0])
        (same if alike else other).append(tile)
    found: list[Layer] = []
    finest = 1
    for rows in sorted(whole, reverse=True):
        factor = _factor(shrink * rows / max(whole), whole[rows])
        finest = factor if not found else finest
        found.append(_degree_layer(whole[rows], boxes, factor))
    return [*found, *(_single_layer(tile) for tile in other)], max(1, round(shrink / finest))


def absent_cells(layer: Layer) -> list[list[Cell]]:
    """Degree cells without a tile, in groups that share edges.

    Parameters
    ----------
    layer : Layer
        Of degree tiles.
    """
    missing = {cell for strip in layer.strips for cell in strip.all_cells if cell not in strip.cells}
    groups = []
    while missing:
        group = [missing.pop()]
        for cell in group:
            near = missing & set(neighbours(cell))
            missing -= near
            group += sorted(near)
        groups.append(sorted(group))
    return sorted(groups)


def neighbours(cell: Cell) -> list[Cell]:
    """The four cells that share an edge with one: north, south, west and east."""
    south, west = cell
    return [(south + 1, west), (south - 1, west), (south, _cell_column(west - 1)), (south, _cell_column(west + 1))]


def _cell_column(west: int) -> int:
    return (west + 180) % 360 - 180


def _factor(shrink: float, tiles: Sequence[Tile]) -> int:
    factor = 1
    while factor < 8 and shrink >= 2 * factor and not any(n % (2 * factor) for tile in tiles for n in tile.shape):
        factor *= 2
    return factor


def _degree_layer(tiles: Sequence[Tile], boxes: Sequence[Bounds], factor: int) -> Layer:
    count = tiles[0].shape[0]
    native = 1.0 / count
    step = factor * native
    rows = Rows(90.0 + native / 2, step, 180 * count // factor)
    strips = [
        _degree_strip(tiles, south, west, east, count, factor)
        for south in _cell_rows(boxes)
        for west, east in _cell_columns(boxes)
    ]
    return Layer(rows, tuple(strips), degrees=True)


def _degree_strip(tiles: Sequence[Tile], south: int, west: int, east: int, count: int, factor: int) -> Strip:
    row = [tile for tile in tiles if tile.cell and tile.cell[0] == south]
    columns = row[0].shape[1] if row else _default_columns(south, count)
    own = [tile for tile in row if tile.cell and west <= tile.cell[1] <= east and tile.shape[1] == columns]
    width = columns // factor
    native = 1.0 / columns
    return Strip(
        row=(89 - south) * (count // factor),
        column=(west + 180) * width,
        shape=(count // factor, (east - west + 1) * width),
        left=-180.0 - native / 2,
        step_x=factor * native,
        turn=360 * width,
        top=south + 1.0 + 0.5 / count,
        step_y=factor / count,
        factor=factor,
        tiles=tuple(tile.index for tile in own),
        cells=tuple(sorted({tile.cell for tile in own if tile.cell})),
    )


def _default_columns(south: int, count: int) -> int:
    nearer = south if south >= 0 else -south - 1
    return round(count * next(share for least, share in _COLUMNS if nearer >= least))


def _cell_rows(boxes: Sequence[Bounds]) -> list[int]:
    # The row at a whole degree belongs to the tile south of it.
    low, high = (math.ceil(edge) - 1 for edge in (min(b[1] for b in boxes), max(b[3] for b in boxes)))
    return [south for south in range(high, low - 1, -1) if -90 <= south <= 89]


def _cell_columns(boxes: Sequence[Bounds]) -> list[tuple[int, int]]:
    ranges = sorted((max(math.floor(w), -180), min(math.floor(e), 179)) for w, _, e, _ in boxes)
    joined = [ranges[0]]
    for west, east in ranges[1:]:
        if west <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(east, joined[-1][1]))
        else:
            joined.append((west, east))
    return joined


def _single_layer(tile: Tile) -> Layer:
    a = tile.transform
    strip = Strip(
        row=0,
        column=0,
        shape=tile.shape,
        left=a.c,
        step_x=a.a,
        turn=0,
        top=a.f,
        step_y=-a.e,
        factor=1,
        tiles=(tile.index,),
    )
    return Layer(Rows(a.f, -a.e), (strip,), degrees=False)
