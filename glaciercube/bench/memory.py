"""Peak memory of runs, held against what `explain` says, and over a longer time axis.

``python -m glaciercube.bench.memory shapes [folder] [times]`` runs several shapes in processes of their own; what
counts is what a process holds beyond what it held when its plan was made. ``python -m glaciercube.bench.memory axis
[folder]`` runs some shards of as many dates as are simulated, and of ten times as many: the same files under other
dates. ``python -m glaciercube.bench.memory workers [folder]`` runs the shapes on a worker of a LocalCluster. The folder
keeps the simulated world. ``python -m glaciercube.bench.memory flat [folder] [dates]`` is a small form, of files
that show nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import click

from glaciercube.sentences import told

__all__ = ["SHAPES", "Shape", "flat", "main", "measured"]

# Side of the simulated grid in pixels, and dates; two batches of dates of every shape.
_SIDE: Final = 560
_DATES: Final = 6


@dataclass(frozen=True)
class Shape:
    """One way of running.

    Attributes
    ----------
    model : str
        Name of a model.
    shard : int
        Side of a shard in pixels.
    dates, batch, threads : int
        As of `glaciercube.campaign.RunOptions`.
    pixels : int or None
        Only so many pixels of the grid, on each side.
    longer : int
        So many times the dates.
    cluster : bool
        On one worker of a LocalCluster.
    """

    model: str
    shard: int
    dates: int
    batch: int
    threads: int
    pixels: int | None = None
    longer: int = 1
    cluster: bool = False


SHAPES: Final = {
    "rule, large shards": Shape("ndsi", 512, 3, 3, 1),
    "rule, two threads": Shape("ndsi", 256, 3, 2, 2),
    "network, small shards": Shape("fusion-unet", 256, 3, 2, 1, pixels=512),
    "network, large shards": Shape("fusion-unet", 512, 3, 1, 1, pixels=512),
    "network, two threads": Shape("fusion-unet", 256, 2, 2, 2, pixels=512),
}


def _flat_plan(folder: Path, dates: int, store: str, pixels: int) -> Any:
    """A plan of scenes whose bands are all of one file."""
    import numpy as np
    import rasterio
    from affine import Affine
    from odc.geo.geobox import GeoBox

    from glaciercube.bench.planning import made_scenes
    from glaciercube.campaign import RunOptions, make_plan
    from glaciercube.inference import BlockOptions
    from glaciercube.models import load_model
    from glaciercube.region import Region
    from glaciercube.store import StoreOptions

    geobox = GeoBox((pixels, pixels), Affine(20, 0, 400_000, 0, -20, 5_400_000), "EPSG:32632")
    region, path = Region("flat", geobox), folder / "flat.tif"
    if not path.exists():
        profile = {"driver": "GTiff", "height": 600, "width": 600, "count": 1, "dtype": "uint16", "tiled": True}
        with rasterio.open(path, "w", **profile, crs="EPSG:32632", transform=geobox.affine) as file:
            file.write(np.full((600, 600), 6, np.uint16), 1)
    scenes = made_scenes(region, dates, path=str(path))
    plan = make_plan(region, scenes, load_model("ndsi"), StoreOptions(store, shard=512, chunk=256))
    return plan, RunOptions(threads=1, dates=4, block=BlockOptions(batch=4, device="cpu"))


def _plan(folder: Path, shape: Shape, store: str) -> Any:
    from glaciercube.campaign import RunOptions, make_plan
    from glaciercube.catalog import find
    from glaciercube.inference import BlockOptions
    from glaciercube.models import load_model
    from glaciercube.region import Region
    from glaciercube.store import StoreOptions

    stated = json.loads((folder / "region.json").read_text())
    region = Region.from_bbox(stated["bbox"], resolution=stated["resolution"], crs=stated["crs"])
    region = Region("simulated", region.geobox[: shape.pixels, : shape.pixels])
    sensors = ["sentinel-2", "sentinel-1", "dem"]
    scenes = _longer(find(folder / "catalog.json", region, "2021", sensors), shape.longer)
    options = StoreOptions(store, shard=shape.shard, chunk=256)
    plan = make_plan(region, scenes, load_model(shape.model), options)
    block = BlockOptions(batch=shape.batch, device="cpu")
    return plan, RunOptions(threads=shape.threads, dates=shape.dates, block=block)


def _longer(scenes: Any, times: int) -> Any:
    """The same files again in the years before, under other names."""
    import pandas as pd

    still = scenes.table[scenes.table["sensor"] == "dem"]
    moving = scenes.table[scenes.table["sensor"] != "dem"]
    tables = [still, moving]
    for year in range(1, times):
        ago = pd.Timedelta(days=366 * year)
        items = [_renamed(text, year) for text in moving["item"]]
        tables.append(
            moving.assign(
                id=moving["id"] + f"_{year}",
                item=items,
                group=moving["group"] + f"_{year}",
                datetime=moving["datetime"] - ago,
                time=moving["time"] - ago,
            )
        )
    table = pd.concat(tables).sort_values(["sensor", "time", "id"], ignore_index=True)
    return replace(scenes, table=table)


def _renamed(item: str, year: int) -> str:
    content = json.loads(item)
    content["id"] += f"_{year}"
    return json.dumps(content)


def measured(folder: Path, shape: Shape) -> dict[str, Any]:
    """Run a shape in this process.

    Parameters
    ----------
    folder : Path
        With a simulated world (``catalog.json``, ``region.json``).
    shape : Shape
        How.

    Returns
    -------
    dict
        ``told_mb``: what `explain` says that units hold; ``above_mb``: the peak beyond what was held before; their
        ``ratio``; ``peak_mb`` of the whole process; ``told_s`` and ``s``, the time that was said, and taken.
    """
    with tempfile.TemporaryDirectory() as place:
        if shape.cluster:
            return _on_a_worker(folder, shape, place)
        warm = _plan(folder, replace(shape, pixels=64, longer=1), f"{place}/warm.zarr")
        return _held_against(warm, _plan(folder, shape, f"{place}/a.zarr"))


def flat(folder: Path, dates: int) -> dict[str, Any]:
    """Run one shard of 512 pixels of files that show nothing; as `measured`."""
    with tempfile.TemporaryDirectory() as place:
        warm = _flat_plan(folder, 4, f"{place}/warm.zarr", 64)
        return _held_against(warm, _flat_plan(folder, dates, f"{place}/a.zarr", 512))


def _held_against(warm: Any, planned: Any) -> dict[str, Any]:
    import time

    from glaciercube.campaign import explain, run

    # Libraries, GDAL and the model are loaded by a run of a few pixels, which the estimate does not speak of.
    run(*warm)
    plan, options = planned
    told = explain(plan, options)
    status = Path("/proc/self/status")
    before, begun = _begin(), time.perf_counter()
    run(plan, options)
    seconds, peak = time.perf_counter() - begun, _field(status, "VmHWM")
    units = (told.ram_bytes - told.base_bytes) / 1e6
    above = (peak - before) / 1e3
    return {
        "told_mb": round(units, 1),
        "above_mb": round(above, 1),
        "ratio": round(above / units, 3),
        "peak_mb": round(peak / 1e3),
        "dates": len(plan.rows),
        "told_s": round(told.hours * 3600, 1),
        "s": round(seconds, 1),
    }


def _on_a_worker(folder: Path, shape: Shape, place: str) -> dict[str, Any]:
    from distributed import Client, LocalCluster

    from glaciercube.campaign import explain, run
    from glaciercube.cluster import ClusterOptions

    # A nanny's memory limit would spill and pause; the measure is of what a worker wants.
    with (
        LocalCluster(n_workers=1, threads_per_worker=shape.threads, memory_limit=0, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        warm, options = _plan(folder, replace(shape, pixels=64, longer=1), f"{place}/warm.zarr")
        run(warm, options, cluster=client)
        plan, options = _plan(folder, shape, f"{place}/a.zarr")
        told = explain(plan, options, cluster=ClusterOptions("local", workers=1, threads=shape.threads))
        (before,) = client.run(_begin).values()
        run(plan, options, cluster=client)
        (peak,) = client.run(_peak).values()
    units, above = (told.ram_bytes - told.base_bytes) / 1e6, (peak - before) / 1e3
    return {"told_mb": round(units, 1), "above_mb": round(above, 1), "ratio": round(above / units, 3)}


def _begin() -> int:
    """What is held now; the high-water mark starts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _field(Path("/proc/self/status"), "VmRSS")


def _peak() -> int:
    return _field(Path("/proc/self/status"), "VmHWM")


def _field(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def _apart(folder: Path, shape: Shape) -> dict[str, Any]:
    """`measured`, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "glaciercube.bench.memory", "shapes", str(folder)]
    text = json.dumps(shape.__dict__)
    done = subprocess.run([*command, "--shape", text], check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _say(**values: Any) -> None:
    click.echo(json.dumps(values))


def _axis(folder: Path) -> None:
    short = Shape("ndsi", 256, 3, 3, 2, pixels=512)
    found = {}
    for longer in (1, 10):
        found[longer] = _apart(folder, replace(short, longer=longer))
        _say(shape=f"{found[longer]['dates']} dates", **found[longer])
    _say(
        peak_ratio=round(found[10]["peak_mb"] / found[1]["peak_mb"], 3),
        above_ratio=round(found[10]["above_mb"] / found[1]["above_mb"], 3),
    )


def _simulate(folder: Path) -> None:
    from glaciercube.simulate.stac import write_catalog
    from glaciercube.simulate.world import WorldOptions, simulate_world

    folder.mkdir(parents=True, exist_ok=True)
    world = simulate_world(WorldOptions(seed=1, size=_SIDE, years=(2021,), dates_per_year=_DATES))
    write_catalog(world, folder)
    region = world.region
    stated = {"bbox": list(region.bbox), "resolution": region.resolution, "crs": str(region.geobox.crs)}
    (folder / "region.json").write_text(json.dumps(stated))


@click.command()
@click.argument("kind", type=click.Choice(("shapes", "axis", "workers", "flat")), default="shapes")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.argument("count", metavar="[TIMES|DATES]", type=int, required=False)
@click.option("--shape", default="", hidden=True, help="Run this one in this process, fields as JSON.")
@told
def main(*, kind: str, folder: Path | None, count: int | None, shape: str) -> None:
    """Run shapes, a longer axis, shapes on a worker or flat files, and print what was said and what was measured.

    FOLDER keeps the simulated world; TIMES are those of each shape (1), DATES those of flat files (8).
    """
    place = folder or Path(tempfile.mkdtemp())
    if shape:
        _say(**measured(place, Shape(**json.loads(shape))))
        return
    if kind == "flat":
        _say(**flat(place, 8 if count is None else count))
        return
    if not (place / "catalog.json").exists():
        _simulate(place)
    if kind == "axis":
        _axis(place)
        return
    for name, each in SHAPES.items():
        for _ in range(1 if count is None else count):
            _say(shape=name, **_apart(place, replace(each, cluster=kind == "workers")))


if __name__ == "__main__":
    main()
