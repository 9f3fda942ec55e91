"""Intervals of area on real glaciers, reported as they are.

``python -m glaciercube.bench.real_intervals --data FOLDER``. Vinciguerra: outlines are the pieces of what was labelled
in any of three summers, and the truth is the label of the summer. Its labels hold snow patches and drop dirty ice,
which the intervals know nothing of. Khumbu: 86 outlines of about 2000 against images of 2024; what the ice has lost
since is not known, so that an interval that lies below the outline's area need not be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.catalog import SensorOptions, find
from glaciercube.change import AreaOptions, Calibration, area_change, area_series, find_calibration
from glaciercube.change.conformal import Quantity
from glaciercube.cube import compose, load, settle_offsets
from glaciercube.errors import ModelError
from glaciercube.inference import predict
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.region import Region
from glaciercube.sentences import told

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["khumbu", "vinciguerra"]

_LEAST = 0.02  # km2 of an outline
_OBSERVED = AreaOptions(every="observation")


def vinciguerra(folder: Path, model: Model) -> Iterator[str]:
    """Lines on the three summers of Vinciguerra."""
    labels, grid = _labels(folder / "reference")
    region = Region("vinciguerra", grid)
    wanted = {"sentinel-2": SensorOptions("sentinel-2-l1c")}
    cube = compose(load(find(folder / "catalog.json", region, "2019/2021", wanted), region))
    predicted = predict(cube, model).compute(scheduler="synchronous")
    outlines, numbers = _pieces(np.any(list(labels.values()), axis=0), grid)
    pixel = abs(grid.resolution.x * grid.resolution.y) / 1e6

    def truth(outline: str, year: int) -> float:
        return float(labels[year][numbers == int(outline)].sum() * pixel)

    series = area_series(predicted, outlines, _OBSERVED, calibration=_calibration(model, predicted, "area"))
    series["true"] = [truth(o, t.year) for o, t in zip(series["outline"], series["time"], strict=True)]
    yield _line("Vinciguerra, area", series, "area_km2")
    ends = [predicted["time"].to_numpy()[row] for row in (0, -1)]
    change = area_change(
        predicted, outlines, ends[0], ends[1], _OBSERVED, calibration=_calibration(model, predicted, "change")
    )
    years = [pd.Timestamp(end).year for end in ends]
    change["true"] = [truth(o, years[1]) - truth(o, years[0]) for o in change["outline"]]
    yield _line(f"Vinciguerra, change {years[0]}-{years[1]}", change, "change_km2")


def khumbu(folder: Path, model: Model) -> Iterator[str]:
    """Lines on the images of Khumbu, with all sensors and with less."""
    region = Region.from_bbox((86.78, 27.95, 86.85, 28.00), resolution=20, name="khumbu")
    for sensors in (["sentinel-2", "sentinel-1", "dem"], ["sentinel-2", "dem"], ["sentinel-2"]):
        scenes = settle_offsets(find(folder / "catalog.json", region, "2024-01-01/2024-12-31", sensors), region)
        predicted = predict(compose(load(scenes, region)), model).compute(scheduler="synchronous")
        try:
            calibration = _calibration(model, predicted, "area")
        except ModelError as error:
            yield f"Khumbu, {'+'.join(sensors)}: {error}"
            continue
        outlines = folder / "reference" / "rgi60_everest_86.gpkg"
        series = area_series(predicted, outlines, _OBSERVED, calibration=calibration)
        series = series[(series["in_grid"] > 0.5) & (series["outline_area_km2"] > _LEAST)].copy()
        series["true"] = series["outline_area_km2"] * series["in_grid"]
        yield _line(f"Khumbu against outlines of 2000, {'+'.join(sensors)}", series, "area_km2")


def _labels(folder: Path) -> tuple[Mapping[int, npt.NDArray[np.bool_]], GeoBox]:
    import rasterio

    found: dict[int, npt.NDArray[np.bool_]] = {}
    grid = None
    for path in sorted(folder.glob("vinciguerra_label_*.tif")):
        with rasterio.open(path) as source:
            found[int(path.stem[-4:])] = source.read(1) == 1
            grid = GeoBox(source.shape, source.transform, str(source.crs))
    if grid is None:
        raise ModelError(f"{folder} has no label", "name the folder of the real sets")
    return found, grid


def _pieces(ice: npt.NDArray[np.bool_], grid: GeoBox) -> tuple[gpd.GeoDataFrame, npt.NDArray[np.int32]]:
    """Pieces of ice as outlines, and their numbers on the grid."""
    import geopandas as gpd
    from rasterio.features import shapes
    from scipy import ndimage
    from shapely.geometry import shape

    numbers, count = ndimage.label(ice)
    size = np.bincount(numbers.ravel(), minlength=count + 1) * abs(grid.resolution.x * grid.resolution.y) / 1e6
    kept = np.where(size[numbers] >= _LEAST, numbers, 0).astype(np.int32)
    drawn = [(str(int(value)), shape(each)) for each, value in shapes(kept, kept > 0, 4, grid.transform)]
    return gpd.GeoDataFrame(drawn, columns=["outline", "geometry"], geometry="geometry", crs=str(grid.crs)), kept


def _calibration(model: Model, predicted: xr.Dataset, quantity: Quantity) -> Calibration:
    modalities: Any = predicted.attrs["modalities"]
    found = find_calibration(model.hash, modalities, "observation", quantity)
    if found is None:
        raise ModelError(
            f"model {model.contract.name!r} has no calibration with {'+'.join(modalities)}", "make calibrate"
        )
    return found


def _line(name: str, table: pd.DataFrame, value: str) -> str:
    inside = (table["true"] >= table["lower_km2"] - 1e-9) & (table["true"] <= table["upper_km2"] + 1e-9)
    above = int((table["true"] > table["upper_km2"]).sum())
    width = ((table["upper_km2"] - table["lower_km2"]) / table["outline_area_km2"]).median()
    sums = f"{table[value].sum():.3f} km2 said, {table['true'].sum():.3f} labelled"
    return (
        f"{name}: {int(inside.sum())} of {len(table)} within their 90 % interval ({above} above, "
        f"{len(table) - int(inside.sum()) - above} below), median width {width:.2f} of the outline; {sums}"
    )


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the real sets.")
@click.option("--model", default="fusion-unet", show_default=True, help="Model or its folder.")
@told
def main(*, data: Path, model: str) -> None:
    """Print how the shipped intervals hold on real glaciers."""
    import torch

    torch.set_num_threads(1)
    loaded = load_model(model)
    for line in (*vinciguerra(data / "vinciguerra", loaded), *khumbu(data / "khumbu", loaded)):
        click.echo(line)


if __name__ == "__main__":
    main()
