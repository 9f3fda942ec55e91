"""What a run will hold in memory and how long it will take: from the arrays that it keeps, and a short measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from glaciercube.campaign.plan import ROWS_PER_UNIT, Unit
from glaciercube.campaign.unit import Frame, frame_of, unit_cube
from glaciercube.inference.lazy import block_variables

if TYPE_CHECKING:
    from glaciercube.campaign.plan import Plan
    from glaciercube.campaign.run import RunOptions
    from glaciercube.models.base import Model

__all__ = ["Held", "ModelCost", "Sizes", "held", "model_cost", "read_seconds", "sizes_of"]

# Variables that the ground computes together: one array holds all of them as long as any is needed.
_GROUND_BYTES: Final = 6 * 4
# Seconds of one thread for one read of one cell of one band: opening, warping, decoding. On disk 12 ms were measured
# for cells of 256 pixels (simulated world, one core); over the network two requests of about 100 ms come on top.
_READ_DISK: Final = 0.012
_READ_REMOTE: Final = 0.2
# Sides (pixels) of the blocks that a model is measured on; the difference leaves out what does not grow.
_SIDES: Final = (128, 256)
# Of one task of a lazy graph: 0.83 and 0.84 kB were measured on graphs of 7,420 and 11,793 tasks.
_TASK_BYTES: Final = 840
# How much faster than one core a small GPU computes a network: an order of magnitude, not a measurement.
_GPU_SPEED: Final = 50.0


@dataclass(frozen=True)
class Sizes:
    """Bytes per pixel of what a unit reads.

    Attributes
    ----------
    moving : int
        Of the variables of one date.
    still : int
        Of those that all dates share.
    ground : int
        Held while the ground is computed.
    shaded : bool
        Whether the ground is computed again with each batch of dates, for the hillshade.
    names : tuple of str
        All variables.
    graph : int
        Of the unit's lazy graph as a whole, not per pixel.
    """

    moving: int
    still: int
    ground: int
    shaded: bool
    names: tuple[str, ...]
    graph: int


@dataclass(frozen=True)
class ModelCost:
    """What a model takes, per pixel of a block.

    Attributes
    ----------
    static_bytes : float
        Peak while the static branch is computed.
    kept_bytes : float
        Of its features, kept for all dates.
    date_bytes : float
        Peak of a forward pass, per date of the batch.
    static_seconds, date_seconds : float
        Of one core.
    weights : int
        Bytes of the model itself, once.
    """

    static_bytes: float
    kept_bytes: float
    date_bytes: float
    static_seconds: float
    date_seconds: float
    weights: int


@dataclass(frozen=True)
class Held:
    """Bytes that one unit holds at its worst moments.

    Attributes
    ----------
    reading : int
        While a batch of dates is read, with what is left of the one before.
    predicting : int
        While it is predicted, on the host.
    device : int
        While it is predicted, on the device.
    """

    reading: int
    predicting: int
    device: int


def sizes_of(plan: Plan) -> Sizes:
    """Bytes per pixel of what a plan's units read, and of the graph of one of its largest."""
    block = _largest(plan)
    cube = unit_cube(plan, Unit(block, tuple(range(min(ROWS_PER_UNIT, len(plan.rows))))))
    names = block_variables(cube, plan.model.contract)
    moving = sum(cube[name].dtype.itemsize for name in names if "time" in cube[name].dims)
    still = sum(cube[name].dtype.itemsize for name in names if "time" not in cube[name].dims)
    tasks: Any = cube[names].__dask_graph__()  # type: ignore[no-untyped-call]
    graph = _TASK_BYTES * len(tasks or ())
    ground = _GROUND_BYTES if still and "dem" in plan.scenes.sensors else 0
    return Sizes(moving, still, ground, "hillshade" in names and ground > 0, tuple(names), graph)


def held(plan: Plan, options: RunOptions, sizes: Sizes, cost: ModelCost, *, on_gpu: bool) -> Held:
    """Bytes that the largest unit of a plan holds.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    options : RunOptions
        Dates and batch at a time.
    sizes, cost
        From `sizes_of` and `model_cost`.
    on_gpu : bool
        Whether the model runs on a device with memory of its own.
    """
    frame = frame_of(plan, _largest(plan))
    window, cells, padded, core = _areas(frame, plan.load.cell)
    rows = min(ROWS_PER_UNIT, len(plan.rows))
    dates = min(options.dates, rows)
    still = sizes.still * window + sizes.graph
    found, results = dates * sizes.moving * window, dates * 5 * core
    before = found + results if rows > dates else 0
    # Chunks are whole cells; they are all there while they are joined, one variable after the other.
    chunks = dates * sizes.moving * cells + (sizes.ground * cells if sizes.shaded else 0)
    kept = 0 if on_gpu else int(cost.kept_bytes * padded)
    reading = still + kept + before + chunks + found
    batch = min(options.block.batch, dates)
    stacked = batch * sizes.moving * padded
    passing = int(max(cost.static_bytes, cost.kept_bytes + batch * cost.date_bytes) * padded)
    predicting = still + found + results + stacked + (0 if on_gpu else passing)
    return Held(max(reading, (sizes.still + sizes.ground) * cells + still), predicting, passing + stacked)


def _largest(plan: Plan) -> tuple[int, int]:
    """A shard that has neighbours on all sides, if there is one: the last of a row may be narrow."""
    return int(plan.blocks.high > 2), int(plan.blocks.wide > 2)


def _areas(frame: Frame, cell: int) -> tuple[int, int, int, int]:
    """Pixels of the window, of whole cells about it, of the window padded beyond the grid, and of the core."""
    window = cells = padded = core = 1
    for span in (frame.window.y, frame.window.x):
        window *= span.stop - span.start
        cells *= -(-span.stop // cell) * cell - span.start // cell * cell
        padded *= span.stop - span.start + span.before + span.after
        core *= span.size
    return window, cells, padded, core


def model_cost(model: Model, names: tuple[str, ...]) -> ModelCost:
    """Measure a model on small blocks, on the CPU: what PyTorch allocates, and how long it takes.

    Parameters
    ----------
    model : Model
        From `glaciercube.models.load_model`.
    names : tuple of str
        Variables that it will be given.
    """
    placed = model.to("cpu")
    weights = sum(tensor.numel() * tensor.element_size() for tensor in placed.module.state_dict().values())
    small, large = (_measured(placed, names, side) for side in _SIDES)
    pixels = _SIDES[1] ** 2 - _SIDES[0] ** 2
    per_pixel = [max(0.0, (big - little) / pixels) for little, big in zip(small, large, strict=True)]
    static_bytes, kept_bytes, date_bytes, static_seconds, date_seconds = per_pixel
    return ModelCost(static_bytes, kept_bytes, date_bytes, static_seconds, date_seconds, weights)


def _measured(model: Model, names: tuple[str, ...], side: int) -> tuple[float, float, float, float, float]:
    import torch

    stride = model.contract.stride
    side = -(-side // stride) * stride
    chosen = [m for m in model.contract.modalities if all(name in names for name in m.variables)]
    inputs = {m.name: torch.full((len(m.variables), side, side), 0.1) for m in chosen}
    still = {m.name: inputs[m.name] for m in chosen if m.static}
    moving = {m.name: inputs[m.name][None] for m in chosen if not m.static}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        static_bytes, kept, static_seconds, features = _allocated(lambda: model.encode_static(still))
        date_bytes, _, date_seconds, _ = _allocated(lambda: model.predict(moving, features))
    finally:
        torch.set_num_threads(threads)
    return static_bytes, kept, date_bytes, static_seconds, date_seconds


def _allocated(function: Callable[[], Any]) -> tuple[float, float, float, Any]:
    """Peak and rest of the bytes of the tensors that a function makes, its seconds, and what it returned."""
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    held: dict[int, tuple[Any, int]] = {}
    totals = [0]

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            mine = {id(each) for each in tree_leaves((args, kwargs))}
            for tensor in tree_leaves(out):
                if hasattr(tensor, "untyped_storage") and id(tensor) not in mine:
                    storage = tensor.untyped_storage()
                    reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                    held.setdefault(reference.cdata, (reference, storage.nbytes()))
            for key in [key for key, (reference, _) in held.items() if reference.expired()]:
                del held[key]
            total = sum(size for _, size in held.values())
            if "conv" in str(func):
                # On CPUs oneDNN works on copies of what goes in and comes out, in a layout of its own.
                totals.append(total + args[0].nbytes + out.nbytes)
            totals.append(total)
            return out

    function()
    begun = time.perf_counter()
    function()
    seconds = time.perf_counter() - begun
    with Counting():  # type: ignore[no-untyped-call]
        result = function()
    return float(max(totals)), float(totals[-1]), seconds, result


def read_seconds(plan: Plan) -> float:
    """Seconds of one thread for one read, by where most of the plan's files are: stated, not measured."""
    table = plan.scenes.table
    remote = sum("://" in item and "file://" not in item for item in table["item"].iloc[:: max(1, len(table) // 50)])
    scale = (plan.load.cell / 256) ** 2
    return _READ_DISK * max(scale, 0.2) + (_READ_REMOTE if remote else 0.0)


def gpu_speed() -> float:
    """How much faster than one core a GPU is taken to be."""
    return _GPU_SPEED
