"""What is done for a unit, in three steps that any process may do: read, predict, write."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from glaciercube.campaign.lacking import Reading, Witnesses, computed
from glaciercube.campaign.task import Step, Task
from glaciercube.campaign.unit import UnitJob
from glaciercube.errors import ReadError
from glaciercube.inference import BlockOptions, encode_block, not_candidate, predict_block
from glaciercube.inference.lazy import block_variables
from glaciercube.store import Missing

if TYPE_CHECKING:
    from glaciercube.models.base import Model

__all__ = ["Inputs", "Kernel", "Outputs"]

Arrays = Mapping[str, npt.NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """What was read for a unit.

    Attributes
    ----------
    task : Task
        With the rows of which all was read.
    ground : mapping of str to (y, x) array
        What does not change in time.
    arrays : mapping of str to (time, y, x) array
        What does, of the places that were read.
    read : tuple of int
        Those places of the whole: of the rows, and of the dates that the model looks at beside them.
    missing : tuple of tuple of Missing
        Per row, scenes that it is made without.
    failures : tuple of (row, ReadError)
        Rows that could not be read.
    steps : tuple of Step
        How it went.
    """

    task: Task
    ground: Arrays
    arrays: Arrays
    read: tuple[int, ...]
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
    task : Task
        Its rows.
    probability : (time, y, x) float32
        0 to 1, NaN where missing.
    quality : (time, y, x) uint8
        Flags.
    missing, failures, steps
        As in `Inputs`.
    """

    task: Task
    probability: npt.NDArray[np.float32]
    quality: npt.NDArray[np.uint8]
    missing: tuple[tuple[Missing, ...], ...]
    failures: tuple[tuple[int, ReadError], ...]
    steps: tuple[Step, ...] = ()

    def __sizeof__(self) -> int:
        return int(self.probability.nbytes + self.quality.nbytes)


class Kernel:
    """Reads and predicts in one process, from any of its threads.

    Parameters
    ----------
    model : Model
        With what.
    options : BlockOptions
        Batch and device.
    witnesses : Witnesses
        Of the plan.
    recent : int
        Units whose cube, ground and static branch are kept, since their other dates come next.
    settings : callable
        Sets up credentials and GDAL's settings while a cube is opened, as they are where the plan is.
    """

    def __init__(
        self,
        model: Model,
        options: BlockOptions,
        witnesses: Witnesses,
        recent: int,
        settings: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.model, self.options, self._settings = model, options, settings
        self._reading = Reading(witnesses)
        self._cubes: _Recent[xr.Dataset] = _Recent(recent)
        self._ground: _Recent[Arrays] = _Recent(recent)
        self._static: _Recent[Any] = _Recent(recent)
        self._gone: _Recent[dict[str, Missing]] = _Recent(4 * recent)

    def read(self, task: Task) -> Inputs:
        """Read some dates.

        A row that cannot be read now costs no other: it is listed among the failures.

        Raises
        ------
        ReadError
            If what all rows need could not be read.
        """
        began, block = time.time(), task.unit.block
        if task.unit.skip:
            return Inputs(task, {}, {}, (), ((),) * len(task.places), (), (_step("read", began, 0),))
        cube = self._cubes.get(task.name, lambda: self._open(task.whole))
        still = [name for name in cube.data_vars if "time" not in cube[name].dims]
        ground = self._ground.get(block, lambda: computed(cube[still]))
        found = self._read_places(task, cube.drop_vars(still))
        good = [i for i, context in enumerate(task.contexts) if not found.failed.keys() & set(context)]
        failures = tuple(
            (row, next(found.failed[place] for place in context if place in found.failed))
            for row, context in zip(task.unit.rows, task.contexts, strict=True)
            if found.failed.keys() & set(context)
        )
        done = task.some(good)
        # A row is made without what any date that it looks at is made without.
        missing = tuple(
            tuple(dict.fromkeys(each for place in context for each in found.missing[place]))
            for context in done.contexts
        )
        inputs = Inputs(done, ground, _joined(found.arrays), tuple(found.missing), missing, failures)
        return replace(inputs, steps=(_step("read", began, inputs.__sizeof__()),))

    def _read_places(self, task: Task, moving: xr.Dataset) -> _Found:
        """Read what a task reads; a place that cannot be read now costs no other."""
        known = self._gone.get(task.unit.block, dict)
        # A copy: what another thread finds gone meanwhile was there for this one.
        gone, found = dict(known), _Found()
        waiting = [list(task.reads)]
        while waiting:
            places = waiting.pop(0)
            part, scenes = moving.isel(time=places), [task.scenes[place] for place in places]
            try:
                arrays, missing = self._reading.compute(part, scenes, task.whole.scenes, gone)
            except ReadError as error:
                # One bad file must not cost the dates that were read beside it.
                if len(places) > 1:
                    waiting[:0] = [[place] for place in places]
                else:
                    found.failed[places[0]] = error
            else:
                found.arrays.append(arrays)
                found.missing.update(zip(places, missing, strict=True))
        known.update(gone)
        return found

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
        began, task = time.time(), inputs.task
        window, count = task.whole.frame.window, len(task.places)
        options = replace(self.options, device=device) if device and self.options.device != "cpu" else self.options
        if task.unit.skip:
            y, x = window.y, window.x
            # One date, seen many times: such a unit has hundreds.
            nothing, flags = not_candidate(1, slice(0, y.size), slice(0, x.size))
            shape = (count, y.size, x.size)
            probability, quality = np.broadcast_to(nothing, shape), np.broadcast_to(flags, shape)
        elif count:
            key = (task.unit.block, options.device)
            static = self._static.get(key, lambda: encode_block(self.model, inputs.ground, window, options))
            # `quality` says where the terrain is known.
            arrays = {**inputs.arrays, **{k: v for k, v in inputs.ground.items() if k == "slope"}}
            place = {each: number for number, each in enumerate(inputs.read)}
            days = [task.days[each] for each in inputs.read] if task.days else None
            targets = [place[each] for each in task.places]
            probability, quality = predict_block(
                self.model, arrays, static, window, options, count, days=days, targets=targets if days else None
            )
        else:
            probability = np.empty((0, window.y.size, window.x.size), np.float32)
            quality = np.empty(probability.shape, np.uint8)
        outputs = Outputs(task, probability, quality, inputs.missing, inputs.failures)
        return replace(outputs, steps=(*inputs.steps, _step("predicted", began, outputs.__sizeof__())))

    @staticmethod
    def write(outputs: Outputs, write: Callable[..., T]) -> tuple[T | None, tuple[Step, ...]]:
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
            How it went.
        """
        task, began = outputs.task, time.time()
        if not task.places:
            return None, outputs.steps
        block = task.unit.block
        written = write(task.times, block, outputs.probability, outputs.quality, task.keys, outputs.missing)
        return written, (*outputs.steps, _step("written", began, outputs.__sizeof__()))

    def _open(self, whole: UnitJob) -> xr.Dataset:
        with self._settings():
            cube = whole.cube().transpose("time", "y", "x", ...)
        return cube[block_variables(cube, self.model.contract)].assign_coords(time=cube["time"])


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


@dataclass
class _Found:
    """What was read: arrays in the order of the places, what each lacks, and why others could not be read."""

    arrays: list[Arrays] = field(default_factory=list)
    missing: dict[int, tuple[Missing, ...]] = field(default_factory=dict)
    failed: dict[int, ReadError] = field(default_factory=dict)


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
