"""Labels and weights of a window, from outlines that are older or newer than its images.

An outline says what was glacier on its own date, and glaciers shrink. By how many metres a year their margin goes back
on average is the share of their area that they lose, times area over perimeter: 1.9 % a year (Alps 2015-2023, Diaconu
et al. 2025) times 371 m (all 86 RGI 6 outlines around Mount Everest) is 7 m. Taking the way that a margin went back as
exponentially distributed, a pixel `d` metres within an outline of `t` years before is still ice with probability
``1 - exp(-d / (retreat * t))``; that is its weight. The same holds without, for images that are older than the outline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox
from scipy import ndimage

from glaciercube.errors import OutlineError, require
from glaciercube.models.chips import UNKNOWN
from glaciercube.models.classes import CLASSES, ICE_PARTS
from glaciercube.training.inventory import Inventory

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["DebrisLayer", "Truth", "TruthOptions", "debris_of", "label_window", "labels_of"]

#: Gives 1 where debris lies on a grid, 0 where none does, `UNKNOWN` where it is not known: (y, x) uint8.
DebrisLayer: TypeAlias = Callable[[GeoBox], npt.NDArray[np.uint8]]

# Metres around a window within which the edges of outlines are looked for.
_FAR = 1000.0


@dataclass(frozen=True)
class TruthOptions:
    """How far outlines are trusted.

    Attributes
    ----------
    inside, outside : tuple of str
        Classes that ground within outlines, and beyond them, may be. An inventory of rock glaciers has
        ``inside=("rock_glacier",)``.
    retreat : float
        Metres a year by which margins go back on average (see the module); 0 takes outlines as they are.
    half_life : float or None
        Years between outline and image after which a label weighs half. 20 by default: at 1.9 % a year a third of the
        area is gone by then. None: age weighs only near the edge.
    max_age : float
        Years beyond which an outline says nothing of an image, and its ground is unknown. 30 by default.
    boundary : float
        Pixels on each side of an outline within which it may be off: 1 by default, as analysts agree on clean ice
        (Paul et al. 2013, doi:10.3189/2013AoG63A296).
    boundary_weight : float
        Weight of those, 0 to 1: 0.5 by default, since a label there is as likely right as wrong at the line itself. 0
        makes them unknown.
    beyond : float or None
        Metres from the outlines beyond which ground is unknown, for inventories that leave glaciers out. None: the
        inventory is complete, and all other ground is `outside`.
    """

    inside: tuple[str, ...] = ICE_PARTS
    outside: tuple[str, ...] = ("other", "seasonal_snow", "water")
    retreat: float = 7.0
    half_life: float | None = 20.0
    max_age: float = 30.0
    boundary: float = 1.0
    boundary_weight: float = 0.5
    beyond: float | None = None

    def __post_init__(self) -> None:
        for name in ("inside", "outside"):
            classes = tuple(getattr(self, name))
            object.__setattr__(self, name, classes)
            unknown = [kind for kind in classes if kind not in CLASSES]
            require(bool(classes) and not unknown, f"{name} is {list(classes)}", f"choose among {', '.join(CLASSES)}")
        shared = sorted(set(self.inside) & set(self.outside))
        require(not shared, f"{', '.join(shared)} lies inside and outside", "name each class once")
        require(0 <= self.retreat <= 1000, f"retreat {self.retreat} is not metres a year", "give 0 to 1000")
        require(self.max_age > 0, f"max_age {self.max_age} is not a number of years", "give more than 0")
        fine = self.half_life is None or self.half_life > 0
        require(fine, f"half_life {self.half_life} is not a number of years", "give more than 0, or null")
        require(0 <= self.boundary <= 50, f"boundary {self.boundary} is not a number of pixels", "give 0 to 50")
        fine = 0 <= self.boundary_weight <= 1
        require(fine, f"boundary_weight {self.boundary_weight} is not a weight", "give 0 to 1")
        fine = self.beyond is None or 0 < self.beyond <= 20_000
        require(fine, f"beyond {self.beyond} is not a distance in metres", "give up to 20000, or null")


@dataclass(frozen=True)
class Truth:
    """What outlines say of a window.

    Attributes
    ----------
    label : (time, y, x) uint8
        Index into `labels_of`, `UNKNOWN` where nothing is known.
    weight : (time, y, x) float32
        0 where the label is unknown.
    glaciers : (y, x) int32
        Number of the glacier, 0 for none: its place among the inventory's names, from 1.
    sure : (time, y, x) bool
        Where the label is more likely right than wrong: not on the line, and not where the margin has probably passed.
    """

    label: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.float32]
    glaciers: npt.NDArray[np.int32]
    sure: npt.NDArray[np.bool_]


def labels_of(options: TruthOptions, *, debris: bool) -> dict[str, tuple[str, ...]]:
    """Labels in order, and the classes that each may be.

    Parameters
    ----------
    options : TruthOptions
        Whose classes.
    debris : bool
        Whether it is known where debris lies; where it is not, ice stays either.
    """
    if debris:
        require(
            options.inside == ICE_PARTS, "a debris layer parts no such outlines", f"leave inside as {list(ICE_PARTS)}"
        )
        return {"other": options.outside, **{name: (name,) for name in ICE_PARTS}, "glacier": options.inside}
    return {"other": options.outside, "glacier" if options.inside == ICE_PARTS else options.inside[0]: options.inside}


def label_window(
    window: GeoBox,
    time: npt.NDArray[np.datetime64],
    inventory: Inventory,
    options: TruthOptions,
    debris: DebrisLayer | None = None,
) -> Truth:
    """Label a window at the dates of its images.

    Parameters
    ----------
    window : GeoBox
        On the grid of the inventory's CRS.
    time : (time,) datetime64
        Of the images.
    inventory : Inventory
        From `read_inventory`.
    options : TruthOptions
        How far it is trusted.
    debris : callable or None
        From `debris_of`.
    """
    covered = None if debris is None else debris(window)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(inventory.outlines["glacier"]), start=1)}
    number = np.array([0, *(numbers[name] for name in inventory.outlines["glacier"])], np.int32)
    labels, weights, sures = [], [], []
    known: dict[bytes, _Edges] = {}
    for date in time:
        rows, ages = inventory.nearest_in_time(date), inventory.ages(date)
        edges = known.get(rows.tobytes()) or _edges(window, inventory.outlines, rows, options)
        known[rows.tobytes()] = edges
        label, weight, sure = _judged(edges, ages, options, float(abs(window.resolution.x)))
        if covered is not None:
            label = _with_debris(label, covered)
        labels.append(label)
        weights.append(np.where(label == UNKNOWN, 0.0, weight).astype(np.float32))
        sures.append(sure & (label != UNKNOWN))
    # Of outlines of several dates the first date's: a number is a glacier's, and its ground nearly the same.
    first = next(iter(known.values()))
    return Truth(np.stack(labels), np.stack(weights), number[first.owner], np.stack(sures))


@dataclass(frozen=True)
class _Edges:
    """Where a window lies with regard to outlines.

    Attributes
    ----------
    owner : (y, x) int
        Row of the outline that a pixel lies within, from 1; 0 for none.
    nearest : (y, x) int
        The same of the nearest outline, where one is near.
    depth : (y, x) float
        Metres to the nearest edge, from the pixel's middle; negative outside. `_FAR` or so where none is near.
    """

    owner: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]
    depth: npt.NDArray[np.float64]


def _edges(window: GeoBox, outlines: gpd.GeoDataFrame, rows: npt.NDArray[np.int64], options: TruthOptions) -> _Edges:
    resolution = float(abs(window.resolution.x))
    reach = max(_FAR, (options.beyond or 0.0) + 2 * resolution, (options.boundary + 2) * resolution)
    pad = int(np.ceil(reach / resolution))
    wide = window.pad(pad)
    owner = _burnt(wide, outlines.geometry.to_numpy()[rows], rows + 1)
    ice = owner > 0
    cap, nearest = pad * resolution, owner
    # Without a single edge there is nothing to measure to.
    within = np.full(ice.shape, cap) if ice.all() else ndimage.distance_transform_edt(ice) * resolution
    without = np.full(ice.shape, cap)
    if ice.any():
        without, where = ndimage.distance_transform_edt(~ice, return_indices=True)
        without, nearest = without * resolution, owner[tuple(where)]
    # From the middle of a pixel to that of the next beyond the edge: half a pixel more than to the edge.
    depth = np.where(ice, np.minimum(within, cap) - resolution / 2, resolution / 2 - np.minimum(without, cap))
    cut = (slice(pad, -pad), slice(pad, -pad))
    return _Edges(owner[cut], nearest[cut], depth[cut])


def _burnt(grid: GeoBox, shapes: npt.NDArray[np.object_], values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Value of the first shape that holds a pixel's middle; 0 where none does."""
    from rasterio import features

    bounds = grid.boundingbox.bbox
    near = shapely.intersects(shapely.box(*shapely.bounds(shapes).T), shapely.box(*bounds))
    shapes, values = shapes[near], values[near]
    clipped = shapely.clip_by_rect(shapes, *bounds)
    held = ~shapely.is_empty(clipped)
    # Later shapes burn over earlier ones: the first comes last.
    pairs = [(shape, int(value)) for shape, value in zip(clipped[held][::-1], values[held][::-1], strict=True)]
    if not pairs:
        return np.zeros(grid.shape, np.int64)
    burnt = features.rasterize(pairs, out_shape=tuple(grid.shape), transform=grid.affine, dtype="int32")
    return np.asarray(burnt, np.int64)


def _judged(
    edges: _Edges, ages: npt.NDArray[np.float64], options: TruthOptions, resolution: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Label and weight at one date, and where the label is more likely right than wrong."""
    # Far from every outline the inventory is as old as most of it is.
    known = ages[np.isfinite(ages)]
    age = np.array([np.median(known) if known.size else np.nan, *ages])[edges.nearest]
    depth, ice = edges.depth, edges.owner > 0
    label = np.where(ice, 1, 0).astype(np.uint8)
    on_line = np.abs(depth) <= options.boundary * resolution
    weight = np.where(on_line, options.boundary_weight, 1.0)
    if options.half_life is not None:
        weight = weight * 0.5 ** (np.abs(age) / options.half_life)
    way = options.retreat * np.abs(age)
    # Of ice that shrinks, an older outline is too large and a newer one too small.
    doubtful = np.where(age > 0, ice, ~ice) & (way > 0)
    still = 1.0 - np.exp(-np.abs(depth) / np.where(way > 0, way, 1.0))
    weight = np.where(doubtful, weight * still, weight)
    # Ground near an outline of no known age, or too old, may be either.
    silent = ~(np.abs(age) <= options.max_age) & (ice | (np.abs(depth) < _FAR))
    if options.beyond is not None:
        silent |= depth < -options.beyond
    label[silent | ~(weight > 0)] = UNKNOWN
    return label, weight, ~on_line & ~(doubtful & (still <= 0.5))


def _with_debris(label: npt.NDArray[np.uint8], covered: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Ice parted by debris, as `labels_of` orders it; debris beyond the outlines may be of a glacier that they lack."""
    of_ice = np.select([covered == 0, covered == 1], [1, 2], 3)
    found = np.where(label == 1, of_ice, label)
    return np.where((label == 0) & (covered == 1), UNKNOWN, found).astype(np.uint8)


def debris_of(layer: str | Path | gpd.GeoDataFrame | None) -> DebrisLayer | None:
    """Where debris lies: polygons in the grid's CRS, or a raster file of 1 (debris) and 0 in any CRS.

    Raises
    ------
    OutlineError
        If a file is no raster.
    """
    if layer is None:
        return None
    if isinstance(layer, str | Path):
        path = str(layer)
        return lambda grid: _raster_on(path, grid)
    shapes = layer.geometry.to_numpy()
    return lambda grid: _burnt(grid, shapes, np.ones(len(shapes), np.int64)).astype(np.uint8)


def _raster_on(path: str, grid: GeoBox) -> npt.NDArray[np.uint8]:
    import rasterio
    from rasterio.vrt import WarpedVRT

    to = {"crs": str(grid.crs), "transform": grid.affine, "height": grid.shape[0], "width": grid.shape[1]}
    try:
        with rasterio.open(path) as source, WarpedVRT(source, **to, add_alpha=source.nodata is None) as there:
            values, seen = there.read(1), there.dataset_mask() > 0
    except rasterio.errors.RasterioError as error:
        raise OutlineError(f"cannot read the debris layer {path} ({error})", "give polygons, or a raster") from error
    return np.where(seen, np.where(values == 1, 1, 0), UNKNOWN).astype(np.uint8)
