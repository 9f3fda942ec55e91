"""Native pixels of an elevation model, lazily: which of them a block needs, and what stands where there is no tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pystac
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes
from glaciercube.cube.interpolate import MEASURED, SEA_LEVEL, VOID, Rows, Window
from glaciercube.cube.tiles import Cell, Layer, Strip, Tile, absent_cells, layers, neighbours
from glaciercube.reading.request import Backend, requests
from glaciercube.region import Bounds, split_bounds
from glaciercube.sensors import Sensor

__all__ = [
    "Mosaic",
    "Native",
    "WindowPlan",
    "chunks_of",
    "direct_elevation",
    "lay_out",
    "open_native",
    "self_contained",
]

Edges: TypeAlias = tuple[int, int, int, int]

# Native pixels a side of what is read at once: a quarter of a GLO-30 tile; half of its columns near the poles, where
# blocks need many columns of few rows.
_CHUNK = 900
# Metres: what may be missing from sea level on the edge of a tile that looks out on the open sea.
_SEA_TOLERANCE = 0.5


@dataclass(frozen=True)
class Mosaic:
    """How to put a window of a chunked array together once its chunks are there.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the window.
    places : tuple of (int, int)
        Row and column within the window of the first pixel of each chunk; may be negative.
    """

    shape: tuple[int, int]
    places: tuple[tuple[int, int], ...]

    def build(self, chunks: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Put the chunks in their places; NaN where there is none."""
        values = np.full(self.shape, np.nan, dtype=np.float32)
        for chunk, place in zip(chunks, self.places, strict=True):
            overlaps = [_overlap(*sizes) for sizes in zip(place, chunk.shape, self.shape, strict=True)]
            values[overlaps[0][0], overlaps[1][0]] = chunk[overlaps[0][1], overlaps[1][1]]
        return values


@dataclass(frozen=True)
class WindowPlan:
    """How to make a `glaciercube.cube.interpolate.Window`.

    Attributes
    ----------
    mosaic : Mosaic
        Of its values.
    row, column, left, step, turn
        As of the window.
    absent : tuple of (int, int, int, int, int)
        First and last rows and columns within the window (ends excluded) of cells without a tile, and their group.
    """

    mosaic: Mosaic
    row: int
    column: int
    left: float
    step: float
    turn: int
    absent: tuple[tuple[int, int, int, int, int], ...]

    def build(self, chunks: Sequence[npt.NDArray[np.float32]], sea: Sequence[bool]) -> Window:
        """Fill the window; a cell whose group is sea is at 0 m, any other without a tile stays unknown."""
        values = self.mosaic.build(chunks)
        kinds = np.where(np.isnan(values), VOID, MEASURED).astype(np.uint8)
        for top, bottom, left, right, group in self.absent:
            if sea[group]:
                values[top:bottom, left:right] = 0.0
                kinds[top:bottom, left:right] = SEA_LEVEL
        return Window(self.row, self.column, self.left, self.step, self.turn, values, kinds)


@dataclass(frozen=True, eq=False)
class Native:
    """A layer of tiles with its lazy pixels.

    Attributes
    ----------
    rows : Rows
        Numbers of rows by latitude.
    strips : tuple of (Strip, dask array or None)
        (y, x) float32 metres, NaN where unknown; None where there is no tile.
    groups : mapping
        Degree cell without a tile -> number of its group.
    sea : tuple
        For each group whether it is the open sea: a delayed bool.
    """

    rows: Rows
    strips: tuple[tuple[Strip, Any], ...]
    groups: dict[Cell, int]
    sea: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Names of the lazy arrays, which change with what is read."""
        return "/".join(array.name for _, array in self.strips if array is not None)

    def plan(self, bounds: Bounds, reach: int = 3) -> list[tuple[WindowPlan, list[Any]]]:
        """Which windows hold all pixels about points within bounds, and the chunks that they need.

        Parameters
        ----------
        bounds : (west, south, east, north)
            Degrees; ``west > east`` crosses the antimeridian.
        reach : int
            Native pixels beyond.
        """
        plans = []
        for strip, array in self.strips:
            for west, south, east, north in split_bounds(bounds):
                top, bottom = (math.floor(self.rows.number(edge)) for edge in (north, south))
                left, right = (math.floor((edge - strip.left) / strip.step_x - 0.5) for edge in (west, east))
                first, last = (_clip(n - strip.row, strip.shape[0]) for n in (top - reach, bottom + reach + 1))
                for turn in (0, strip.turn, -strip.turn) if strip.turn else (0,):
                    start, end = (
                        _clip(n + turn - strip.column, strip.shape[1]) for n in (left - reach, right + reach + 1)
                    )
                    if first < last and start < end:
                        plans.append(self._window(strip, array, (first, last, start, end)))
        return plans

    def _window(self, strip: Strip, array: Any, edges: Edges) -> tuple[WindowPlan, list[Any]]:
        first, last, start, end = edges
        mosaic, keys = chunks_of(array, edges) if array is not None else (Mosaic((last - first, end - start), ()), [])
        absent = []
        for cell in strip.all_cells:
            if cell in self.groups:
                rows, columns = strip.window(cell)
                top, bottom = (_clip(n - first, last - first) for n in (rows.start, rows.stop))
                left, right = (_clip(n - start, end - start) for n in (columns.start, columns.stop))
                if top < bottom and left < right:
                    absent.append((top, bottom, left, right, self.groups[cell]))
        position = (strip.row + first, strip.column + start)
        return WindowPlan(mosaic, *position, strip.left, strip.step_x, strip.turn, tuple(absent)), keys


def lay_out(
    items: Sequence[pystac.Item], assets: Sequence[str], boxes: Sequence[Bounds], resolution: float
) -> tuple[list[Layer], int, list[int]]:
    """Lay out what items say of their rasters; see `glaciercube.cube.tiles.layers`.

    Returns
    -------
    layers : list of Layer
        Of rasters in degrees.
    samples : int
        Samples along each side of a target pixel.
    others : list of int
        Items whose rasters are in another CRS, or that do not say.
    """
    tiles, others = [], []
    for index, (item, key) in enumerate(zip(items, assets, strict=True)):
        tile = _tile(index, item, item.assets[key])
        if tile is None:
            others.append(index)
        else:
            tiles.append(tile)
    found, samples = layers(tiles, boxes, resolution) if tiles else ([], 1)
    return found, samples, others


def self_contained(items: Sequence[pystac.Item], assets: Sequence[str], boxes: Sequence[Bounds]) -> bool:
    """Whether a window of a region needs only the tiles that it meets.

    That is so where all are degree tiles of one spacing and no degree lacks one: tiles elsewhere then decide neither at
    which spacing pixels are laid out, nor which gaps are the sea.

    Parameters
    ----------
    items, assets
        As of `lay_out`.
    boxes : sequence of (west, south, east, north)
        Degrees that the region needs.
    """
    tiles = [_tile(index, item, item.assets[key]) for index, (item, key) in enumerate(zip(items, assets, strict=True))]
    known = [tile for tile in tiles if tile is not None and tile.cell]
    if len(known) < len(tiles) or len({tile.shape[0] for tile in known}) != 1:
        return False
    found, _ = layers(known, boxes, 1.0)
    return len(found) == 1 and found[0].degrees and not absent_cells(found[0])


def open_native(layer: Layer, sensor: Sensor, scenes: Scenes, backend: Backend, around: Layer | None = None) -> Native:
    """Attach lazy pixels to a layer.

    Parameters
    ----------
    layer : Layer
        From `lay_out`.
    sensor : Sensor
        The elevation model.
    scenes : Scenes
        Whose rows `Strip.tiles` number.
    backend : Backend
        What reads; asked for native pixels, it interpolates nothing.
    around : Layer or None
        The same tiles laid out for the whole region, where `layer` is a window of it: which of its gaps are the sea is
        decided by all tiles that look on them.
    """
    strips = tuple((strip, _strip_array(strip, sensor, scenes, backend)) for strip in layer.strips)
    groups = absent_cells(around or layer) if layer.degrees else []
    looking: Sequence[tuple[Strip, Any]] = strips
    if around is not None:
        here = {cell for strip in layer.strips for cell in strip.all_cells}
        groups = [group for group in groups if here & set(group)]
        near = {cell for group in groups for absent in group for cell in neighbours(absent)}
        strips_near = [strip for strip in around.strips if near & set(strip.cells)]
        looking = [(strip, _strip_array(strip, sensor, scenes, backend)) for strip in strips_near]
    numbers = {cell: number for number, group in enumerate(groups) for cell in group}
    edges = [_edges(group, looking) for group in groups]
    sea = tuple(dask.delayed(_is_sea)(lines) for lines in edges)
    return Native(layer.rows, strips, numbers, sea)


def direct_elevation(
    sensor: Sensor, scenes: Scenes, rows: Sequence[int], geobox: GeoBox, cell: int, backend: Backend
) -> Any:
    """Elevation of some scenes laid on a grid by the backend itself: (y, x) float32 dask array, NaN where unknown."""
    # Slopes are derived from it: bilinear facets would show in every one of them.
    return _elevation(sensor, _some(scenes, rows), geobox, cell, backend, "cubic")


def _strip_array(strip: Strip, sensor: Sensor, scenes: Scenes, backend: Backend) -> Any:
    if not strip.tiles:
        return None
    # Native pixels, or means of whole ones: nothing is interpolated.
    chunk = min(_CHUNK, strip.turn // 720) if strip.turn else _CHUNK
    resampling = "average" if strip.factor > 1 else "nearest"
    return _elevation(sensor, _some(scenes, strip.tiles), strip.geobox, chunk, backend, resampling)


def _some(scenes: Scenes, rows: Sequence[int]) -> Scenes:
    return Scenes(scenes.table.iloc[list(rows)].reset_index(drop=True), scenes.source, scenes.signing)


def _elevation(sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int, backend: Backend, resampling: str) -> Any:
    surface: Any = None
    for request in requests(sensor, scenes, geobox, cell):
        # Tiles say different dates and make one surface.
        raw = backend(replace(request, resampling={"elevation": resampling})).isel(time=0, drop=True)
        part = sensor.decode(raw, xr.DataArray(0.0))["elevation"].data
        surface = part if surface is None else da.where(da.isnan(surface), part, surface)
    return surface


def chunks_of(array: Any, edges: Edges) -> tuple[Mosaic, list[Any]]:
    """The chunks of a lazy array that meet a window of it: how to put them together, and their keys.

    Parameters
    ----------
    array : (y, x) dask array
        float32.
    edges : (first row, last row, first column, last column)
        The window, ends excluded.
    """
    first, last, start, end = edges
    places, keys = [], []
    for i, (top, height) in enumerate(_starts(array.chunks[0])):
        for j, (left, width) in enumerate(_starts(array.chunks[1])):
            if top < last and top + height > first and left < end and left + width > start:
                places.append((top - first, left - start))
                keys.append((array.name, i, j))
    return Mosaic((last - first, end - start), tuple(places)), keys


def _starts(chunks: Sequence[int]) -> list[tuple[int, int]]:
    starts = np.concatenate([[0], np.cumsum(chunks)[:-1]])
    return [(int(start), int(size)) for start, size in zip(starts, chunks, strict=True)]


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """Where a chunk that starts somewhere goes in a window of a size, and which part of it does."""
    low, high = max(start, 0), min(start + length, size)
    return slice(low, high), slice(low - start, high - start)


def _clip(number: int, size: int) -> int:
    return min(max(number, 0), size)


def _tile(index: int, item: pystac.Item, asset: pystac.Asset) -> Tile | None:
    fields = {**item.properties, **asset.extra_fields}
    crs = str(fields.get("proj:code") or fields.get("proj:epsg") or "")
    transform, shape = fields.get("proj:transform"), fields.get("proj:shape")
    if crs.removeprefix("EPSG:") != "4326" or not transform or not shape:
        return None
    affine = Affine(*(float(value) for value in transform[:6]))
    if affine.b or affine.d or affine.a <= 0 or affine.e >= 0:
        return None
    return Tile(index, affine, (int(shape[0]), int(shape[1])))


def _edges(group: Sequence[Cell], strips: Sequence[tuple[Strip, Any]]) -> list[Any]:
    """Lines of pixels along which tiles look on a group of cells without one."""
    lines = []
    # From the absent cell: north, south, west, east; the tile there faces it with its last row, first row and so on.
    facing: list[Callable[[Any], Any]] = [
        lambda block: block[-1, :],
        lambda block: block[0, :],
        lambda block: block[:, -1],
        lambda block: block[:, 0],
    ]
    for cell in group:
        for near, line in zip(neighbours(cell), facing, strict=True):
            for strip, array in strips:
                if near in strip.cells:
                    lines.append(line(array[strip.window(near)]))
    return lines


def _is_sea(lines: Sequence[npt.NDArray[np.float32]]) -> bool:
    """Whether every tile that looks on a gap looks on it from sea level; without any that looks, nobody knows."""
    return bool(lines) and all(bool((np.abs(line) <= _SEA_TOLERANCE).all()) for line in lines)
