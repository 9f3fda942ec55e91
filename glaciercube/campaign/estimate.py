"""What a run will hold in memory and how long it will take: from the arrays that it keeps, and a short measurement."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dask.core import flatten

from glaciercube.campaign.lacking import files_of
from glaciercube.campaign.plan import ROWS_PER_UNIT, Unit
from glaciercube.campaign.unit import Frame, frame_of, unit_cube
from glaciercube.inference.lazy import block_variables

if TYPE_CHECKING:
    from glaciercube.campaign.options import RunOptions
    from glaciercube.campaign.plan import Plan
    from glaciercube.models.base import Model

__all__ = [
    "Held",
    "ModelCost",
    "Sizes",
    "gpu_speed",
    "graph_seconds",
    "held",
    "kept_blocks",
    "model_cost",
    "read_seconds",
    "sizes_of",
]

# Variables that the ground computes together: one array holds all of them as long as any is needed.
_GROUND_BYTES: Final = 6 * 4
# Chunks of 900 native pixels of elevation tiles, of which four are there where they meet (13 MB), and GDAL's blocks and
# buffers under one of them (19 MB were measured), whatever the shard.
_TILE_BYTES: Final = 32_000_000
# Bytes per pixel and date of whole cells that several variables of a sensor are made of: classification, masks, flags.
_SHARED_BYTES: Final = 4
# Seconds of one thread for one read of one cell of one band: opening, warping, decoding. On disk 12 ms were measured
# for cells of 256 pixels (simulated world, one core); over the network two requests of about 100 ms come on top.
_READ_DISK: Final = 0.012
_READ_REMOTE: Final = 0.2
# Sides (pixels) of the blocks that a model is measured on; the difference leaves out what does not grow.
_SIDES: Final = (128, 256)
# Of one task of a lazy graph, as it is kept, and what its computation adds: tracemalloc found 640 to 730 B, and 2.2 to
# 3.3 kB, for graphs of 3,594 and 10,055 tasks.
_TASK_BYTES: Final = 700
_RUNNING_BYTES: Final = 2500
# Seconds of one thread for one task of a lazy graph, to build and to compute it: 0.3 ms were measured.
_TASK_SECONDS: Final = 3e-4
# How much faster than one core a small GPU computes a network: an order of magnitude, not a measurement.
_GPU_SPEED: Final = 50.0
# Witnesses of where files are.
_SOME: Final = 20


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
    bands : frozenset of str
        Bands that they are made of.
    variables : int
        How many of them one date has.
    tasks, needed : int
        Of the lazy graph of a whole unit, and those of them that have to be computed.
    """

    moving: int
    still: int
    ground: int
    shaded: bool
    names: tuple[str, ...]
    bands: frozenset[str]
    variables: int
    tasks: int
    needed: int


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
    """Bytes that the largest unit of a plan holds.

    Attributes
    ----------
    kept : int
        Of what all its dates share: graph, ground and features of the static branch on the host. The kernel keeps them
        of one unit more than it has threads.
    reading : int
        More than that while a batch of dates is read, with what is left of the one before.
    predicting : int
        More than that while it is predicted, on the host.
    waiting : int
        A batch of dates that was read, and what was predicted of it.
    device : int
        While it is predicted, on the device.
    """

    kept: int
    reading: int
    predicting: int
    waiting: int
    device: int

    @property
    def working(self) -> int:
        """What a thread holds at its worst moment, beside what is kept."""
        return max(self.reading, self.predicting)


def sizes_of(plan: Plan) -> Sizes:
    """Bytes per pixel of what a plan's units read, and the tasks of the graph of one of its largest."""
    block = _largest(plan)
    rows = min(ROWS_PER_UNIT, len(plan.rows))
    cube = unit_cube(plan, Unit(block, tuple(range(rows))))
    names = block_variables(cube, plan.model.contract)
    moving = [cube[name].dtype.itemsize for name in names if "time" in cube[name].dims]
    still = sum(cube[name].dtype.itemsize for name in names if "time" not in cube[name].dims)
    graph: Any = cube[names].__dask_graph__()  # type: ignore[no-untyped-call]
    keys = (cube[name].__dask_keys__() for name in names)  # type: ignore[no-untyped-call]
    needed = graph.cull(set(flatten(keys)))
    ground = _GROUND_BYTES if still and "dem" in plan.scenes.sensors else 0
    return Sizes(
        sum(moving),
        still,
        ground,
        "hillshade" in names and ground > 0,
        tuple(names),
        _bands(plan, needed),
        variables=len(moving),
        tasks=len(graph),
        needed=len(needed),
    )


def _bands(plan: Plan, graph: Any) -> frozenset[str]:
    """Bands that a graph reads; all where the backend does not name its layers after them."""
    known = {band for bands in set(plan.scenes.table["bands"]) for band in json.loads(bands)}
    layers = {str(key[0] if isinstance(key, tuple) else key).rpartition("-")[0] for key in graph}
    return frozenset(known & layers or known)


def kept_blocks(threads: int) -> int:
    """Units of which a process keeps the graph, ground and static branch: `glaciercube.campaign.kernel.Kernel`."""
    return threads + 1


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
    window, cells, padded, core = _areas(frame_of(plan, _largest(plan)), plan.load.cell)
    rows = min(ROWS_PER_UNIT, len(plan.rows))
    dates = min(options.dates, rows)
    # Dates that are read, and that go through the model together: those beside them among them.
    read, batch = (_dates_read(plan, min(count, dates)) for count in (dates, options.block.batch))
    features = int(cost.kept_bytes * padded)
    kept = sizes.still * window + sizes.tasks * _TASK_BYTES + (0 if on_gpu else features)
    found, results = read * sizes.moving * window, dates * 5 * core
    # The chunks of a variable go as soon as they are joined; what several variables are made of stays until the last.
    joined = found // max(1, sizes.variables)
    running = sizes.needed * _RUNNING_BYTES * read // _dates_read(plan, rows)
    shared = read * _SHARED_BYTES * cells + (sizes.ground * window if sizes.shaded else 0)
    before = found + results if rows > dates else 0
    tile = _TILE_BYTES if sizes.ground else 0
    reading = before + max(found + joined + shared + running, tile if sizes.shaded else 0)
    stacked = batch * sizes.moving * padded
    passing = int(max(cost.static_bytes, cost.kept_bytes + batch * cost.date_bytes) * padded)
    predicting = found + results + stacked + (0 if on_gpu else passing - features)
    first = (sizes.still + sizes.ground) * cells + tile
    return Held(kept, max(reading, first), predicting, found + results, passing + stacked)


def _dates_read(plan: Plan, dates: int) -> int:
    """Most dates that are read for so many at a time."""
    starts = range(max(1, len(plan.rows) - dates + 1))
    return max(len(plan.reads(tuple(range(start, min(start + dates, len(plan.rows)))))) for start in starts)


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
    context = model.contract.time_context
    # A date with all that may stand beside it.
    count = 1 if context is None else context.places
    moving = {m.name: inputs[m.name][None].expand(count, -1, -1, -1) for m in chosen if not m.static}
    days = None if context is None else list(range(count))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        static_bytes, kept, static_seconds, features = _allocated(lambda: model.encode_static(still))
        date_bytes, _, date_seconds, _ = _allocated(lambda: model.predict(moving, features, days=days))
    finally:
        torch.set_num_threads(threads)
    return static_bytes, kept, date_bytes / count, static_seconds, date_seconds / count


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
    some = replace(plan.scenes, table=table.iloc[:: max(1, len(table) // _SOME)].reset_index(drop=True))
    remote = [file.address.is_remote for file in files_of(some)]
    scale = (plan.load.cell / 256) ** 2
    return _READ_DISK * max(scale, 0.2) + (_READ_REMOTE if 2 * sum(remote) > len(remote) else 0.0)


def graph_seconds(sizes: Sizes) -> float:
    """Seconds of one thread for the lazy graph of a whole unit: it is built once, and computed in parts."""
    return sizes.needed * _TASK_SECONDS


def gpu_speed() -> float:
    """How much faster than one core a GPU is taken to be."""
    return _GPU_SPEED
