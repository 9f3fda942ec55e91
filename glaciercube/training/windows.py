"""Which windows of a cube are sampled: around glaciers, and some without any, near enough to be mistaken for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import shapely
from odc.geo.geobox import GeoBox

from glaciercube.errors import OutlineError, require
from glaciercube.training.inventory import Inventory

if TYPE_CHECKING:
    from pyproj import Transformer

__all__ = ["Window", "WindowOptions", "choose_windows", "geographic_ring"]

# Points on each side of a window's footprint: parallels bulge, and polar grids turn.
_POINTS = 2


@dataclass(frozen=True)
class WindowOptions:
    """Where chips lie.

    Attributes
    ----------
    size, stride : int
        Pixels of a chip's side, and from one to the next. 128 and 64 by default: 2.6 km at 20 m holds most mountain
        glaciers with their surroundings.
    near : float
        Metres from glaciers within which chips have their middle; 50 by default, as in DL4GAM (Diaconu et al. 2025).
    negatives : float
        Share of all chips, 0 to less than 1, that hold no glacier. 0.15 by default; there are fewer where the cube has
        no more such ground, and `SampledChips.summary` says so.
    within : float
        Metres from glaciers within which those have their middle. 5000 by default: snow, shadow, lakes and rock of the
        same mountains are what ice is mistaken for, and lowland is easy.
    most : int or None
        Chips at most, the same share of them without glaciers; drawn at random.
    seed : int
        Of the draw.
    """

    size: int = 128
    stride: int = 64
    near: float = 50.0
    negatives: float = 0.15
    within: float = 5000.0
    most: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(8 <= self.size <= 4096, f"chips of {self.size} pixels", "give a size of 8 to 4096")
        require(1 <= self.stride <= self.size, f"a stride of {self.stride} pixels", f"give 1 to {self.size}, the size")
        require(0 <= self.near <= self.within, f"near {self.near} and within {self.within} m", "give near <= within")
        require(0 <= self.negatives < 1, f"a share of {self.negatives} without glaciers", "give 0 to less than 1")
        require(self.most is None or self.most >= 1, f"{self.most} chips at most", "give 1 or more, or null")


@dataclass(frozen=True)
class Window:
    """A window of a cube.

    Attributes
    ----------
    row, column : int
        Of its first pixel.
    place : str
        The glacier nearest to its middle.
    footprint : tuple of (longitude, latitude)
        Around it, in degrees.
    area : float
        Glacier in it, km2.
    """

    row: int
    column: int
    place: str
    footprint: tuple[tuple[float, float], ...]
    area: float


def choose_windows(geobox: GeoBox, inventory: Inventory, options: WindowOptions) -> list[Window]:
    """Choose windows on a lattice of `stride` pixels; the last of a row or column ends with the cube.

    Parameters
    ----------
    geobox : GeoBox
        The cube's grid, in the CRS of the inventory.
    inventory : Inventory
        Glaciers.
    options : WindowOptions
        Which.

    Returns
    -------
    list of Window
        Row by row.

    Raises
    ------
    OutlineError
        If the cube is smaller than a chip, or no chip lies near a glacier.
    """
    corners = _corners(geobox, options)
    half = options.size / 2.0
    middles = np.array([geobox.affine * (column + half, row + half) for row, column in corners])
    # Of outlines of several dates the latest: a glacier's area counts once.
    outlines = inventory.outlines.iloc[inventory.nearest_in_time(np.datetime64("2200-01-01"))]
    tree = shapely.STRtree(outlines.geometry.to_numpy())
    points = np.asarray(shapely.points(middles), dtype=object).reshape(-1)
    near, nearest = np.full(len(corners), np.inf), np.zeros(len(corners), np.int64)
    (index, outline), apart = tree.query_nearest(
        points, max_distance=options.within, return_distance=True, all_matches=False
    )
    near[index], nearest[index] = apart, outline
    areas = _areas(geobox, corners, tree, options.size)
    with_ice = np.flatnonzero(near <= options.near)
    if not with_ice.size:
        raise OutlineError(
            f"no chip of {options.size} pixels has its middle within {options.near:g} m of the outlines",
            "give a smaller size or stride, or a larger `near`, or a cube that reaches beyond the glaciers",
        )
    without = np.flatnonzero((areas == 0) & np.isfinite(near) & (near > options.near))
    chosen = _drawn(corners, with_ice, without, options)
    names = outlines["glacier"].to_numpy()
    there = _to_degrees(geobox)
    return [
        Window(
            *corners[i],
            str(names[nearest[i]]),
            geographic_ring(geobox, corners[i], options.size, there),
            float(areas[i]),
        )
        for i in chosen
    ]


def geographic_ring(
    geobox: GeoBox, corner: tuple[int, int], size: int, there: Transformer
) -> tuple[tuple[float, float], ...]:
    """Points around a window, in degrees to a tenth of a metre."""
    row, column = corner
    part = np.arange(_POINTS) / _POINTS * size
    full, none = np.full(_POINTS, float(size)), np.zeros(_POINTS)
    along = np.concatenate([part, full, size - part, none]) + column
    down = np.concatenate([none, part, full, size - part]) + row
    points = np.array([geobox.affine * point for point in np.stack([along, down], axis=1)], dtype=float)
    longitude, latitude = (np.asarray(values) for values in there.transform(points[:, 0], points[:, 1]))
    return tuple(zip(np.round(longitude, 6).tolist(), np.round(latitude, 6).tolist(), strict=True))


def _to_degrees(geobox: GeoBox) -> Transformer:
    from pyproj import Transformer

    return Transformer.from_crs(str(geobox.crs), "EPSG:4326", always_xy=True)


def _corners(geobox: GeoBox, options: WindowOptions) -> list[tuple[int, int]]:
    height, width = (int(side) for side in geobox.shape)
    if min(height, width) < options.size:
        raise OutlineError(
            f"the cube has {height} x {width} pixels, less than a chip of {options.size}", "give a smaller size"
        )

    def starts(length: int) -> list[int]:
        return sorted({*range(0, length - options.size, options.stride), length - options.size})

    return [(row, column) for row in starts(height) for column in starts(width)]


def _areas(geobox: GeoBox, corners: list[tuple[int, int]], tree: shapely.STRtree, size: int) -> npt.NDArray[np.float64]:
    """Glacier in every window, km2."""
    first = np.array([geobox.affine * (column, row) for row, column in corners])
    last = np.array([geobox.affine * (column + size, row + size) for row, column in corners])
    low, high = np.minimum(first, last), np.maximum(first, last)
    boxes = shapely.box(low[:, 0], low[:, 1], high[:, 0], high[:, 1])
    window, outline = tree.query(boxes, predicate="intersects")
    shapes = tree.geometries[outline]
    cut = np.array(
        [shapely.clip_by_rect(shape, *low[w], *high[w]) for shape, w in zip(shapes, window, strict=True)], dtype=object
    )
    return np.bincount(window, weights=shapely.area(cut) if len(cut) else None, minlength=len(corners)) / 1e6


def _drawn(
    corners: list[tuple[int, int]],
    with_ice: npt.NDArray[np.int64],
    without: npt.NDArray[np.int64],
    options: WindowOptions,
) -> list[int]:
    """Indices of the chosen windows, rising."""

    def some(indices: npt.NDArray[np.int64], count: int) -> list[int]:
        order = {int(i): hashlib.sha256(f"{options.seed}/{corners[i]}".encode()).digest() for i in indices}
        return sorted(order, key=order.__getitem__)[: max(0, count)]

    count = len(with_ice) if options.most is None else max(1, round(options.most * (1 - options.negatives)))
    chosen = some(with_ice, count)
    wanted = round(len(chosen) * options.negatives / (1 - options.negatives))
    if options.most is not None:
        wanted = min(wanted, options.most - len(chosen))
    return sorted(chosen + some(without, wanted))
