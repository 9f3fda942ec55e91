"""Ice of the second family of worlds: tongues as long as their snowfields feed, as thick as ice yields.

Nothing here is taken from `glaciercube.simulate.ice`, which routes the mass balance downhill and lets the ice deform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra

from glaciercube.simulate.second_terrain import Highland, lattice_noise
from glaciercube.simulate.surface import BoolArray, FloatArray

__all__ = ["Tongues", "feed_tongues", "plastic_thickness"]

WEIGHT = 917 * 9.81  # Pa/m of ice
STEPS = 7  # snow lines from the greatest extent to the least
TOO_STEEP = 0.6  # m/m: snow slides off steeper ground (31 degrees); glaciers have mean slopes of 15 to 30 (RGI 6.0)
LEAST_FIELD = 4e4  # m2 of snowfield that feeds a glacier
NEVER = 1.4  # share of the rise of what stays


@dataclass(frozen=True)
class Tongues:
    """Glaciers on the coarse grid.

    Attributes
    ----------
    inside : (y, x) float32
        Metres from the margin of the greatest extent, below 0 outside.
    lasts : (y, x) float32
        Share of the rise of the snow line at which a place loses its ice; more than 1 where it keeps it.
    along : (y, x) float32
        Way down the tongue: 0 above the snow line, 1 at the snout.
    glacier : (y, x) int32
        Number of the glacier that is nearest, from 1.
    line, rise : float
        Altitude of the snow line in metres at the greatest extent, and its rise.
    favour : (y, x) float32
        How many metres higher a place lies for its snow than it does in truth.
    """

    inside: FloatArray
    lasts: FloatArray
    along: FloatArray
    glacier: npt.NDArray[np.int32]
    line: float
    rise: float
    favour: FloatArray


def feed_tongues(
    rng: np.random.Generator, land: Highland, *, share: float, rise: float, ratio: float, poleward: bool
) -> Tongues:
    """Let snowfields above a line feed tongues whose area stands in a fixed proportion to their own.

    A glacier in balance has a share of its area above the line (accumulation-area ratio, some 0.4 under debris to 0.7).
    The tongue takes the places that are reached first on the way down from the snowfield, along valley bottoms.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    land : Highland
        The bed.
    share : float
        Share of the land above the first snow line, 0 to 1.
    rise : float
        Rise of the snow line over the time, metres.
    ratio : float
        Accumulation-area ratio.
    poleward : bool
        Whether ground that faces north lies in the shade.
    """
    bed, cell = land.bed, land.cell
    smooth = np.asarray(ndimage.gaussian_filter(bed, 110 / cell), dtype=np.float32)
    south, east = np.gradient(smooth, cell)
    wind = rng.uniform(0, 2 * np.pi)
    favour = (140 if poleward else -140) * np.clip(south, -1, 1) + 70 * (np.cos(wind) * east + np.sin(wind) * south)
    # Snow drifts and slides off crests into hollows.
    favour = favour + 1.2 * (ndimage.gaussian_filter(bed, 500 / cell) - smooth)
    favour = favour + 45 * lattice_noise(rng, (bed.shape[0], bed.shape[1]), cell, longest=1500)
    dry = (bed > 0) | (not land.coast)
    line = float(np.quantile((smooth + favour)[dry], 1 - share))
    roads, basins = _roads(land, smooth), _basins(smooth, cell)
    fields = dry & (np.hypot(south, east) < TOO_STEEP)
    extents = [
        _extent(roads, basins, fields & (smooth + favour > line + step * rise), ratio, cell)
        for step in np.linspace(0, 1, STEPS)
    ]
    glacier, along = extents[0]
    ice = still = glacier > 0
    kept = np.zeros(bed.shape)
    for later, _ in extents:
        still = still & (later > 0)
        kept += still
    lasts = np.where(kept >= STEPS, NEVER, (kept - 0.5) / (STEPS - 1))
    edge = ndimage.distance_transform_edt(ice) - ndimage.distance_transform_edt(~ice)
    nearest = ndimage.distance_transform_edt(~ice, return_distances=False, return_indices=True)
    return Tongues(
        inside=np.asarray(ndimage.gaussian_filter(edge, 0.6) * cell, dtype=np.float32),
        lasts=np.asarray(ndimage.gaussian_filter(lasts[tuple(nearest)], 0.7), dtype=np.float32),
        along=np.asarray(along[tuple(nearest)], dtype=np.float32),
        glacier=np.asarray(glacier[tuple(nearest)], dtype=np.int32).clip(1),
        line=line,
        rise=rise,
        favour=np.asarray(favour, dtype=np.float32),
    )


def plastic_thickness(inside: FloatArray, elevation: FloatArray, resolution: float, yield_stress: float) -> FloatArray:
    """Thickness of a perfectly plastic body (Nye 1951): by its slope, and no more near the margin than a parabola.

    Parameters
    ----------
    inside : (y, x) float32
        Metres from the margin, below 0 outside.
    elevation : (y, x) float32
        Of the bed, metres.
    resolution : float
        Pixel size in metres.
    yield_stress : float
        Pa; basal drag of mountain glaciers is 0.5e5 to 1.5e5 (Cuffey & Paterson 2010, section 8.3).

    Returns
    -------
    (y, x) float32
        Metres; outside, the distance from the margin with its sign, over 20.
    """
    south, east = np.gradient(ndimage.gaussian_filter(elevation, 200 / resolution), resolution)
    steep = np.hypot(south, east)
    by_slope = yield_stress / WEIGHT / np.sin(np.arctan(np.maximum(steep, 0.06)))
    by_margin = np.sqrt(2 * yield_stress / WEIGHT * np.maximum(inside, 0)) * 0.8
    thickness = 1 / (1 / (by_slope + 1) + 1 / (by_margin + 1)) * np.clip(inside / 60, 0, 1)
    return np.asarray(np.where(inside > 0, 1 + thickness, inside / 20), dtype=np.float32)


def _roads(land: Highland, smooth: FloatArray) -> csr_array:
    """Cost of each step to a neighbour: cheap along valley bottoms, dear uphill and through the sea."""
    rows, cols = smooth.shape
    number = np.arange(rows * cols).reshape(rows, cols)
    keen = 0.04 + (np.minimum(land.floor, 400) / 95) ** 1.5 + np.where(land.coast & (land.bed < 0), 4.0, 0.0)
    starts, ends, costs = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = (slice(0, rows - down), slice(max(0, -right), cols - max(0, right)))
        two = (slice(down, rows), slice(max(0, right), cols + min(0, right)))
        far = float(np.hypot(down, right)) * land.cell
        for source, target in ((one, two), (two, one)):
            climb = np.maximum(smooth[target] - smooth[source], 0)
            starts.append(number[source].ravel())
            ends.append(number[target].ravel())
            costs.append((far * keen[target] + 40 * climb).ravel())
    both = (np.concatenate(starts), np.concatenate(ends))
    return coo_array((np.concatenate(costs), both), shape=(rows * cols, rows * cols)).tocsr()


def _basins(smooth: FloatArray, cell: float) -> npt.NDArray[np.int32]:
    """Part the ground at its crests: (y, x) int32 from 1."""
    low = smooth == ndimage.minimum_filter(smooth, size=2 * round(600 / cell) + 1)
    markers, _ = ndimage.label(low)
    span = float(smooth.max() - smooth.min()) or 1.0
    steps = ((smooth - smooth.min()) / span * 65000).astype(np.uint16)
    return np.asarray(ndimage.watershed_ift(steps, markers.astype(np.int32)), dtype=np.int32)


def _extent(
    roads: csr_array, basins: npt.NDArray[np.int32], fields: BoolArray, ratio: float, cell: float
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Glacier of each cell, 0 for none, and the way down its tongue, 0 to 1."""
    shape = fields.shape
    glacier = np.zeros(shape, dtype=np.int32)
    parts, _ = ndimage.label(fields)
    _, joint = np.unique(
        np.where(fields, parts.astype(np.int64) * (int(basins.max()) + 1) + basins, 0), return_inverse=True
    )
    label = np.where(fields, joint.reshape(shape), 0)
    area = np.bincount(label.ravel())
    area[0] = 0
    area[area * cell**2 < LEAST_FIELD] = 0
    label = np.where(area[label] > 0, label, 0)
    starts = np.flatnonzero(label)
    if not starts.size:
        return glacier, np.zeros(shape, dtype=np.float32)
    cost, _, source = dijkstra(roads, indices=starts, min_only=True, return_predecessors=True)
    owner = np.where(np.isfinite(cost), label.ravel()[np.maximum(source, 0)], 0)
    free = np.flatnonzero((label.ravel() == 0) & (owner > 0))
    order = free[np.lexsort((cost[free], owner[free]))]
    begins = np.searchsorted(owner[order], np.arange(area.size))
    rank = np.arange(order.size) - begins[owner[order]]
    room = area[owner[order]] * (1 - ratio) / ratio
    along = np.zeros(label.size, dtype=np.float32)
    taken = rank < room
    along[order[taken]] = ((rank + 1) / np.maximum(room, 1))[taken]
    flat = label.ravel().copy()
    flat[order[taken]] = owner[order[taken]]
    return flat.reshape(shape).astype(np.int32), along.reshape(shape)
