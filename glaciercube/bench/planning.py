"""How long a plan of many units takes, and how much memory: ``python -m glaciercube.bench.planning [units]``.

The region, the scenes and their items are made up: orbits of Sentinel-2, each date a swath of tiles over a part of the
region, items as large as Planetary Computer's. Nothing is read.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from typing import Any, Final

import click
import numpy as np
import pandas as pd
import shapely
import shapely.geometry
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from glaciercube.catalog import Scenes
from glaciercube.region import Region
from glaciercube.sensors import BandSource
from glaciercube.sentences import told

__all__ = ["made_scenes", "measure"]

_BANDS: Final = ("blue", "green", "red", "nir", "swir16", "swir22", "scl")
_TILE: Final = 109_800.0  # metres a side of a Sentinel-2 granule
# Bytes of what an item says beside the assets that are read; Planetary Computer's have about 14 KB.
_FILLING: Final = 10_000


def made_scenes(region: Region, dates: int, filling: int = 0, path: str = "") -> Scenes:
    """Sentinel-2 scenes that nobody has: each date all tiles of one of three swaths.

    Parameters
    ----------
    region : Region
        In UTM.
    dates : int
        Days, one after the other five days apart.
    filling : int
        Bytes that each item says beside what is read.
    path : str
        One file that all bands are of, uint16; by default each has one that is nowhere.
    """
    import geopandas as gpd

    box = region.geobox.boundingbox
    to_degrees = Transformer.from_crs(str(region.geobox.crs), "EPSG:4326", always_xy=True)
    high, wide = math.ceil(box.span_y / _TILE), math.ceil(box.span_x / _TILE)
    corners = [(box.left + j * _TILE, box.top - i * _TILE, i, j) for i in range(high) for j in range(wide)]
    shapes = {
        (i, j): shapely.transform(
            shapely.box(x, y - _TILE, x + _TILE, y), lambda p: np.stack(to_degrees.transform(p[:, 0], p[:, 1]), axis=1)
        )
        for x, y, i, j in corners
    }
    sources = {name: BandSource(name, name, "uint16", 0.0, scale=1e-4).as_dict() for name in _BANDS}
    sources["scl"] = BandSource("scl", "scl", "uint16", 0.0, categorical=True).as_dict()
    bands = json.dumps(sources)
    rows = []
    for date in range(dates):
        time_label = pd.Timestamp("2015-07-01T10:00") + pd.Timedelta(days=date)
        for (i, j), shape in shapes.items():
            if j % 3 == date % 3 or wide < 3:
                rows.append(_row(date, time_label, f"{i:02d}{j:02d}", shape, bands, filling, path))
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    return Scenes(table, "made up")


def _row(  # noqa: PLR0917 - columns
    date: int, label: pd.Timestamp, tile: str, shape: Any, bands: str, filling: int, path: str
) -> dict[str, Any]:
    name = f"S2_{date:05d}_{tile}"
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": shapely.geometry.mapping(shape),
        "bbox": list(shape.bounds),
        "properties": {"datetime": label.isoformat() + "Z", "filling": "x" * filling},
        "links": [],
        "assets": {band: {"href": path or f"/nowhere/{name}_{band}.tif"} for band in _BANDS},
    }
    return {
        "sensor": "sentinel-2",
        "collection": "made",
        "id": name,
        "datetime": label,
        "time": label,
        "solar_day": label.date().isoformat(),
        "group": f"{date}/made",
        "level": "surface",
        "offset": 0.0,
        "sun_azimuth": 150.0,
        "sun_elevation": 40.0,
        "notes": "{}",
        "bands": bands,
        "item": json.dumps(item),
        "geometry": shape,
    }


def measure(units: int, dates: int = 1600) -> dict[str, float]:
    """Plan and list so many units in this process, and say what it took.

    Parameters
    ----------
    units : int
        About how many.
    dates : int
        Of the time axis.
    """
    from glaciercube.campaign import make_plan
    from glaciercube.campaign.plan import ROWS_PER_UNIT
    from glaciercube.models import load_model
    from glaciercube.store import StoreOptions

    model = load_model("ndsi")
    side = math.ceil(math.sqrt(units / math.ceil(dates / ROWS_PER_UNIT)))
    options = StoreOptions("/nowhere/bench.zarr", shard=256, chunk=256)
    geobox = GeoBox((side * 256, side * 256), Affine(10, 0, 400_000, 0, -10, 5_400_000), "EPSG:32632")
    region = Region("made up", geobox)
    scenes = made_scenes(region, dates, _FILLING)
    before, begun = _peak(), time.perf_counter()
    from glaciercube.campaign import PlanOptions

    plan = make_plan(region, scenes, model, options, options=PlanOptions("all"))
    planned = time.perf_counter()
    count = sum(1 for _ in plan.units())
    listed = time.perf_counter()
    chosen = make_plan(region, scenes, model, options)
    kept = sum(not unit.skip for unit in chosen.units())
    return {
        "units": count,
        "shards": len(plan.blocks) * len(plan.rows),
        "scenes": len(scenes),
        "units_with_candidates": kept,
        "plan_seconds": round(planned - begun, 2),
        "list_seconds": round(listed - planned, 2),
        "candidates_seconds": round(time.perf_counter() - listed, 2),
        "before_mb": round(before / 1e6),
        "peak_mb": round(_peak() / 1e6),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@click.command()
@click.argument("units", type=click.IntRange(min=1), default=1_000_000)
@click.option("--here", is_flag=True, hidden=True, help="In this process.")
@told
def main(*, units: int, here: bool) -> None:
    """Measure a plan of UNITS (a million) in a process of its own, whose peak of memory is the plan's."""
    if here:
        click.echo(json.dumps(measure(units)))
        return
    command = [sys.executable, "-W", "ignore", "-m", "glaciercube.bench.planning", str(units), "--here"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    click.echo(done.stdout, nl=False)


if __name__ == "__main__":
    main()
