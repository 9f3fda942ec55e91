"""The ground: elevation and what follows from it, once for all dates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from glaciercube.catalog import Scenes
from glaciercube.cube.interpolate import MEASURED, SEA_LEVEL, VOID, Rows, Window, interpolate
from glaciercube.cube.native import Mosaic, Native, WindowPlan, chunks_of, direct_elevation, lay_out, open_native
from glaciercube.cube.north import lonlat, north_at
from glaciercube.cube.terrain import POSITION_RADIUS, terrain_halo, terrain_variables
from glaciercube.cube.tiles import METRES_PER_DEGREE, Layer, absent_cells
from glaciercube.reading.request import Backend
from glaciercube.region import Cut, geographic_bounds, whole_of
from glaciercube.region.bounds import search_boxes
from glaciercube.sensors import Sensor
from glaciercube.sensors.copdem import GEOID

__all__ = ["load_ground"]

Elevation: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]

_VARIABLES: dict[str, dict[str, Any]] = {
    "elevation": {
        "units": "m",
        "standard_name": "height_above_geopotential_datum",
        "long_name": "elevation",
        "geoid": GEOID,
    },
    "slope": {"units": "degree", "long_name": "slope of the surface"},
    "aspect_sin": {"units": "1", "long_name": "sine of the downslope direction, clockwise from true north"},
    "aspect_cos": {"units": "1", "long_name": "cosine of the downslope direction, clockwise from true north"},
    "curvature": {"units": "m-1", "long_name": "Laplacian of elevation, positive in hollows"},
    "topographic_position": {
        "units": "1",
        "long_name": "height above the mean of the surroundings, in their standard deviations",
        "radius": POSITION_RADIUS,
    },
    "dem_flags": {
        "long_name": "where the elevation comes from",
        "flag_masks": np.array([MEASURED, SEA_LEVEL, VOID], dtype="uint8"),
        "flag_meanings": "measured sea_level_without_tile void",
    },
}
# Native pixels that interpolation may reach beyond a point, and as many to spare.
_REACH = 4


def load_ground(sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int, backend: Backend) -> xr.Dataset:
    """Lay the elevation model on the grid, with what follows from it, lazily.

    Tiles are read pixel by pixel as they are stored and interpolated as one surface, so that their edges and the
    latitudes where their spacing changes leave no trace. A degree without a tile is the open sea, at 0 m, if every tile
    that the region meets beside it looks on it from sea level; otherwise it is a gap of the archive, and NaN.

    Parameters
    ----------
    sensor : Sensor
        The elevation model.
    scenes : Scenes
        Its tiles.
    geobox : GeoBox
        The grid.
    cell : int
        Side of a lattice cell in pixels.
    backend : Backend
        What reads.

    Returns
    -------
    Dataset (y, x)
        ``elevation slope aspect_sin aspect_cos curvature topographic_position`` float32, NaN where unknown, and
        ``dem_flags`` uint8; see `glaciercube.cube.load`.
    """
    stack = _stack(sensor, scenes, geobox, cell, backend)
    coords = xr_coords(geobox)
    dims = geobox.dims
    variables = {
        name: xr.DataArray(stack[index], dims=dims, coords=coords, attrs=dict(attrs))
        for index, (name, attrs) in enumerate(_VARIABLES.items())
    }
    variables["dem_flags"] = variables["dem_flags"].astype("uint8")
    for variable in variables.values():
        variable.encoding["grid_mapping"] = "spatial_ref"
    epochs = sorted({json.loads(text)["epoch"] for text in scenes.table["notes"]})
    return xr.Dataset(variables, attrs={"epoch": "/".join(epochs)})


@dataclass(frozen=True)
class _Job:
    """What the elevation of one block is made of, but for the pixels.

    Attributes
    ----------
    geobox : GeoBox
        The whole grid, by which pixels are placed: their coordinates are then the same whichever block asks.
    rows, columns : range
        Of the block on that grid; may lie beyond it.
    samples : int
        Samples along each side of a pixel.
    layers : tuple of (Rows, tuple of WindowPlan)
        The first that knows a pixel wins.
    direct : Mosaic or None
        What the backend laid on the grid itself, which comes last.
    """

    geobox: GeoBox
    rows: range
    columns: range
    samples: int
    layers: tuple[tuple[Rows, tuple[WindowPlan, ...]], ...]
    direct: Mosaic | None


def _points(
    geobox: GeoBox, place: tuple[range, range], row: float, column: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Map coordinates (metres) of a point within every pixel, by its offset from the upper left corner."""
    a = geobox.affine
    x, y = np.meshgrid(
        a.c + a.a * (np.arange(place[1].start, place[1].stop) + column),
        a.f + a.e * (np.arange(place[0].start, place[0].stop) + row),
    )
    return x.ravel(), y.ravel()


def _stack(sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int, backend: Backend) -> Any:
    """All variables on the grid: (variable, y, x) float32 dask array in blocks of a cell."""
    resolution = float(abs(geobox.resolution.x))
    halo = terrain_halo(resolution)
    padded = geobox.pad(halo)
    assets = [bands["elevation"].asset for bands in scenes.bands()]
    items, margin = scenes.items(), _margin(resolution)
    layout, samples, others = lay_out(items, assets, search_boxes(padded, margin), resolution)
    around: Sequence[Layer | None] = [None] * len(layout)
    if isinstance(geobox, Cut) and any(absent_cells(layer) for layer in layout if layer.degrees):
        # Whether a gap is the sea is asked of all that looks on it, also from beyond the window.
        boxes = search_boxes(whole_of(geobox).pad(halo), margin)
        around = lay_out(items, assets, boxes, resolution)[0]
    native = [open_native(layer, sensor, scenes, backend, wide) for layer, wide in zip(layout, around, strict=True)]
    direct = direct_elevation(sensor, scenes, others, padded, cell, backend) if others else None
    name = f"ground-{tokenize(geobox, cell, [n.name for n in native], getattr(direct, 'name', ''))}"
    # Pixels see far around themselves, and elevation is made once for all blocks that see it.
    around_blocks = [_around(size, cell, halo) for size in geobox.shape]
    graph: dict[Any, Any] = {}
    for i, rows in enumerate(around_blocks[0]):
        for j, columns in enumerate(around_blocks[1]):
            job, keys = _plan(geobox, (rows, columns), samples, native, direct)
            graph[f"{name}-elevation", i, j] = (_elevation, job, keys, [[sea.key for sea in n.sea] for n in native])
    blocks = [_ranges(size, cell) for size in geobox.shape]
    first, left = geobox.corner if isinstance(geobox, Cut) else (0, 0)
    for i, rows in enumerate(blocks[0]):
        for j, columns in enumerate(blocks[1]):
            (picked_rows, top), (picked_columns, start) = (
                _seen(r, ranges, halo) for r, ranges in zip((rows, columns), around_blocks, strict=True)
            )
            keys = [[(f"{name}-elevation", k, m) for m in picked_columns] for k in picked_rows]
            place = (range(rows.start + first, rows.stop + first), range(columns.start + left, columns.stop + left))
            graph[name, 0, i, j] = (_block, whole_of(geobox), place, (top, start), keys)
    sources = [array for layer in native for _, array in layer.strips if array is not None]
    sources += [sea for layer in native for sea in layer.sea] + ([direct] if direct is not None else [])
    chunks = ((len(_VARIABLES),), *(tuple(len(r) for r in ranges) for ranges in blocks))
    layered = HighLevelGraph.from_collections(name, graph, dependencies=sources)
    return da.Array(layered, name, chunks, dtype="float32", meta=np.empty((0, 0, 0), dtype="float32"))


def _plan(
    geobox: GeoBox, block: tuple[range, range], samples: int, native: Sequence[Native], direct: Any
) -> tuple[_Job, list[list[Any]]]:
    """What elevation needs in a block, which may lie beyond the grid by a halo.

    The plan, and the keys of the chunks by window, those of `direct` last.
    """
    resolution = float(abs(geobox.resolution.x))
    halo = terrain_halo(resolution)
    # Pixels are placed by the whole grid, whatever window of it this is.
    first, left = geobox.corner if isinstance(geobox, Cut) else (0, 0)
    placed = [range(r.start + n, r.stop + n) for r, n in zip(block, (first, left), strict=True)]
    edges = [(r.start + halo, r.stop + halo) for r in block]
    extent = geobox.pad(halo)[slice(*edges[0]), slice(*edges[1])]
    bounds = geographic_bounds(extent, _margin(resolution))
    plans = [layer.plan(bounds) for layer in native]
    keys = [chunk for plan in plans for _, chunk in plan]
    mosaic = None
    if direct is not None:
        # The array begins one halo before the grid does.
        mosaic, chunks = chunks_of(direct, (*edges[0], *edges[1]))
        keys.append(chunks)
    layers = tuple((layer.rows, tuple(w for w, _ in plan)) for layer, plan in zip(native, plans, strict=True))
    return _Job(whole_of(geobox), placed[0], placed[1], samples, layers, mosaic), keys


def _around(length: int, step: int, halo: int) -> list[range]:
    """Blocks of a grid, and what lies around it."""
    return [range(-halo, 0), *_ranges(length, step), range(length, length + halo)]


def _seen(block: range, blocks: Sequence[range], halo: int) -> tuple[list[int], int]:
    """Which blocks a block sees, and how far into the first of them it begins to see."""
    start, stop = block.start - halo, block.stop + halo
    found = [k for k, other in enumerate(blocks) if other.start < stop and other.stop > start]
    return found, start - blocks[found[0]].start


def _margin(resolution: float) -> float:
    """Metres around a block from which its pixels may be interpolated."""
    return _REACH * max(resolution, METRES_PER_DEGREE / 3600)


def _ranges(length: int, step: int) -> list[range]:
    return [range(start, min(start + step, length)) for start in range(0, length, step)]


def _block(
    geobox: GeoBox, place: tuple[range, range], start: tuple[int, int], around: Sequence[Sequence[Elevation]]
) -> npt.NDArray[np.float32]:
    """Compute one block, at its place on the whole grid, of the elevation around it: (variable, y, x) float32."""
    resolution = float(abs(geobox.resolution.x))
    halo = terrain_halo(resolution)
    height, width = (len(r) + 2 * halo for r in place)
    window = (slice(start[0], start[0] + height), slice(start[1], start[1] + width))
    elevation, kinds = (np.block([[block[n] for block in line] for line in around])[window] for n in (0, 1))
    inside = (slice(halo, halo + len(place[0])), slice(halo, halo + len(place[1])))
    found = {name: values[inside] for name, values in terrain_variables(elevation, resolution).items()}
    north = north_at(geobox, *_points(geobox, place, 0.5, 0.5)).reshape(2, len(place[0]), len(place[1]))
    # The sun's azimuth counts from true north, and so must the aspect: on polar grids they differ by any angle.
    sine = found["aspect_sin"] * north[1] - found["aspect_cos"] * north[0]
    cosine = found["aspect_cos"] * north[1] + found["aspect_sin"] * north[0]
    layers = {**found, "elevation": elevation[inside], "aspect_sin": sine, "aspect_cos": cosine}
    layers["dem_flags"] = kinds[inside]
    return np.stack([layers[name] for name in _VARIABLES]).astype(np.float32)


def _elevation(
    job: _Job, chunks: Sequence[Sequence[npt.NDArray[np.float32]]], sea: Sequence[Sequence[bool]]
) -> Elevation:
    """Elevation (y, x) float32 of the pixels of a block, and what they rest on: uint8."""
    remaining = iter(chunks)
    layers = [
        (rows, [plan.build(next(remaining), states) for plan in plans])
        for (rows, plans), states in zip(job.layers, sea, strict=True)
    ]
    count = len(job.rows) * len(job.columns)
    total, known = np.zeros(count), np.zeros(count)
    kinds = np.zeros(count, dtype=np.uint8)
    offsets = (np.arange(job.samples) + 0.5) / job.samples
    for row in offsets:
        for column in offsets:
            value, kind = _sample(
                layers, *lonlat(job.geobox, *_points(job.geobox, (job.rows, job.columns), row, column))
            )
            total += np.nan_to_num(value)
            known += np.isfinite(value)
            kinds |= kind
    with np.errstate(invalid="ignore", divide="ignore"):
        # A pixel of which less than half is known is not.
        elevation = np.where(2 * known >= job.samples**2, total / known, np.nan).astype(np.float32)
    if job.direct is not None:
        laid = job.direct.build(next(remaining)).ravel()
        fill = np.isnan(elevation) & np.isfinite(laid)
        elevation[fill], kinds[fill] = laid[fill], MEASURED
    shape = (len(job.rows), len(job.columns))
    return elevation.reshape(shape), kinds.reshape(shape)


def _sample(
    layers: Sequence[tuple[Rows, Sequence[Window]]],
    longitude: npt.NDArray[np.float64],
    latitude: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    value = np.full(longitude.shape, np.nan)
    kind = np.full(longitude.shape, VOID, dtype=np.uint8)
    for rows, windows in layers:
        need = np.isnan(value)
        if need.any():
            value[need], kind[need] = interpolate(windows, rows, longitude[need], latitude[need])
    return value, kind
