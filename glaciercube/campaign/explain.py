"""What a plan will cost, said before it is run."""

from __future__ import annotations

from dataclasses import dataclass

from glaciercube.campaign.plan import Plan, Unit
from glaciercube.inference import block_window
from glaciercube.store import open_reader

__all__ = ["Explanation", "done_of", "explain"]

_SHARED = -1


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
        Shards, over all dates, that the store does not hold yet.
    units : int
        Tasks that make them.
    reads : int
        Windows to be read from files, with the cells that halos touch.
    input_bytes, output_bytes : int
        Bytes of the inputs as float32 on the grid, and of the packed result before compression.
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

    def __str__(self) -> str:
        scenes = ", ".join(f"{count} {name}" for name, count in self.scenes.items())
        return "\n".join(
            (
                f"grid      {self.grid}",
                f"scenes    {scenes}",
                f"rows      {self.rows} dates of {self.blocks} shards",
                f"to do     {self.left} shards in {self.units} units",
                f"reads     {self.reads} windows, {self.input_bytes / 1e6:.1f} MB on the grid",
                f"output    {self.output_bytes / 1e6:.1f} MB before compression",
            )
        )


def explain(plan: Plan) -> Explanation:
    """Say what is left to do of a plan.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.

    Raises
    ------
    StoreError
        If there is a store of another grid, or something else, at the plan's path.
    """
    units = list(plan.units(done_of(plan)))
    layers = _layers(plan)
    cells = size = 0
    for unit in units:
        read = sum(layers[row] for row in unit.rows) + layers[_SHARED]
        area, count = _read_pixels(plan, unit)
        cells, size = cells + count * read, size + area * read
    written = sum(len(unit.rows) * _shard_pixels(plan, unit.block) for unit in units)
    height, width = plan.region.geobox.shape
    return Explanation(
        grid=f"{height} x {width} pixels of {plan.region.resolution:g} m, {plan.region.geobox.crs}",
        scenes={name: len(plan.scenes.of(name)) for name in plan.scenes.sensors},
        rows=len(plan.rows),
        blocks=len(plan.blocks),
        left=sum(len(unit.rows) for unit in units),
        units=len(units),
        reads=cells,
        input_bytes=4 * size,
        output_bytes=2 * written,
    )


def done_of(plan: Plan) -> list[tuple[str, tuple[int, int], str]]:
    """What the plan's store holds already: row, shard and key of each mark that still has its shards."""
    store = open_reader(plan.store, plan.region.geobox)
    return [] if store is None else list(store.done())


def _layers(plan: Plan) -> dict[int, int]:
    """Bands to be read for each row, counting every scene; `_SHARED` is what all rows share."""
    table = plan.scenes.table
    known = {name: len(bands) for name, bands in zip(table["id"], plan.scenes.bands(), strict=True)}
    still = {name for name in plan.scenes.sensors if plan.scenes.sensor(name).static}
    static = {row.id for row in table.itertuples() if row.sensor in still}
    layers = {row: sum(known[name] for name in ids if name not in static) for row, ids in enumerate(plan.scene_ids)}
    return {**layers, _SHARED: sum(known[name] for name in static)}


def _read_pixels(plan: Plan, unit: Unit) -> tuple[int, int]:
    """Pixels and cells of the lattice that a unit's window touches."""
    y, x = plan.slices(unit.block)
    contract = plan.model.contract
    shape = (plan.region.geobox.shape[0], plan.region.geobox.shape[1])
    window = block_window(y, x, shape, halo=contract.receptive_field, stride=contract.stride)
    pixels, cells = 1, 1
    for span, length in ((window.y, shape[0]), (window.x, shape[1])):
        first, last = span.start // plan.load.cell, -(-span.stop // plan.load.cell)
        pixels *= min(last * plan.load.cell, length) - first * plan.load.cell
        cells *= last - first
    return pixels, cells


def _shard_pixels(plan: Plan, block: tuple[int, int]) -> int:
    y, x = plan.slices(block)
    return int((y.stop - y.start) * (x.stop - x.start))
