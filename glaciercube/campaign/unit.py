"""The cube of one unit: it opens the scenes of its own rows that come near its own pixels, and no others."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes
from glaciercube.cube import ComposeOptions, LoadOptions, Row, compose, load
from glaciercube.cube.coverage import with_coverage
from glaciercube.cube.speckle import EDGE_WIDTH
from glaciercube.cube.terrain import terrain_halo
from glaciercube.inference import block_window
from glaciercube.inference.window import Window
from glaciercube.region import Cut, Region

if TYPE_CHECKING:
    from glaciercube.campaign.plan import Plan, Unit

__all__ = [
    "Frame",
    "LeanScenes",
    "UnitJob",
    "frame_of",
    "nanoseconds",
    "radar_spans",
    "skeleton",
    "unit_cube",
    "unit_job",
]

Indices: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]
T = TypeVar("T")

# The only properties of an item that reading needs, see `glaciercube.reading.request`.
_PROPERTIES: Final = ("proj:", "datetime", "start_datetime", "end_datetime")
# Batches of dates whose scenes are kept: a shard has them all, one after the other, and then its neighbour.
_KEPT: Final = 256


@dataclass(frozen=True)
class Frame:
    """The pixels of a shard that are read.

    Attributes
    ----------
    window : Window
        The shard with its halo: what the kernel sees.
    rows, columns : slice
        Whole cells of the lattice that hold it and everything that its pixels are made from.
    """

    window: Window
    rows: slice
    columns: slice

    @property
    def inner(self) -> dict[str, slice]:
        """The window within the cells."""
        first, left = self.rows.start, self.columns.start
        y, x = self.window.y, self.window.x
        return {"y": slice(y.start - first, y.stop - first), "x": slice(x.start - left, x.stop - left)}


@dataclass(frozen=True, eq=False)
class UnitJob:
    """All that a unit's cube is made from; small, and can be pickled.

    Attributes
    ----------
    name : str
        Of the region.
    geobox : GeoBox
        The whole grid.
    frame : Frame
        Its pixels.
    rows : tuple of Row
        Dates that are read: its own, and those that the model looks at beside them.
    scenes : Scenes
        What it opens.
    load, compose
        The options of those rooms.
    """

    name: str
    geobox: GeoBox
    frame: Frame
    rows: tuple[Row, ...]
    scenes: Scenes
    load: LoadOptions
    compose: ComposeOptions

    def cube(self) -> xr.Dataset:
        """The unit's part of the region's cube, lazily.

        Returns
        -------
        Dataset (time, y, x)
            As `glaciercube.cube.compose` gives it for the whole region, bit for bit: the rows that are read for the
            unit, in their order, over the window's `read` pixels.
        """
        frame = self.frame
        tree = load(self.scenes, Region(self.name, Cut(self.geobox, frame.rows, frame.columns)), self.load)
        return compose(tree, self.compose, self.rows).isel(frame.inner)


def unit_cube(plan: Plan, unit: Unit) -> xr.Dataset:
    """A unit's part of the region's cube, lazily; see `UnitJob.cube`."""
    return unit_job(plan, unit).cube()


def unit_job(plan: Plan, unit: Unit) -> UnitJob:
    """What a unit's cube is made from.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    unit : Unit
        One of its units.
    """
    frame = frame_of(plan, unit.block)
    if unit.skip:
        # Nothing is opened for it.
        return _job(plan, (), frame, np.zeros(0, np.int64))
    rows = plan.reads(unit.rows)
    wanted, always = plan.lean.kept(rows, lambda: _wanted(plan, rows))
    box = plan.region.geobox[frame.rows, frame.columns].boundingbox
    return _job(plan, rows, frame, wanted[plan.sight.meets(wanted, tuple(box)) | always])


def skeleton(plan: Plan, rows: tuple[int, ...] | None = None) -> xr.Dataset:
    """All rows of a plan over a few pixels, lazily: which variables there are, and what stands along time.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    rows : tuple of int or None
        Some of them.
    """
    rows = tuple(range(len(plan.rows))) if rows is None else rows
    wanted, always = _wanted(plan, rows)
    side = [slice(0, min(2, size)) for size in plan.region.geobox.shape]
    frame = Frame(block_window(side[0], side[1], (side[0].stop, side[1].stop), halo=0, stride=1), side[0], side[1])
    job = _job(plan, rows, frame, wanted[always])
    # Neighbours of so few pixels say nothing.
    plain = replace(plan.compose, mask=replace(plan.compose.mask, dilate=0.0))
    still = replace(plan.load, radar=replace(plan.load.radar, speckle="none", border_noise=False))
    return _covered(plan, replace(job, compose=plain, load=still).cube())


def _covered(plan: Plan, cube: xr.Dataset) -> xr.Dataset:
    """Rows with the shares that all their scenes cover, of which a skeleton opens one each."""
    if "coverage" not in cube.coords:
        return cube
    node = {plan.scenes.sensor(name).node: name for name in plan.scenes.sensors}[plan.leading]
    return with_coverage(cube, plan.scenes.of(node), plan.region.geobox)


def frame_of(plan: Plan, block: tuple[int, int]) -> Frame:
    """The pixels that a shard reads.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    block : (int, int)
        Row and column of the shard.
    """
    y, x = plan.slices(block)
    contract, shape = plan.model.contract, (plan.region.geobox.shape[0], plan.region.geobox.shape[1])
    window = block_window(y, x, shape, halo=contract.halo, stride=contract.lattice)
    halos = _halos(plan)
    rows, columns = (
        _cells(span.start, span.stop, length, halos, plan.load.cell)
        for span, length in ((window.y, shape[0]), (window.x, shape[1]))
    )
    return Frame(window, rows, columns)


def radar_spans(plan: Plan, frame: Frame) -> tuple[slice, slice]:
    """Rows and columns whose radar pixels the window's are made from, whole cells."""
    shape, y, x = plan.region.geobox.shape, frame.window.y, frame.window.x
    halos = (0, *_halos(plan)[1:])
    rows, columns = (
        _cells(span.start, span.stop, length, halos, plan.load.cell) for span, length in ((y, shape[0]), (x, shape[1]))
    )
    return rows, columns


def _halos(plan: Plan) -> tuple[int, ...]:
    """Pixels beyond the window that its pixels are made from: each is taken around whole cells of the one before."""
    # Elevation in another CRS is read on a lattice that begins one halo before the grid's.
    halos = [2 * terrain_halo(plan.region.resolution) if "dem" in plan.scenes.sensors else 0]
    if "sentinel-2" in plan.scenes.sensors:
        halos[0] = max(halos[0], int(plan.compose.mask.dilate / plan.region.resolution + 1e-6))
    if "sentinel-1" in plan.scenes.sensors:
        radar = plan.load.radar
        halos += [radar.window // 2] if radar.speckle != "none" else []
        halos += [radar.border_reach + EDGE_WIDTH] if radar.border_noise else []
    return tuple(halos)


def _cells(start: int, stop: int, length: int, halos: tuple[int, ...], cell: int) -> slice:
    # Cells that are smaller than a halo are joined by the filters, from the origin on.
    step = -(-max(cell, *halos) // cell) * cell
    for halo in halos:
        start, stop = (start - halo) // step * step, -(-(stop + halo) // step) * step
    return slice(max(start, 0), min(stop, length))


def _wanted(plan: Plan, rows: tuple[int, ...]) -> tuple[Indices, Bool]:
    """Scenes of some rows, wherever they are, in the table's order; and which of them are opened in any case.

    Those speak for their observation (its first) or kind; or are of a ground that cannot be parted.
    """
    parts = [plan.picked[row] for row in rows]
    if plan.compose.mask.recover_ice == "persistent":
        parts.append(np.flatnonzero(plan.scenes.table["sensor"] == "sentinel-2"))
    # Whatever the rows hold, the variables of the region: a scene of each kind.
    parts.append(plan.kinds)
    wanted = np.unique(np.concatenate(parts))
    table = plan.scenes.table.iloc[wanted]
    always = ~table.duplicated(["sensor", "time"]).to_numpy()
    dem = (table["sensor"] == "dem").to_numpy()
    # Tiles of one surface: none of them speaks for others, but there must be one.
    always = always & ~dem if plan.ground_parted else always | dem
    return wanted, np.asarray(always | np.isin(wanted, plan.kinds), np.bool_)


def _job(plan: Plan, rows: tuple[int, ...], frame: Frame, chosen: Indices) -> UnitJob:
    rows_ = tuple(plan.rows[i] for i in rows)
    scenes = plan.lean.some(chosen)
    return UnitJob(plan.region.name, plan.region.geobox, frame, rows_, scenes, plan.load, plan.compose)


class LeanScenes:
    """Scenes of a plan's units, with what reading them needs; a unit and its neighbours open the same.

    Parameters
    ----------
    scenes : Scenes
        All of the plan's.
    """

    def __init__(self, scenes: Scenes) -> None:
        self._scenes = scenes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    def some(self, chosen: Indices) -> Scenes:
        """Those at some places of the table."""
        return self.kept(chosen.tobytes(), lambda: self._some(chosen))

    def kept(self, key: Any, make: Callable[[], T]) -> T:
        """What was made of late under a key, or else is made now."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                known: T = self._kept[key]
                return known
        found = make()
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _some(self, chosen: Indices) -> Scenes:
        table = self._scenes.table.iloc[chosen].reset_index(drop=True)
        items = [_lean(item, bands) for item, bands in zip(table["item"], table["bands"], strict=True)]
        return Scenes(table.assign(item=items), self._scenes.source, self._scenes.signing)


def _lean(item: str, bands: str) -> str:
    """An item with what reading its bands needs."""
    content: dict[str, Any] = json.loads(item)
    assets = {band["asset"] for band in json.loads(bands).values()}
    content["assets"] = {key: asset for key, asset in content["assets"].items() if key in assets}
    content["properties"] = {k: v for k, v in content["properties"].items() if k.startswith(_PROPERTIES)}
    content["links"] = []
    return json.dumps(content)


def nanoseconds(times: npt.NDArray[np.datetime64]) -> Indices:
    """Times as whole numbers, which are equal whatever unit the times came in."""
    return times.astype("datetime64[ns]").astype(np.int64)
