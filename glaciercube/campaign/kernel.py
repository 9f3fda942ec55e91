"""What is done for a unit, in three steps that any process may do: read, predict, write."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from glaciercube.campaign.lacking import Reading, computed
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.cube import compose, load
from glaciercube.errors import ReadError
from glaciercube.inference import BlockOptions, block_window, check_cube, encode_block, predict_block
from glaciercube.inference.lazy import block_variables
from glaciercube.inference.window import Window
from glaciercube.store import Missing

__all__ = ["Inputs", "Kernel", "Outputs", "Step", "parts"]

Arrays = Mapping[str, npt.NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One step of a unit, for the event log.

    Attributes
    ----------
    name : str
        Which.
    began : float
        Seconds since 1970.
    seconds : float
        How long it took.
    bytes : int
        Of what it handed on.
    worker : str
        Address of the worker, or name of the thread.
    """

    name: Literal["read", "predicted", "written"]
    began: float
    seconds: float
    bytes: int
    worker: str


@dataclass(frozen=True)
class Inputs:
    """What was read for a unit.

    Attributes
    ----------
    unit : Unit
        With the rows that were read.
    window : Window
        The block with its halo.
    ground : mapping of str to (y, x) array
        What does not change in time.
    arrays : mapping of str to (time, y, x) array
        What does.
    missing : tuple of tuple of Missing
        Per row, scenes that it is made without.
    failures : tuple of (row, ReadError)
        Rows that could not be read.
    steps : tuple of Step
        How it went.
    """

    unit: Unit
    window: Window
    ground: Arrays
    arrays: Arrays
    missing: tuple[tuple[Missing, ...], ...]
    failures: tuple[tuple[int, ReadError], ...]
    steps: tuple[Step, ...] = ()

    def __sizeof__(self) -> int:
        # dask weighs by this what it moves and spills.
        return sum(array.nbytes for array in (*self.ground.values(), *self.arrays.values()))


@dataclass(frozen=True)
class Outputs:
    """What was predicted for a unit.

    Attributes
    ----------
    unit : Unit
        Its rows.
    probability : (time, y, x) float32
        0 to 1, NaN where missing.
    quality : (time, y, x) uint8
        Flags.
    missing, failures, steps
        As in `Inputs`.
    """

    unit: Unit
    probability: npt.NDArray[np.float32]
    quality: npt.NDArray[np.uint8]
    missing: tuple[tuple[Missing, ...], ...]
    failures: tuple[tuple[int, ReadError], ...]
    steps: tuple[Step, ...] = ()

    def __sizeof__(self) -> int:
        return int(self.probability.nbytes + self.quality.nbytes)


def parts(unit: Unit, dates: int) -> Iterator[Unit]:
    """Cut a unit into units of a few dates, which bound memory."""
    for start in range(0, len(unit.rows), dates):
        yield replace(unit, rows=unit.rows[start : start + dates])


class Kernel:
    """Reads and predicts the units of a plan in one process, from any of its threads.

    Parameters
    ----------
    plan : Plan
        The job.
    options : BlockOptions
        Batch and device.
    recent : int
        Blocks whose ground and static branch are kept, since their other dates come next.
    cube : Dataset or None
        The whole region's lazy cube, if it was composed already.
    """

    def __init__(self, plan: Plan, options: BlockOptions, recent: int, cube: xr.Dataset | None = None) -> None:
        self.plan, self.options = plan, options
        self._reading = Reading(plan)
        self._cube = cube
        self._lock = threading.Lock()
        self._ground: _Recent[Arrays] = _Recent(recent)
        self._static: _Recent[Any] = _Recent(recent)
        self._gone: _Recent[dict[str, Missing]] = _Recent(4 * recent)

    @property
    def cube(self) -> xr.Dataset:
        """The lazy cube that the units are cut from."""
        with self._lock:
            if self._cube is None:
                plan = self.plan
                composed = compose(load(plan.scenes, plan.region, plan.load), plan.compose)
                self._cube = check_cube(composed, plan.model.contract)
            return self._cube

    def read(self, unit: Unit) -> Inputs:
        """Read a unit.

        A row that cannot be read now costs no other: it is listed among the failures.

        Raises
        ------
        ReadError
            If what all rows need could not be read.
        """
        began = time.time()
        window, here = self._part(unit)
        still = [name for name in here.data_vars if "time" not in here[name].dims]
        ground = self._ground.get(unit.block, lambda: computed(here[still]))
        moving = here.drop_vars(still)
        known = self._gone.get(unit.block, dict)
        # A copy: what another thread finds gone meanwhile was there for this one.
        gone = dict(known)
        found: list[tuple[list[int], Arrays]] = []
        failures: list[tuple[int, ReadError]] = []
        waiting = [list(unit.rows)]
        while waiting:
            rows = waiting.pop(0)
            try:
                found.append((rows, self._reading.compute(moving.isel(time=rows), rows, gone)))
            except ReadError as error:
                if len(rows) > 1:
                    waiting[:0] = [[row] for row in rows]
                else:
                    failures.append((rows[0], error))
        known.update(gone)
        rows = [row for some, _ in found for row in some]
        arrays = _joined([each for _, each in found])
        missing = tuple(tuple(gone[s] for s in self.plan.scene_ids[row] if s in gone) for row in rows)
        inputs = Inputs(replace(unit, rows=tuple(rows)), window, ground, arrays, missing, tuple(failures))
        return replace(inputs, steps=(_step("read", began, inputs.__sizeof__()),))

    def predict(self, inputs: Inputs, device: str | None = None) -> Outputs:
        """Predict what was read.

        Parameters
        ----------
        inputs : Inputs
            From `read`.
        device : str or None
            The device of this worker, where it has one of its own.

        Raises
        ------
        ModelError
            If the device's memory does not hold a single date.
        """
        began = time.time()
        unit, window, model = inputs.unit, inputs.window, self.plan.model
        options = replace(self.options, device=device) if device and self.options.device != "cpu" else self.options
        if unit.rows:
            static = self._static.get(
                (unit.block, options.device), lambda: encode_block(model, inputs.ground, window, options)
            )
            # `quality` says where the terrain is known.
            arrays = {**inputs.arrays, **{k: v for k, v in inputs.ground.items() if k == "slope"}}
            probability, quality = predict_block(model, arrays, static, window, options, len(unit.rows))
        else:
            probability = np.empty((0, window.y.size, window.x.size), np.float32)
            quality = np.empty(probability.shape, np.uint8)
        outputs = Outputs(unit, probability, quality, inputs.missing, inputs.failures)
        return replace(outputs, steps=(*inputs.steps, _step("predicted", began, outputs.__sizeof__())))

    def write(self, outputs: Outputs, write: Callable[..., T]) -> tuple[T | None, tuple[Step, ...]]:
        """Write what was predicted.

        Parameters
        ----------
        outputs : Outputs
            From `predict`.
        write : callable
            As `glaciercube.store.Handle.write`.

        Returns
        -------
        written : object or None
            What it gave; None if there was nothing to write.
        steps : tuple of Step
            How the unit went.
        """
        rows = list(outputs.unit.rows)
        if not rows:
            return None, outputs.steps
        began = time.time()
        keys = [self.plan.keys[row] for row in rows]
        times = np.array([self.plan.rows[row].time for row in rows]).astype("datetime64[s]")
        written = write(times, outputs.unit.block, outputs.probability, outputs.quality, keys, outputs.missing)
        return written, (*outputs.steps, _step("written", began, outputs.__sizeof__()))

    def _part(self, unit: Unit) -> tuple[Window, xr.Dataset]:
        """Window of a unit, and the lazy cube over it."""
        cube, contract = self.cube, self.plan.model.contract
        lazy = cube[block_variables(cube, contract)].assign_coords(time=cube["time"])
        y, x = self.plan.slices(unit.block)
        shape = (cube.sizes["y"], cube.sizes["x"])
        window = block_window(y, x, shape, halo=contract.receptive_field, stride=contract.stride)
        return window, lazy.isel(y=window.y.read, x=window.x.read)


class _Recent(Generic[T]):
    """What was made last, by key; each is made once, whichever thread asks first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, _Slot[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            slot = self._kept.setdefault(key, _Slot())
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        with slot.lock:
            # What failed is tried again by the next that asks.
            if not slot.values:
                slot.values.append(make())
            return slot.values[0]


@dataclass
class _Slot(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    values: list[T] = field(default_factory=list)


def _joined(found: list[Arrays]) -> Arrays:
    if len(found) <= 1:
        return found[0] if found else {}
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _step(name: Literal["read", "predicted", "written"], began: float, size: int) -> Step:
    return Step(name, began, time.time() - began, size, _worker())


def _worker() -> str:
    """Address of the worker whose task this is, or the thread's name."""
    import sys

    distributed = sys.modules.get("distributed")
    if distributed is not None:
        try:
            return str(distributed.get_worker().address)
        except ValueError:
            pass
    return threading.current_thread().name
