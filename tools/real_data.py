"""Run the main job on the real data and print what it gives: ``python tools/real_data.py FOLDER [--out FOLDER]``.

FOLDER holds ``vinciguerra``, ``khumbu`` and ``s1_s2_dated`` (see tests/conftest.py). Nothing in it was used for
training.
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
from glaciercube.view import plot_companions, plot_inputs

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
        scenes = gc.settle_offsets(gc.find(folder / "catalog.json", region, "2024", sensors), region)
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


def dated_tree(folder: Path) -> xr.DataTree:
    """A tree made by hand from the netCDF files of dated Sentinel-1 and Sentinel-2 over lowland Belgium.

    Reflectance is stored times 10000, with the offset removed. Power is stored as 10 ** ((dB + 83) / 20), with which
    medians are -11 to -13 dB (VV) and -18 to -20 dB (VH); the file does not say so.
    """
    optical = xr.open_dataset(folder / "cdse_sentinel2_l2a.nc").rename(t="time")
    radar = xr.open_dataset(folder / "cdse_sentinel1_grd.nc").rename(t="time")
    names = {"coastal": "B01", "red": "B04", "nir": "B08", "swir16": "B11"}
    bands = {name: optical[f"S2-L2A-{key}"].astype("float32") / 10_000 for name, key in names.items()}
    power = {name: 10.0 ** (20 * np.log10(radar[f"S1-SIGMA0-{name.upper()}"]) / 10 - 8.3) for name in ("vv", "vh")}
    nodes = {
        "sentinel2": xr.Dataset(
            {**bands, "scl": optical["S2-L2A-SCL"].astype("uint8")}, attrs={"reflectance": "surface"}
        ),
        "sentinel1": xr.Dataset(power).astype("float32"),
    }
    return xr.DataTree.from_dict(nodes, name="belgium")


def belgium(folder: Path, out: Path) -> None:
    """Share masked and the companion of every date, and a figure."""
    cube = gc.compose(dated_tree(folder))
    flags = cube["optical_flags"]
    masked = ((flags & 6) > 0).mean(("y", "x"))
    print("\nBelgium, April 2023: date, share masked, days to the Sentinel-1 companion")
    for time, share, age in zip(
        cube["time"].to_numpy(), masked.to_numpy(), cube["sentinel1_age"].to_numpy(), strict=True
    ):
        print(f"  {str(time)[:10]} {share:6.1%} {age:+5.1f}")
    print(f"called cloud and recovered as ice: {float(((flags & 64) > 0).mean()):.2%}")
    picture = out / "belgium-companions.png"
    plot_companions(cube, title="Lowland Belgium, April 2023").savefig(picture)
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
    belgium(arguments.folder / "s1_s2_dated", arguments.out)


if __name__ == "__main__":
    main()
