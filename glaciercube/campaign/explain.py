"""What a plan will cost, said before it is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from glaciercube.campaign.budget import Budget, Prices, check_budget
from glaciercube.campaign.counts import Counts, counted
from glaciercube.campaign.estimate import (
    ModelCost,
    Sizes,
    gpu_speed,
    graph_seconds,
    held,
    kept_blocks,
    model_cost,
    read_seconds,
    sizes_of,
)
from glaciercube.campaign.left import Left, what_is_left
from glaciercube.campaign.options import RunOptions
from glaciercube.campaign.plan import Plan
from glaciercube.cluster import ClusterOptions

__all__ = ["Explanation", "explain"]

# Tasks that one unit takes on a cluster where only some workers predict: read, predict, write; elsewhere it is one.
_TASKS_PER_UNIT = 3


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
    units, tasks : int
        Units that make them, of one shard and as many dates as are read at a time; and a cluster's tasks, at most.
    reads : int
        Cells of bands that are read: those that a unit needs and that a scene's footprint meets.
    input_bytes, output_bytes : int
        Bytes of these cells as they are stored, and of the packed result; both before compression.
    skipped : int
        Shards, over all dates, that are left out as no candidates.
    processes, threads : int
        Processes that do units, and the threads of each.
    ram_bytes : int
        Peak memory of one of them: what this process holds now, and what units hold at their worst moment.
    base_bytes, unit_bytes : int
        Of these, what this process holds now, and what one unit holds.
    vram_bytes : int
        Peak of one device; 0 without one.
    core_hours, gpu_hours, hours : float
        Estimates: of one core, of one GPU, and from start to end with all threads.
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
    processes: int = 1
    threads: int = 1
    ram_bytes: int = 0
    base_bytes: int = 0
    unit_bytes: int = 0
    vram_bytes: int = 0
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    hours: float = 0.0
    prices: Prices = field(default_factory=Prices)

    @property
    def costs(self) -> dict[str, float]:
        """Estimated US dollars: of computing, of reading, and of a month of storage."""
        price = self.prices
        return {
            "computing": self.core_hours * price.core_hour + self.gpu_hours * price.gpu_hour,
            "reading": self.input_bytes / 1e9 * price.egress_gb,
            "a month of storage": self.output_bytes / 1e9 * price.storage_gb_month,
        }

    @property
    def usd(self) -> float:
        """Their sum."""
        return sum(self.costs.values())

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
        skipped = f"; {_count(self.skipped)} more hold nothing (no candidates)" if self.skipped else ""
        gpu = f", {self.gpu_hours:.3g} GPU-hours" if self.vram_bytes else ""
        device = f"; {_size(self.vram_bytes)} of the device" if self.vram_bytes else ""
        where = "this process" if self.processes == 1 else f"each of {self.processes} workers"
        at_a_time = f"{self.threads} unit{'s' * (self.threads > 1)} of {_size(self.unit_bytes)}"
        costs = ", ".join(f"{usd:.2f} {name}" for name, usd in self.costs.items())
        return "\n".join(
            (
                f"grid      {self.grid}",
                f"scenes    {scenes}",
                f"rows      {_count(self.rows)} dates of {_count(self.blocks)} shards",
                f"to do     {_count(self.left)} shards in {_count(self.units)} units of some dates each{skipped}",
                f"reads     {_count(self.reads)} cells of bands, {_size(self.input_bytes)} before compression",
                f"memory    {_size(self.ram_bytes)} of {where}: {_size(self.base_bytes)} now, {at_a_time}{device}",
                f"time      about {_duration(self.hours)} ({self.core_hours:.3g} core-hours{gpu})",
                f"tasks     {_count(self.tasks)} at most, on a cluster",
                f"output    {_size(self.output_bytes)} before compression",
                f"cost      about {self.usd:.2f} USD, an estimate by the price table ({costs})",
            )
        )


def explain(
    plan: Plan,
    options: RunOptions | None = None,
    budget: Budget | None = None,
    *,
    cluster: ClusterOptions | None = None,
    left: Left | None = None,
) -> Explanation:
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
    cluster : ClusterOptions or None
        Where it would be run; on threads of this process by default.
    left : Left or None
        What is left of it, if that is known: from `glaciercube.campaign.what_is_left`.

    Raises
    ------
    StoreError
        If there is a store of another grid, or something else, at the plan's path.
    PlanError
        If it takes more than the budget; what is exceeded most is named first.
    """
    options, budget, where = options or RunOptions(), budget or Budget(), cluster or ClusterOptions()
    left = what_is_left(plan, options) if left is None else left
    sizes = sizes_of(plan)
    cost = model_cost(plan.model, sizes.names)
    count = counted(plan, plan.units_left(left.todo), options.dates, sizes.bands, shaded=sizes.shaded)
    processes, threads = _workers(where, options)
    height, width = plan.region.geobox.shape
    found = Explanation(
        grid=f"{height} x {width} pixels of {plan.region.resolution:g} m, {plan.region.geobox.crs}",
        scenes={name: len(plan.scenes.of(name)) for name in plan.scenes.sensors},
        rows=len(plan.rows),
        blocks=len(plan.blocks),
        left=count.shards,
        skipped=count.skipped,
        units=count.units,
        tasks=_TASKS_PER_UNIT * count.units,
        reads=count.reads,
        input_bytes=count.read_bytes,
        output_bytes=2 * count.written,
        processes=processes,
        threads=threads,
        prices=budget.prices,
        **_memory(plan, options, where, count, sizes, cost),
        **_time(plan, options, where, count, sizes, cost),  # type: ignore[arg-type]
    )
    check_budget(found, budget)
    return found


def _workers(where: ClusterOptions, options: RunOptions) -> tuple[int, int]:
    """Processes, and threads of each."""
    if where.kind == "threads":
        return 1, options.threads
    return where.processes, where.threads


def _on_gpu(where: ClusterOptions, options: RunOptions) -> bool:
    from glaciercube.inference import choose_device

    device = options.block.device
    if where.kind == "threads":
        return choose_device(device) != "cpu"
    # What workers have is known when they are there; what was asked for is known now.
    return where.resource is not None or (device or "").startswith("cuda")


def _memory(
    plan: Plan, options: RunOptions, where: ClusterOptions, count: Counts, sizes: Sizes, cost: ModelCost
) -> dict[str, int]:
    on_gpu = _on_gpu(where, options)
    holds = held(plan, options, sizes, cost, on_gpu=on_gpu)
    processes, threads = _workers(where, options)
    # A thread cannot have less than a unit; a cluster cuts units in parts that go to any worker.
    together = count.shared if where.kind == "threads" else -(-count.units // processes)
    busy = min(threads, together)
    # Where only some predict, others read for them.
    waiting = busy * holds.waiting if where.kind != "threads" and on_gpu else 0
    units = busy * holds.working + waiting + min(kept_blocks(threads), count.shared) * holds.kept
    base = _resident() + cost.weights
    return {
        "base_bytes": base,
        "ram_bytes": base + units,
        "unit_bytes": units // max(1, busy),
        "vram_bytes": holds.device + cost.weights if on_gpu else 0,
    }


def _time(
    plan: Plan, options: RunOptions, where: ClusterOptions, count: Counts, sizes: Sizes, cost: ModelCost
) -> dict[str, float]:
    on_gpu = _on_gpu(where, options)
    model = count.date_pixels * cost.date_seconds + count.static_pixels * cost.static_seconds
    core = count.reads * read_seconds(plan) + count.shared * graph_seconds(sizes) + (0.0 if on_gpu else model)
    gpu = model / gpu_speed() if on_gpu else 0.0
    processes, threads = _workers(where, options)
    hours = (core / (processes * threads) + gpu / processes) / 3600
    return {"core_hours": core / 3600, "gpu_hours": gpu / 3600, "hours": hours}


def _resident() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    import resource

    return pages * resource.getpagesize()


def _count(number: int) -> str:
    return f"{number:,}"


def _size(count: int) -> str:
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"


def _duration(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    if hours >= 2:
        return f"{hours:.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours * 60 >= 2 else f"{hours * 3600:.0f} seconds"
