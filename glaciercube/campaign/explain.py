"""What a plan will cost, said before it is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from glaciercube.campaign.budget import Budget, Prices, check_budget
from glaciercube.campaign.estimate import gpu_speed, held, model_cost, read_seconds, sizes_of
from glaciercube.campaign.plan import Plan
from glaciercube.campaign.unit import frame_of
from glaciercube.campaign.worth import lattice_of
from glaciercube.store import open_reader

if TYPE_CHECKING:
    from glaciercube.campaign.run import RunOptions

__all__ = ["Explanation", "done_of", "explain"]

# Tasks that one unit takes: read, predict, write, and one to collect what was written.
_TASKS_PER_UNIT = 4


@dataclass(frozen=True)
class Explanation:
    """The size of a job.

    Attributes
    ----------
    grid : str
        Shape, pixel size and CRS.
    scenes : dict
        Sensor -> number of STAC items.
    rows, blocks : int
        Dates, and shards of one date.
    left : int
        Shards, over all dates, that the store does not hold yet and that are computed.
    skipped : int
        Shards, over all dates, that are left out as no candidates.
    units, tasks : int
        Units that make them, and what a cluster has to do for these.
    reads : int
        Cells to be read from files whose footprints come near, with the cells that halos touch.
    input_bytes, output_bytes : int
        Bytes of the inputs as float32 on the grid, and of the packed result; both before compression.
    ram_bytes : int
        Peak memory of one process: what it holds now, and what its units hold at their worst moment.
    unit_bytes : int
        What one unit holds then.
    vram_bytes : int
        Peak of one device; 0 without one.
    core_hours, gpu_hours, hours : float
        Estimates: of one core, of one GPU, and from start to end with the threads of the run.
    prices : Prices
        What things are taken to cost.
    """

    grid: str
    scenes: dict[str, int]
    rows: int
    blocks: int
    left: int
    units: int
    reads: int
    input_bytes: int
    output_bytes: int
    skipped: int = 0
    tasks: int = 0
    ram_bytes: int = 0
    unit_bytes: int = 0
    vram_bytes: int = 0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    hours: float = 0.0
    prices: Prices = field(default_factory=Prices)

    @property
    def usd(self) -> float:
        """Estimated cost in US dollars, with one month of storage."""
        price = self.prices
        work = self.core_hours * price.core_hour + self.gpu_hours * price.gpu_hour
        return work + (self.input_bytes * price.egress_gb + self.output_bytes * price.storage_gb_month) / 1e9

    @property
    def amounts(self) -> dict[str, float]:
        """Everything that a `Budget` may limit, in its units."""
        return {
            "hours": self.hours,
            "core_hours": self.core_hours,
            "gpu_hours": self.gpu_hours,
            "usd": self.usd,
            "ram_gb": self.ram_bytes / 1e9,
            "vram_gb": self.vram_bytes / 1e9,
            "input_gb": self.input_bytes / 1e9,
            "output_gb": self.output_bytes / 1e9,
        }

    def __str__(self) -> str:
        scenes = ", ".join(f"{count} {name}" for name, count in self.scenes.items())
        gpu = f", {self.gpu_hours:.3g} GPU-hours" if self.vram_bytes else ""
        device = f", {self.vram_bytes / 1e9:.2f} GB of the device" if self.vram_bytes else ""
        left_out = f", {self.skipped} left out (no candidates)" if self.skipped else ""
        return "\n".join(
            (
                f"grid      {self.grid}",
                f"scenes    {scenes}",
                f"rows      {self.rows} dates of {self.blocks} shards",
                f"to do     {self.left} shards in {self.units} units, {self.tasks} tasks{left_out}",
                f"reads     {self.reads} windows, {self.input_bytes / 1e6:.1f} MB on the grid",
                f"memory    {self.ram_bytes / 1e9:.2f} GB, {self.unit_bytes / 1e9:.2f} GB for each unit{device}",
                f"time      about {self.hours:.3g} hours ({self.core_hours:.3g} core-hours{gpu})",
                f"output    {self.output_bytes / 1e6:.1f} MB before compression",
                f"cost      about {self.usd:.2f} USD, an estimate by the price table",
            )
        )


def explain(plan: Plan, options: RunOptions | None = None, budget: Budget | None = None) -> Explanation:
    """Say what is left to do of a plan, and what it will take.

    Counts are counted. Memory follows from the arrays that a unit holds, and from what PyTorch allocates for the model
    on a small block. Time is an estimate: the model is measured on a small block and one core, reads are taken to last
    12 ms on disk and 0.2 s over the network, and a GPU is taken to be 50 times as fast as a core.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    options : RunOptions or None
        How it would be run.
    budget : Budget or None
        What it may take, and prices.

    Raises
    ------
    StoreError
        If there is a store of another grid, or something else, at the plan's path.
    PlanError
        If it takes more than the budget; what is exceeded most is named first.
    """
    from glaciercube.campaign.run import RunOptions
    from glaciercube.inference import choose_device

    options, budget = options or RunOptions(), budget or Budget()
    count = _counts(plan)
    sizes = sizes_of(plan)
    cost = model_cost(plan.model, sizes.names)
    on_gpu = choose_device(options.block.device) != "cpu"
    holds = held(plan, options, sizes, cost, on_gpu=on_gpu)
    unit_bytes = max(holds.reading, holds.predicting)
    model_seconds = count["date_pixels"] * cost.date_seconds + count["unit_pixels"] * cost.static_seconds
    read = count["reads"] * read_seconds(plan)
    core_seconds = read + (0.0 if on_gpu else model_seconds)
    gpu_seconds = model_seconds / gpu_speed() if on_gpu else 0.0
    height, width = plan.region.geobox.shape
    found = Explanation(
        grid=f"{height} x {width} pixels of {plan.region.resolution:g} m, {plan.region.geobox.crs}",
        scenes={name: len(plan.scenes.of(name)) for name in plan.scenes.sensors},
        rows=len(plan.rows),
        blocks=len(plan.blocks),
        left=count["left"],
        skipped=count["skipped"],
        units=count["units"],
        tasks=_TASKS_PER_UNIT * count["units"],
        reads=count["reads"],
        input_bytes=4 * count["read_pixels"],
        output_bytes=2 * count["written"],
        ram_bytes=_resident() + cost.weights + min(options.threads, max(count["units"], 1)) * unit_bytes,
        unit_bytes=unit_bytes,
        vram_bytes=holds.device + cost.weights if on_gpu else 0,
        core_hours=core_seconds / 3600,
        gpu_hours=gpu_seconds / 3600,
        hours=(core_seconds / options.threads + gpu_seconds) / 3600,
        prices=budget.prices,
    )
    check_budget(found, budget)
    return found


def done_of(plan: Plan) -> Any:
    """What the plan's store holds already: row, shard and key of each mark that still has its shards."""
    store = open_reader(plan.store, plan.region.geobox)
    return [] if store is None else store.done()


def _counts(plan: Plan) -> dict[str, int]:
    """Shards, units, reads and pixels that are left."""
    moving, still = _layers(plan)
    blocks = plan.blocks
    cells = _per_axis(plan, lambda frame_span, cell: -(-frame_span.stop // cell) - frame_span.start // cell)
    reach = _per_axis(plan, lambda span, cell: -(-span.stop // cell) * cell - span.start // cell * cell)
    window = _per_axis(plan, lambda span, _: span.stop - span.start)
    core = _per_axis(plan, lambda span, _: span.size)
    names = ("left", "skipped", "units", "reads", "read_pixels", "written", "unit_pixels", "date_pixels")
    total = dict.fromkeys(names, 0)
    for unit in plan.units(done_of(plan)):
        (y, x), rows = unit.block, len(unit.rows)
        if unit.skip:
            total["skipped"] += rows
            continue
        number = y * blocks.wide + x
        layers = int(moving[number, list(unit.rows)].sum()) + int(still[number])
        area = window[0][y] * window[1][x]
        total["left"] += rows
        total["units"] += 1
        total["reads"] += layers * cells[0][y] * cells[1][x]
        total["read_pixels"] += layers * reach[0][y] * reach[1][x]
        total["written"] += rows * core[0][y] * core[1][x]
        total["unit_pixels"] += area
        total["date_pixels"] += rows * area
    return total


def _per_axis(plan: Plan, measure: Any) -> tuple[list[int], list[int]]:
    """A measure of the spans of every row and column of shards; cells end with the grid."""
    blocks, (height, width) = plan.blocks, plan.region.geobox.shape
    frames = [frame_of(plan, (min(i, blocks.high - 1), min(i, blocks.wide - 1))) for i in range(max(*_shape(plan)))]
    y = [min(int(measure(frame.window.y, plan.load.cell)), height) for frame in frames[: blocks.high]]
    x = [min(int(measure(frame.window.x, plan.load.cell)), width) for frame in frames[: blocks.wide]]
    return y, x


def _shape(plan: Plan) -> tuple[int, int]:
    return plan.blocks.high, plan.blocks.wide


def _layers(plan: Plan) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Bands of scenes that come near each shard: of each date (block, row), and of what all dates share (block)."""
    table = plan.scenes.table
    known = np.array([text.count('"band":') for text in table["bands"]])
    static = {name for name in plan.scenes.sensors if plan.scenes.sensor(name).static}
    still = table["sensor"].isin(static).to_numpy()
    near = plan.sight.blocks(lattice_of(plan, cores=False))
    shared = np.zeros(len(plan.blocks), np.int64)
    for place in np.flatnonzero(still):
        shared[near[place]] += known[place]
    moving = np.zeros((len(plan.blocks), len(plan.rows)), np.int32)
    for row, places in enumerate(plan.picked):
        for place in places[~still[places]]:
            moving[near[place], row] += known[place]
    return moving, shared


def _resident() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    import resource

    return pages * resource.getpagesize()
