"""What is left of a plan, counted: shards, units, and the reads that they take."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.campaign.candidates import Lattice
from glaciercube.campaign.unit import frame_of, radar_spans

if TYPE_CHECKING:
    from glaciercube.campaign.plan import Plan, Unit

__all__ = ["Counts", "counted"]

Integers: TypeAlias = npt.NDArray[np.int64]
Edges: TypeAlias = npt.NDArray[np.float64]

# Bands by which the borders of radar scenes are told: read as far as the filter reaches, others only where needed.
_BORDER: Final = ("vv", "hh")


@dataclass(frozen=True)
class Counts:
    """What a run would do.

    Attributes
    ----------
    shards, skipped : int
        Over all dates: to be computed, and to be marked as no candidates.
    shared : int
        Batches of dates that share a static branch and a graph: the plan's units.
    units : int
        Of so many dates at a time as are read together.
    reads, read_bytes : int
        Cells of bands that are read, and their bytes as they are stored, before compression.
    written : int
        Pixels of the result, over all dates.
    static_pixels, date_pixels : int
        Pixels, with halos, of the static branch and of all dates.
    """

    shards: int
    skipped: int
    shared: int
    units: int
    reads: int
    read_bytes: int
    written: int
    static_pixels: int
    date_pixels: int


def counted(plan: Plan, units: Iterable[Unit], dates: int, bands: frozenset[str], *, shaded: bool) -> Counts:
    """Count what is left.

    Parameters
    ----------
    plan : Plan
        The job.
    units : iterable of Unit
        Those that are left.
    dates : int
        Rows that are read at a time.
    bands : frozenset of str
        Those that the model's variables are made of.
    shaded : bool
        Whether the ground is read again with each batch of dates.
    """
    wide, skipped = plan.blocks.wide, 0
    alike: dict[tuple[int, ...], array[int]] = {}
    for unit in units:
        if unit.skip:
            skipped += len(unit.rows)
        else:
            # A million units have few patterns of rows.
            alike.setdefault(unit.rows, array("q")).append(unit.block[0] * wide + unit.block[1])
    axes = _axes(plan)
    core, window = _area(axes[0].core, axes[1].core), _area(axes[0].window, axes[1].window)
    reads = _Reads(plan, axes, bands)
    total = {"shards": 0, "shared": 0, "units": 0, "written": 0, "static_pixels": 0, "date_pixels": 0}
    found = np.zeros(2, np.int64)
    for rows, numbers in alike.items():
        blocks = np.frombuffer(numbers, np.int64)
        parts = [rows[start : start + dates] for start in range(0, len(rows), dates)]
        total["shards"] += len(rows) * len(blocks)
        total["shared"] += len(blocks)
        total["units"] += len(parts) * len(blocks)
        total["written"] += len(rows) * int(core[blocks].sum())
        total["static_pixels"] += int(window[blocks].sum())
        total["date_pixels"] += sum(len(plan.reads(part)) for part in parts) * int(window[blocks].sum())
        found += sum(reads.of(plan.reads(part))[:, blocks].sum(axis=1) for part in parts)
        found += (len(parts) * shaded + 1) * reads.still[:, blocks].sum(axis=1)
    return Counts(skipped=skipped, reads=int(found[0]), read_bytes=int(found[1]), **total)


@dataclass(frozen=True)
class _Axis:
    """First pixel, and the one after the last, of each shard down or across: its own, its window, its radar's."""

    core: Integers
    window: Integers
    radar: Integers


def _axes(plan: Plan) -> tuple[_Axis, _Axis]:
    blocks, found = plan.blocks, []
    for axis, count in enumerate((blocks.high, blocks.wide)):
        core, window, radar = [], [], []
        for index in range(count):
            frame = frame_of(plan, (index, 0) if axis == 0 else (0, index))
            span = (frame.window.y, frame.window.x)[axis]
            reach = radar_spans(plan, frame)[axis]
            core.append((0, span.size))
            window.append((span.start, span.stop))
            radar.append((reach.start, reach.stop))
        found.append(_Axis(*(np.array(pairs, np.int64).T for pairs in (core, window, radar))))
    return found[0], found[1]


def _area(y: Integers, x: Integers) -> Integers:
    """Pixels of each shard, row by row."""
    area: Integers = np.outer(y[1] - y[0], x[1] - x[0]).ravel()
    return area


class _Reads:
    """Reads of every shard, for any batch of dates: cells that it needs and a scene's footprint meets.

    Parameters
    ----------
    plan : Plan
        The job.
    axes : (_Axis, _Axis)
        Its shards down and across.
    bands : frozenset of str
        Those that are needed.
    """

    def __init__(self, plan: Plan, axes: tuple[_Axis, _Axis], bands: frozenset[str]) -> None:
        self._plan = plan
        table, cell = plan.scenes.table, plan.load.cell
        grid = plan.region.geobox.shape
        # Cells, by first and after the last: of the window, and of what radar's borders are told from.
        self._reach = [
            [np.stack([pixels[0] // cell, -(-pixels[1] // cell)]) for pixels in pair]
            for pair in ((axes[0].window, axes[1].window), (axes[0].radar, axes[1].radar))
        ]
        self._shape = (-(-grid[0] // cell), -(-grid[1] // cell))
        edges = [np.minimum(np.arange(count + 1) * cell, size) for count, size in zip(self._shape, grid, strict=True)]
        self._area = np.outer(*map(np.diff, edges)).astype(np.int64)
        self._met, self._same = plan.sight.cells(_cells(plan, edges[0], edges[1]))
        # Per scene, for what is near and what is far: bands, and bytes of a pixel of all of them.
        weights = {text: _weights(text, bands, border=plan.load.radar.border_noise) for text in set(table["bands"])}
        self._weights = np.array([weights[text] for text in table["bands"]], np.int64).reshape(-1, 2, 2)
        static = {name for name in plan.scenes.sensors if plan.scenes.sensor(name).static}
        self._static = table["sensor"].isin(static).to_numpy()
        optical = (table["sensor"] == "sentinel-2").to_numpy()
        persistent = plan.compose.mask.recover_ice == "persistent"
        self._everywhere = np.flatnonzero(optical) if persistent else np.zeros(0, np.int64)
        self.still = self._sum(np.flatnonzero(self._static), self._weights)

    def of(self, rows: tuple[int, ...]) -> Integers:
        """Reads, and bytes, of a batch of dates: (2, block)."""
        places = np.unique(np.concatenate([self._plan.picked[row] for row in rows]))
        places = places[~self._static[places]]
        found = self._sum(places, self._weights)
        others = np.setdiff1d(self._everywhere, places)
        if len(others):
            # Each batch asks the classification of all dates.
            one = np.zeros_like(self._weights)
            one[:, 0] = 1
            found += self._sum(others, one)
        return found

    def _sum(self, places: Integers, weights: Integers) -> Integers:
        found = np.zeros((2, len(self._plan.blocks)), np.int64)
        for reach, (rows, columns) in enumerate(self._reach):
            of_shape = np.zeros((len(self._met), 2), np.int64)
            np.add.at(of_shape, self._same[places], weights[places, reach])
            cells = np.zeros((2, *self._shape), np.int64)
            for shape in np.flatnonzero(of_shape.any(axis=1)):
                y, x, met = self._met[shape]
                cells[:, y, x] += of_shape[shape][:, None, None] * met
            cells[1] *= self._area
            sums = np.pad(cells.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
            high = sums[:, rows[1]] - sums[:, rows[0]]
            found += (high[:, :, columns[1]] - high[:, :, columns[0]]).reshape(2, -1)
        return found


def _cells(plan: Plan, y: Integers, x: Integers) -> Lattice:
    """The cells of the whole grid on the map, from the pixels at which they begin and end."""
    affine = plan.region.geobox.affine
    across: Edges = np.asarray(affine.c + affine.a * x, np.float64)
    down: Edges = np.asarray(affine.f + affine.e * y, np.float64)
    return Lattice(across[:-1], across[1:], down[1:], down[:-1])


def _weights(text: str, wanted: frozenset[str], *, border: bool) -> list[list[int]]:
    """Number of bands, and bytes of a pixel of all of them: of those read near, and of those read far."""
    known: Mapping[str, Mapping[str, object]] = json.loads(text)
    weights = [[0, 0], [0, 0]]
    for name, band in known.items():
        if name in wanted:
            chosen = weights[border and name in _BORDER]
            chosen[0] += 1
            chosen[1] += np.dtype(str(band["dtype"])).itemsize
    return weights
