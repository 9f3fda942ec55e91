"""Peak memory of a run, held against what `explain` says: ``python -m glaciercube.bench.memory [side] [folder]``.

A world is simulated, and run in several ways, each in a process of its own. What counts is what a process holds beyond
what it held when its plan was made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["SHAPES", "Shape", "main"]


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
    every : str
        The time axis.
    """

    model: str
    shard: int
    dates: int
    batch: int
    threads: int
    every: str = "observation"


SHAPES: Final = {
    "rule, large shards": Shape("ndsi", 512, 4, 4, 1),
    "network, small shards": Shape("fusion-unet", 256, 4, 2, 1),
    "network, large shards": Shape("fusion-unet", 512, 6, 1, 1),
    "network, two threads": Shape("fusion-unet", 256, 2, 2, 2),
}


def _plan(folder: Path, shape: Shape, name: str, pixels: int | None = None) -> Any:
    from glaciercube.campaign import RunOptions, make_plan
    from glaciercube.catalog import find
    from glaciercube.cube import ComposeOptions
    from glaciercube.inference import BlockOptions
    from glaciercube.models import load_model
    from glaciercube.region import Region
    from glaciercube.store import StoreOptions

    stated = json.loads((folder / "region.json").read_text())
    region = Region.from_bbox(stated["bbox"], resolution=stated["resolution"], crs=stated["crs"])
    region = Region("simulated", region.geobox[:pixels, :pixels])
    scenes = find(folder / "catalog.json", region, "2021", ["sentinel-2", "sentinel-1", "dem"])
    store = StoreOptions(str(folder / f"{name}.zarr"), shard=shape.shard, chunk=256)
    compose = ComposeOptions(every=shape.every)  # type: ignore[arg-type]
    plan = make_plan(region, scenes, load_model(shape.model), store, compose=compose)
    options = RunOptions(threads=shape.threads, dates=shape.dates, block=BlockOptions(batch=shape.batch, device="cpu"))
    return plan, options


def _told(folder: Path, shape: Shape, name: str) -> dict[str, float]:
    from glaciercube.campaign import explain

    plan, options = _plan(folder, shape, name)
    found = explain(plan, options)
    return {"unit_mb": found.unit_bytes / 1e6, "units": found.units, "hours": found.hours}


def _measured(folder: Path, shape: Shape, name: str) -> dict[str, float]:
    import time

    from glaciercube.campaign import run
    from glaciercube.campaign.allocator import give_memory_back

    give_memory_back()
    # Libraries, GDAL and the model are loaded by a run of a few pixels, which the estimate does not speak of.
    run(*_plan(folder, shape, f"{name}-warm", pixels=64))
    plan, options = _plan(folder, shape, name)
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    forget.write_text("5")  # the high-water mark starts anew
    before, begun = _field(status, "VmRSS"), time.perf_counter()
    run(plan, options)
    return {
        "above_mb": (_field(status, "VmHWM") - before) / 1e3,
        "before_mb": before / 1e3,
        "s": time.perf_counter() - begun,
    }


def _field(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def main() -> None:
    """Run every shape and print what was said, what was measured, and their ratio."""
    if len(sys.argv) > 3:
        kind, place, name = sys.argv[1:]
        work = {"told": _told, "measured": _measured}[kind]
        sys.stdout.write(json.dumps(work(Path(place), SHAPES[name], name.replace(" ", "-"))) + "\n")
        return
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 560
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    if not (folder / "catalog.json").exists():
        _simulate(folder, side)
    for name in SHAPES:
        found: dict[str, Any] = {"shape": name}
        for kind in ("told", "measured"):
            command = [sys.executable, "-W", "ignore", "-m", "glaciercube.bench.memory", kind, str(folder), name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
            found |= json.loads(done.stdout.splitlines()[-1])
        threads = min(SHAPES[name].threads, found["units"])
        found["ratio"] = found["above_mb"] / (found["unit_mb"] * threads)
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
        sys.stdout.write(json.dumps(rounded) + "\n")
        sys.stdout.flush()


def _simulate(folder: Path, side: int) -> None:
    from glaciercube.simulate.stac import write_catalog
    from glaciercube.simulate.world import WorldOptions, simulate_world

    folder.mkdir(parents=True, exist_ok=True)
    world = simulate_world(WorldOptions(seed=1, size=side, years=(2021,), dates_per_year=12))
    write_catalog(world, folder)
    region = world.region
    stated = {"bbox": list(region.bbox), "resolution": region.resolution, "crs": str(region.geobox.crs)}
    (folder / "region.json").write_text(json.dumps(stated))


if __name__ == "__main__":
    main()
