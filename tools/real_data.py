"""Run the main job on the real data and print what it gives: ``python tools/real_data.py FOLDER [--out FOLDER]``.

FOLDER holds ``vinciguerra`` and ``khumbu`` (see tests/conftest.py). Nothing in it was used for training.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox

import glaciercube as gc
from glaciercube.campaign import Plan
from glaciercube.catalog import SensorOptions
from glaciercube.view import plot_inputs

KHUMBU = "RGI60-15.03733"


def vinciguerra(folder: Path, out: Path) -> None:
    """IoU against the yearly labels on the native 10 m grid, Sentinel-2 L1C alone."""
    labels = {}
    for path in sorted((folder / "reference").glob("vinciguerra_label_*.tif")):
        with rasterio.open(path) as source:
            labels[int(path.stem[-4:])] = source.read(1) == 1
            grid = GeoBox(source.shape, source.transform, str(source.crs))
    region = gc.Region("vinciguerra", grid)
    scenes = gc.find(folder / "catalog.json", region, "2019/2021", {"sentinel-2": SensorOptions("sentinel-2-l1c")})
    print("Vinciguerra, IoU               " + "  ".join(f"{year:>6}" for year in labels))
    for name in ("band-ratio", "ndsi", "fusion-unet"):
        model = gc.load_model(name)
        stored = _stored(gc.make_plan(region, scenes, model, gc.StoreOptions(str(out / f"vinciguerra-{name}.zarr"))))
        found = (stored["glacier_probability"] > 0.5).to_numpy()
        scores = [(f & label).sum() / (f | label).sum() for f, label in zip(found, labels.values(), strict=True)]
        print(f"  {name:28} " + "  ".join(f"{score:6.3f}" for score in scores))


def khumbu(folder: Path, out: Path) -> None:
    """Area per date within Khumbu Glacier's outline, with all sensors and without one, and a figure."""
    region = gc.Region.from_bbox((86.78, 27.95, 86.85, 28.00), resolution=20, name="khumbu")
    outlines = gc.Region.from_outlines(
        folder / "reference" / "rgi60_everest_86.gpkg", resolution=20, crs=str(region.geobox.crs)
    ).outlines
    model = gc.load_model("fusion-unet")
    for sensors in (["sentinel-2", "sentinel-1", "dem"], ["sentinel-2", "dem"], ["sentinel-1", "dem"]):
        scenes = gc.find(folder / "catalog.json", region, "2024", sensors)
        name = "+".join(sensors)
        plan = gc.make_plan(region, scenes, model, gc.StoreOptions(str(out / f"khumbu-{name}.zarr")))
        stored = _stored(plan)
        series = gc.area_series(plan.store.path, outlines)
        own = series[series["outline"] == KHUMBU]
        print(f"\nKhumbu Glacier, {name}: the grid covers {own['in_grid'].iloc[0]:.1%} of the outline")
        columns = ["time", "area_km2", "expected_area_km2", "lower_km2", "upper_km2", "coverage"]
        print(own[columns].to_string(index=False, float_format=lambda value: f"{value:.3f}"))
        cube = gc.compose(gc.load(scenes, region)).compute()
        if len(sensors) == 3:
            _ranges(cube)
        picture = out / f"khumbu-{name}.png"
        plot_inputs(cube, stored, outlines=outlines, title=f"Khumbu Glacier, {name}").savefig(picture)
        print(f"picture: {picture}")


def _ranges(cube: xr.Dataset) -> None:
    low, high = np.nanpercentile(cube["vv_db"], [1, 99])
    steep = np.nanpercentile(cube["slope"], 99.9)
    print(f"VV 1st to 99th percentile {low:.1f} to {high:.1f} dB")
    print(f"slope 99.9th percentile {steep:.1f}, at most {float(cube['slope'].max()):.1f} degrees")


def _stored(plan: Plan) -> xr.Dataset:
    gc.run(plan)
    return gc.open_store(plan.store.path)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    vinciguerra(arguments.folder / "vinciguerra", arguments.out)
    khumbu(arguments.folder / "khumbu", arguments.out)


if __name__ == "__main__":
    main()
