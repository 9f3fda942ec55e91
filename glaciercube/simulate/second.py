"""Landscapes of the second family, on which models are tested that were trained on the first."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.simulate.landscape import EARLIER, LATER, Landscape
from glaciercube.simulate.second_ice import Tongues, feed_tongues, plastic_thickness
from glaciercube.simulate.second_terrain import Highland, fold_relief, lattice_noise
from glaciercube.simulate.surface import LAKE, OCEAN, BoolArray, FloatArray, IntArray

__all__ = ["SecondLandscape", "second_landscape"]

CELL = 80.0  # m: the coarse grid
DOMAIN = 8000.0  # m: its least extent


@dataclass(frozen=True, eq=False)
class SecondLandscape(Landscape):
    """A landscape of the second family: the same facts, other snow and other water."""

    def _snow(self, rng: np.random.Generator, when: dt.date, ice: BoolArray, elevation: FloatArray) -> FloatArray:
        """Cover of snow, 0 to 1: what a winter left, unevenly, less what has melted by height and by sun."""
        left = (elevation + 0.8 * self.drift - self.snow_line(when)) / 130
        uneven = lattice_noise(rng, (ice.shape[0], ice.shape[1]), self.resolution, longest=260, octaves=3)
        depth = left + 0.45 * uneven - np.where(ice, 0.0, rng.uniform(0.9, 2.4))
        if rng.random() < 0.1:
            depth = np.maximum(depth, (elevation - np.quantile(elevation, rng.uniform(0, 0.8))) / 60)
        return np.asarray(np.clip(0.5 + 1.6 * depth, 0, 1), dtype=np.float32)

    def _turbidity(self, rng: np.random.Generator, ice: BoolArray, water: IntArray) -> FloatArray:
        """Sediment in the water: by lake, more near ice, and thinning out along it."""
        away = ndimage.distance_transform_edt(~ice) * self.resolution if ice.any() else np.full(ice.shape, 1e5)
        lakes, count = ndimage.label(water == LAKE)
        load = rng.beta(1.2, 1.2, count + 1)
        near = np.exp(-away / rng.uniform(400, 3000))
        lake = np.clip(load[lakes] * (0.25 + 0.9 * near), 0, 1)
        sea = np.clip(rng.uniform(0.2, 1.0) * np.exp(-away / rng.uniform(200, 1500)), 0, 1)
        return np.asarray(np.where(water == LAKE, lake, np.where(water == OCEAN, sea, 0)), dtype=np.float32)


def second_landscape(
    seed: int, shape: tuple[int, int], resolution: float, *, years: tuple[int, int], latitude: float
) -> SecondLandscape:
    """Draw a landscape of the second family.

    Parameters
    ----------
    seed : int
        The same seed gives the same landscape.
    shape : tuple of int
        Rows and columns.
    resolution : float
        Pixel size in metres.
    years : tuple of int
        First and last year.
    latitude : float
        Latitude in degrees.
    """
    rng = np.random.default_rng([seed, 70])
    side = max(DOMAIN, 1.15 * max(shape) * resolution)
    coarse = (round(side / CELL), round(side / CELL))
    land = fold_relief(rng, coarse, CELL, coast=bool(rng.uniform() < 0.15))
    dirt = float(rng.uniform(0.4, 1.2)) if rng.uniform() < 0.6 else 0.0
    ratio, span = (
        float(rng.uniform(0.3, 0.5) if dirt else rng.uniform(0.45, 0.7)),
        float(np.ptp(np.quantile(land.bed, [0.3, 0.98]))),
    )
    tongues = feed_tongues(
        rng,
        land,
        share=float(rng.uniform(0.18, 0.6)),
        rise=float(rng.uniform(0.05, 0.45)) * span,
        ratio=ratio,
        poleward=latitude >= 0,
    )
    cut = _Cut(rng, land, tongues, shape, resolution)
    count = years[1] - years[0] + EARLIER + LATER + 1
    pace = np.cumsum(np.exp(0.8 * rng.standard_normal(count)))
    ribs = _detail(rng, cut, land, shape, resolution)
    bed = cut(land.bed) + ribs
    inside = cut(tongues.inside) + 28 * lattice_noise(rng, shape, resolution, longest=260, octaves=4) - 2.5 * ribs
    # Ice wears its bed smooth.
    bed = bed - 0.8 * ribs * np.clip(inside / 80, 0, 1)
    early = plastic_thickness(inside, bed, resolution, float(rng.uniform(0.6e5, 1.6e5)))
    lasts = np.maximum(cut(tongues.lasts), 0.02)
    level, bed = _lakes(rng, bed, early, lasts, resolution, sea=land.coast)
    sea = (bed < 0) & land.coast
    return SecondLandscape(
        resolution=resolution,
        bed=bed,
        years=years,
        sea=sea,
        early=early,
        late=np.where(early > 0, np.minimum(early * (1 - 1 / lasts), early - 0.5), early - 1).astype(np.float32),
        progress=0.85 * pace / pace[-1],
        line=tongues.line,
        rise=tongues.rise,
        debris=_debris(rng, cut, tongues, inside, dirt),
        drift=cut(tongues.favour),
        lake_level=level,
        basin=np.rint(cut(tongues.glacier.astype(np.float32), order=0)).astype(np.int32),
        latitude=latitude,
        seed=seed,
    )


class _Cut:
    """A window of the coarse grid, brought to the fine one."""

    def __init__(
        self, rng: np.random.Generator, land: Highland, tongues: Tongues, shape: tuple[int, int], resolution: float
    ) -> None:
        self.shape, self.resolution, self.scale = shape, resolution, resolution / land.cell
        size = [n * self.scale for n in shape]
        room = [max(n - s - 1, 0.0) for n, s in zip(land.bed.shape, size, strict=True)]
        wanted, best = rng.uniform(0.08, 0.65), np.inf
        ice = (tongues.inside > 0) & (tongues.lasts > 0.45)
        self.corner = np.array(room) / 2
        for trial in rng.uniform(0, 1, (24, 2)):
            corner = trial * room
            part = tuple(slice(int(c), int(c + s) + 1) for c, s in zip(corner, size, strict=True))
            miss = abs(float(ice[part].mean()) - wanted)
            if miss < best:
                self.corner, best = corner, miss

    def __call__(self, coarse: npt.NDArray[np.floating], order: Literal[0, 1, 3] = 3) -> FloatArray:
        rows, cols = (c + (np.arange(n) + 0.5) * self.scale - 0.5 for c, n in zip(self.corner, self.shape, strict=True))
        at = np.meshgrid(rows, cols, indexing="ij")
        return np.asarray(
            ndimage.map_coordinates(np.asarray(coarse, dtype=np.float32), np.stack(at), order=order, mode="nearest"),
            dtype=np.float32,
        )


def _detail(
    rng: np.random.Generator, cut: _Cut, land: Highland, shape: tuple[int, int], resolution: float
) -> FloatArray:
    """Gullies and ribs that the coarse grid has not: metres."""
    steep = cut(np.asarray(np.hypot(*np.gradient(land.bed, land.cell)), dtype=np.float32), order=1)
    ribs = np.abs(lattice_noise(rng, shape, resolution, longest=350, octaves=5, gain=0.55)) - 0.8
    return np.asarray(rng.uniform(6, 16) * np.clip(steep, 0.08, 1.2) * ribs, dtype=np.float32)


def _lakes(
    rng: np.random.Generator,
    bed: FloatArray,
    early: FloatArray,
    lasts: FloatArray,
    resolution: float,
    *,
    sea: bool,
) -> tuple[FloatArray, FloatArray]:
    """Fill hollows, and scour some where tongues end: the level (m, NaN where none), and the bed."""
    level = np.full(bed.shape, np.nan, dtype=np.float32)
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in bed.shape), indexing="ij")
    ends = np.flatnonzero((early > 0) & (lasts < 0.9) & (bed < np.quantile(bed, 0.4)))
    for place in rng.choice(ends, min(rng.poisson(1.2), ends.size), replace=False) if ends.size else ():
        row, col = divmod(int(place), bed.shape[1])
        long, wide = rng.uniform(80, 450), rng.uniform(60, 250)
        turn = rng.uniform(0, np.pi)
        a = ((x - col) * np.cos(turn) + (y - row) * np.sin(turn)) * resolution / long
        b = ((y - row) * np.cos(turn) - (x - col) * np.sin(turn)) * resolution / wide
        bed = bed - np.float32(rng.uniform(15, 60)) * np.exp(-(a**2) - b**2)
    reach = max(3, 2 * round(250 / resolution) + 1)
    low = (bed == ndimage.minimum_filter(bed, size=reach)) & (bed > 2 * sea)
    low[[0, -1]] = low[:, [0, -1]] = False
    for place in np.flatnonzero(low):
        if rng.uniform() < 0.5:
            continue
        for rise in (25.0, 12.0, 6.0, 3.0):
            top = float(bed.flat[place]) + rise * float(rng.uniform(0.6, 1.2))
            parts, _ = ndimage.label(bed < top)
            pool = parts == parts.flat[place]
            whole = not (pool[0].any() or pool[-1].any() or pool[:, 0].any() or pool[:, -1].any())
            if whole and pool.sum() * resolution**2 < 5e5:
                level[pool] = top
                break
    return level, np.asarray(bed, dtype=np.float32)


def _debris(rng: np.random.Generator, cut: _Cut, tongues: Tongues, inside: FloatArray, dirt: float) -> FloatArray:
    """Cover of debris, 0 to 1: a glacier's own share of its tongue from the snout up, and moraines."""
    if dirt == 0:
        return np.zeros(inside.shape, dtype=np.float32)
    lengths = np.minimum(rng.beta(1.2, 0.8, int(tongues.glacier.max()) + 1) * dirt, 1.3)
    along, length = cut(tongues.along, order=1), cut(lengths[tongues.glacier], order=1)
    wave = lattice_noise(rng, inside.shape, cut.resolution, longest=400, octaves=4, gain=0.6)
    snout = (along - (1 - length) + 0.08 * wave) / 0.06 - 9 * (along <= 0)
    width = rng.uniform(15, 90)
    side = (width * (0.4 + along) - inside + 12 * wave) / 10 - 4 * (along < 0.15)
    middle = _borders(cut(tongues.glacier.astype(np.float32), order=0), cut.resolution, float(rng.uniform(20, 60)))
    stripe = 3 * middle - 2 + 0.5 * wave - 3 * (along < 0.1)
    total = np.maximum(np.maximum(snout, side), stripe)
    return np.asarray(1 / (1 + np.exp(-np.clip(total, -9, 9))), dtype=np.float32)


def _borders(glacier: FloatArray, resolution: float, width: float) -> FloatArray:
    """1 where two glaciers meet, fading over a width in metres."""
    size = 3
    meet = ndimage.maximum_filter(glacier, size) != ndimage.minimum_filter(glacier, size)
    if not meet.any():
        return np.zeros(glacier.shape, dtype=np.float32)
    away = ndimage.distance_transform_edt(~meet) * resolution
    return np.asarray(np.clip(1.5 - away / width, 0, 1), dtype=np.float32)
