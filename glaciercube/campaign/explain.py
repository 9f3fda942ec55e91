"""What a plan will cost, said before it is run."""

from __future__ import annotations

from dataclasses import dataclass

from glaciercube.campaign.plan import Plan
from glaciercube.sensors import find_assets, get_sensor

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """The size of a job.

    Attributes
    ----------
    grid : str
        Shape, pixel size and CRS.
    scenes : dict
        Sensor -> number of STAC items.
    rows, blocks, units : int
        Dates, shards and tasks.
    reads : int
        Windows read from files, halo aside.
    input_bytes, output_bytes : int
        Uncompressed bytes of the cube's inputs on the grid, and of the packed result.
    halo : float
        Pixels read per pixel written, for the context that the model needs.
    """

    grid: str
    scenes: dict[str, int]
    rows: int
    blocks: int
    units: int
    reads: int
    input_bytes: int
    output_bytes: int
    halo: float

    def __str__(self) -> str:
        scenes = ", ".join(f"{count} {name}" for name, count in self.scenes.items())
        return "\n".join(
            (
                f"grid      {self.grid}",
                f"scenes    {scenes}",
                f"rows      {self.rows} dates",
                f"units     {self.units} to do ({self.blocks} shards)",
                (
                    f"reads     {self.reads} windows, {self.input_bytes / 1e6:.1f} MB on the grid, "
                    f"{self.halo:.2f} pixels read per pixel written"
                ),
                f"output    {self.output_bytes / 1e6:.1f} MB before compression",
            )
        )


def explain(plan: Plan, done: int = 0) -> Explanation:
    """Say what a plan will do.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    done : int
        Units of (row, shard) that the store holds already.
    """
    height, width = plan.region.geobox.shape
    pixels = height * width
    cells = (-(-height // plan.load.cell)) * (-(-width // plan.load.cell))
    bands = {name: _bands(plan, name) for name in plan.scenes.sensors}
    counts = {name: len(plan.scenes.of(name)) for name in plan.scenes.sensors}
    observations = {name: plan.scenes.of(name).table["time"].nunique() for name in plan.scenes.sensors}
    side = plan.store.block
    shard = (min(side, height), min(side, width))
    context = 2 * plan.model.contract.receptive_field
    return Explanation(
        grid=f"{height} x {width} pixels of {plan.region.resolution:g} m, {plan.region.geobox.crs}",
        scenes=counts,
        rows=len(plan.rows),
        blocks=len(plan.blocks),
        units=max(len(list(plan.units())) - done, 0),
        reads=sum(counts[name] * bands[name] * cells for name in counts),
        input_bytes=sum(observations[name] * bands[name] * pixels * 4 for name in counts),
        output_bytes=2 * len(plan.rows) * pixels,
        halo=(shard[0] + context) * (shard[1] + context) / (shard[0] * shard[1]),
    )


def _bands(plan: Plan, sensor: str) -> int:
    item = plan.scenes.of(sensor).items()[0]
    return len(find_assets(item, get_sensor(sensor)))
