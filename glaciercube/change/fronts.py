"""Calving fronts: from the probabilities of classes, by their names, to lines.

Two ways lead to a line. A model that tells ``front`` from the rest gives it as the cheapest path along the pixels of
high probability; one that tells ``ocean`` from ``glacier`` gives it where the two meet. No other property of a model
is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.change.paths import Path, cheapest_path, crossing_path, longest_path, path_length
from glaciercube.errors import ModelError, require
from glaciercube.models.contract import Contract

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from odc.geo.geobox import GeoBox

__all__ = [
    "FrontOptions",
    "class_outputs",
    "find_fronts",
    "front_between",
    "front_frame",
    "front_of_edge",
    "front_of_zones",
    "front_table",
]

FloatArray = npt.NDArray[np.floating]
BoolArray = npt.NDArray[np.bool_]
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class FrontOptions:
    """How a front is read from probabilities.

    Attributes
    ----------
    threshold : float
        Probability of ``front`` above which a pixel may be of the line, and by which the line ends. Between given sides
        one pixel above it is enough. 0.35 was chosen on glaciers that were left out of a training (docs/fronts.md).
    gap : float
        Metres over which pieces of one line are joined, along whatever probability there is between them.
    share : float
        A piece is joined if its summed probability is at least this share of the largest piece's, and no less than the
        pixels of the gap.
    shortest : float
        Metres; what is no longer is no front (750 in the CaFFe benchmark, Gourmelon et al. 2022,
        doi:10.5194/essd-14-4287-2022).
    """

    threshold: float = 0.35
    gap: float = 2000.0
    share: float = 0.1
    shortest: float = 750.0

    def __post_init__(self) -> None:
        require(0 < self.threshold < 1, f"a front's threshold of {self.threshold}", "give a probability")
        require(
            min(self.gap, self.share, self.shortest) >= 0,
            f"fronts with a gap of {self.gap} m, a share of {self.share} and a length of {self.shortest} m",
            "give numbers of 0 or more",
        )


def find_fronts(
    probabilities: Mapping[str, FloatArray], resolution: float, options: FrontOptions | None = None
) -> list[Path]:
    """Front lines of one image.

    Parameters
    ----------
    probabilities : mapping of str to (y, x) floating
        By class name (`glaciercube.models.classes.CLASSES`): ``front``, or ``ocean`` and ``glacier`` beside all other
        classes of the model. NaN where the model sees nothing.
    resolution : float
        Pixel size in metres.
    options : FrontOptions, optional
        Thresholds.

    Returns
    -------
    list of (point, 2) int64
        Rows and columns of each line in order, the longest first; empty if there is no front. From ``front`` comes at
        most one line.

    Raises
    ------
    ModelError
        If the classes are of neither kind.
    """
    if "front" in probabilities:
        line = front_of_edge(probabilities["front"], resolution, options)
        return [line] if len(line) else []
    if {"ocean", "glacier"} <= set(probabilities):
        return front_of_zones(probabilities, resolution, options)
    raise ModelError(
        f"no front can be read from the classes {', '.join(probabilities) or 'none'}",
        "give the probability of front, or those of ocean and glacier and of the model's other classes",
    )


def front_of_edge(probability: FloatArray, resolution: float, options: FrontOptions | None = None) -> Path:
    """The line along which a front is probable.

    Pixels above the threshold are taken in pieces; pieces that are worth it are joined to the largest along the
    cheapest path (cost 1 / (p + 0.02)), and the line is the cheapest path from one end of the whole to the other.

    Parameters
    ----------
    probability : (y, x) floating
        Of the class ``front``; NaN is 0.
    resolution : float
        Pixel size in metres.
    options : FrontOptions, optional
        Thresholds.

    Returns
    -------
    (point, 2) int64
        Rows and columns in order; empty if there is no front.
    """
    options = options or FrontOptions()
    values = np.nan_to_num(np.asarray(probability, np.float64))
    high = values > options.threshold
    parts, count = ndimage.label(high, _EIGHT)
    if not count:
        return np.zeros((0, 2), np.int64)
    cost = 1.0 / (values + 0.02)
    line = longest_path(_joined(parts, values, cost, options, options.gap / resolution), cost)
    return line if path_length(line) * resolution > options.shortest else np.zeros((0, 2), np.int64)


def front_between(
    probability: FloatArray, first: BoolArray, second: BoolArray, options: FrontOptions | None = None
) -> Path:
    """The front from one side of the fjord to the other, where these are known.

    The cheapest path (cost 1 / (p^2 + 0.01)) from any pixel of one side to any of the other, as Mohajerani et al.
    (2019, doi:10.3390/rs11010074) seek it.

    Parameters
    ----------
    probability : (y, x) floating
        Of the class ``front``; NaN is 0.
    first, second : (y, x) bool
        The sides, such as rasterised lines along the walls of the fjord.
    options : FrontOptions, optional
        The threshold.

    Returns
    -------
    (point, 2) int64
        Rows and columns in order; empty if no pixel is above the threshold.

    Raises
    ------
    ModelError
        If a side has no pixel.
    """
    options = options or FrontOptions()
    if not (first.any() and second.any()):
        raise ModelError("a side of the fjord has no pixel in the image", "give two sides that cross it")
    values = np.nan_to_num(np.asarray(probability, np.float64))
    if not (values > options.threshold).any():
        return np.zeros((0, 2), np.int64)
    # Squared: the way to the sides leads through little, and must not be cut short across the ice.
    return crossing_path(1.0 / (np.square(values) + 0.01), first, second)


def _joined(
    parts: npt.NDArray[np.integer], values: FloatArray, cost: FloatArray, options: FrontOptions, gap: float
) -> BoolArray:
    """The largest piece with those that belong to it, and the paths between."""
    worth = np.bincount(parts.ravel(), values.ravel())
    worth[0] = 0.0
    largest = int(worth.argmax())
    used: BoolArray = parts == largest
    left = np.flatnonzero((worth >= options.share * worth[largest]) & (worth > 0))
    left = left[left != largest]
    distance, nearest = ndimage.distance_transform_edt(~used, return_indices=True)
    while len(left):
        away = np.asarray(ndimage.minimum(distance, parts, left))
        part, apart = int(left[away.argmin()]), float(away.min())
        left = left[left != part]
        if apart > gap:  # and so are all others
            break
        if apart > worth[part]:
            continue
        where = np.argwhere(parts == part)
        row, column = (int(v) for v in where[distance[tuple(where.T)].argmin()])
        end = (int(nearest[0, row, column]), int(nearest[1, row, column]))
        bridge = _bridge(cost, (row, column), end)
        used = used | (parts == part)
        used[tuple(bridge.T)] = True
        distance, nearest = ndimage.distance_transform_edt(~used, return_indices=True)
    return used


def _bridge(cost: FloatArray, start: tuple[int, int], end: tuple[int, int], margin: int = 10) -> Path:
    """The cheapest path between two pixels, sought in the box around them."""
    box = tuple(slice(max(0, min(a, b) - margin), max(a, b) + margin + 1) for a, b in zip(start, end, strict=True))
    part = cost[box]
    first = (box[0].start, box[1].start)
    a, b = ((point[0] - first[0], point[1] - first[1]) for point in (start, end))
    found: Path = cheapest_path(np.ones(part.shape, bool), part, a, b) + np.array(first)
    return found


def front_of_zones(
    probabilities: Mapping[str, FloatArray], resolution: float, options: FrontOptions | None = None
) -> list[Path]:
    """Lines along which ocean and glacier meet, as the CaFFe benchmark reads them.

    Each pixel is of its most probable class. Holes of the ocean are filled, its largest part is kept, and the front is
    every pixel of it that has a glacier pixel above, below, to the left or to the right; pieces no longer than
    `FrontOptions.shortest` are dropped.

    Parameters
    ----------
    probabilities : mapping of str to (y, x) floating
        Of every class of the model, with ``ocean`` and ``glacier``; NaN where it sees nothing.
    resolution : float
        Pixel size in metres.
    options : FrontOptions, optional
        The shortest piece.

    Returns
    -------
    list of (point, 2) int64
        Rows and columns of each piece in order, the longest first.
    """
    options = options or FrontOptions()
    names = list(probabilities)
    stack = np.stack([np.asarray(probabilities[name], np.float64) for name in names])
    seen = np.isfinite(stack).all(axis=0)
    most = np.nan_to_num(stack).argmax(axis=0)
    ocean = ndimage.binary_fill_holes(seen & (most == names.index("ocean")))
    parts, count = ndimage.label(ocean)
    if not count:
        return []
    ocean = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    glacier = seen & (most == names.index("glacier")) & ~ocean
    edge = ocean & ndimage.binary_dilation(glacier)
    pieces, count = ndimage.label(edge, _EIGHT)
    even = np.ones(edge.shape)
    lines = []
    for place, box in enumerate(ndimage.find_objects(pieces), start=1):
        line = longest_path(pieces[box] == place, even[box]) + np.array([part.start for part in box])
        if path_length(line) * resolution > options.shortest:
            lines.append(line)
    return sorted(lines, key=path_length, reverse=True)


def front_frame(lines: Iterable[tuple[np.datetime64, Path]], geobox: GeoBox) -> gpd.GeoDataFrame:
    """Lines on the ground.

    Parameters
    ----------
    lines : iterable of (datetime64, (point, 2) int64)
        Date, and rows and columns of each line on the grid.
    geobox : GeoBox
        The grid, with its CRS.

    Returns
    -------
    GeoDataFrame
        ``time`` (datetime64[ns], UTC), ``length_m`` along the line and ``geometry`` (through the pixels' centres), in
        the CRS of the grid.
    """
    import geopandas as gpd
    import pandas as pd
    import shapely

    times, shapes = [], []
    for time, line in lines:
        times.append(pd.Timestamp(time))
        shapes.append(shapely.LineString([geobox.affine * (x + 0.5, y + 0.5) for y, x in line.tolist()]))
    frame = gpd.GeoDataFrame({"time": pd.to_datetime(times)}, geometry=shapes, crs=str(geobox.crs))
    return frame.assign(length_m=frame.length)[["time", "length_m", "geometry"]]


def class_outputs(contract: Contract) -> dict[str, str]:
    """Which variable holds the probability of which class, for outputs of one class: class name -> variable.

    Zones need an output for each of a model's classes, and an edge that of ``front``.
    """
    return {output.classes[0]: output.name for output in contract.outputs if len(output.classes) == 1}


def front_table(
    predicted: xr.Dataset, outputs: Mapping[str, str], options: FrontOptions | None = None
) -> gpd.GeoDataFrame:
    """Fronts of every date of a prediction, on the ground.

    Parameters
    ----------
    predicted : Dataset
        What `glaciercube.predict` or a store gives: probabilities (time, y, x) on a projected grid.
    outputs : mapping of str to str
        Class name -> variable that holds its probability, such as ``{"front": "front_probability"}``; of a model, what
        `class_outputs` gives.
    options : FrontOptions, optional
        Thresholds.

    Returns
    -------
    GeoDataFrame
        As `front_frame`; dates without a front have no row.

    Raises
    ------
    ModelError
        If a variable is absent or the grid has no CRS in metres.
    """
    from odc.geo.geobox import GeoBox

    absent = [name for name in outputs.values() if name not in predicted]
    if absent:
        raise ModelError(f"the prediction has no {', '.join(absent)}", "name variables that the model gives")
    geobox = predicted.odc.geobox
    if not isinstance(geobox, GeoBox) or geobox.crs is None or not geobox.crs.projected:
        raise ModelError("fronts need a grid in metres, and this one has none", "predict on a projected grid")
    found = []
    for place, time in enumerate(predicted["time"].to_numpy()):
        maps = {name: predicted[held].isel(time=place).to_numpy() for name, held in outputs.items()}
        found += [(time, line) for line in find_fronts(maps, abs(geobox.resolution.x), options)]
    return front_frame(found, geobox)
