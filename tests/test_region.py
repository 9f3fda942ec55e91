"""Regions: grids in metres, from boxes, outlines and inventories."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import Point, box

from glaciercube.errors import OutlineError, RegionError
from glaciercube.region import Region, choose_crs


def inventory(column: str, ids: list[str]) -> gpd.GeoDataFrame:
    shapes = [Point(86.8 + 0.05 * i, 27.9).buffer(0.01) for i in range(len(ids))]
    return gpd.GeoDataFrame({column: ids}, geometry=shapes, crs="EPSG:4326")


@pytest.mark.parametrize(
    ("bounds", "crs"),
    [
        ((86.78, 27.95, 86.85, 28.0), "EPSG:32645"),
        ((-68.4, -54.8, -68.3, -54.7), "EPSG:32719"),
        ((15.0, 78.0, 16.0, 78.5), "EPSG:32633"),
        ((10.0, 84.4, 12.0, 84.6), "EPSG:32661"),
        ((10.0, -84.6, 12.0, -84.4), "EPSG:3031"),
        ((-60.0, 70.0, -20.0, 80.0), "EPSG:3413"),
        ((179.9, 66.0, 180.1, 66.1), "EPSG:32601"),
    ],
)
def test_crs_is_chosen_from_the_place(bounds: tuple[float, ...], crs: str) -> None:
    assert choose_crs(bounds) == crs


def test_grid_covers_the_bbox_and_lies_on_multiples_of_the_resolution() -> None:
    bbox = (86.78, 27.95, 86.85, 28.0)
    region = Region.from_bbox(bbox, resolution=20, buffer=100)
    west, south, east, north = region.bbox
    assert west < bbox[0]
    assert south < bbox[1]
    assert east > bbox[2]
    assert north > bbox[3]
    assert region.resolution == 20
    affine = region.geobox.affine
    assert affine.c % 20 == 0
    assert affine.f % 20 == 0
    assert str(region.geobox.crs) == "EPSG:32645"
    # 100 m of buffer: 5 pixels a side and not a tenth of a degree.
    plain = Region.from_bbox(bbox, resolution=20)
    assert np.subtract(region.geobox.shape, plain.geobox.shape).tolist() == [10, 10]


def test_a_box_across_the_antimeridian_stays_small() -> None:
    region = Region.from_bbox((179.9, 66.0, -179.9, 66.1), resolution=60)
    assert region.geobox.shape[1] * 60 < 12_000
    west, _, east, _ = region.bbox
    assert west > 179
    assert east < -179
    assert abs(abs(region.longitude) - 180) < 0.1


@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
@pytest.mark.parametrize(("column", "name"), [("RGIId", "RGI60-15.03734"), ("rgi_id", "RGI2000-v7.0-G-15-05435")])
def test_one_glacier_of_an_inventory(tmp_path: Path, suffix: str, column: str, name: str) -> None:
    path = tmp_path / f"inventory.{suffix}"
    inventory(column, ["other", name, "third"]).to_file(path)
    region = Region.from_outlines(path, glacier=name, resolution=30, buffer=0)
    assert region.name == name
    assert region.outlines is not None
    assert list(region.outlines["outline"]) == [name]
    left, bottom, right, top = region.outlines.total_bounds
    extent = region.geobox.boundingbox
    assert 0 <= left - extent.left < 30
    assert 0 <= extent.right - right < 30
    assert 0 <= bottom - extent.bottom < 30
    assert 0 <= extent.top - top < 30


def test_parts_of_one_glacier_are_one_outline() -> None:
    region = Region.from_outlines(inventory("RGIId", ["a", "a", "b"]), resolution=30)
    assert region.outlines is not None
    assert sorted(region.outlines["outline"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("bbox", "resolution", "crs"),
    [
        ((86.8, 28.1, 86.9, 28.0), 20, None),
        ((200, 28.0, 86.9, 28.1), 20, None),
        ((86.8, 28.0, 86.9, 28.1), 0, None),
        ((86.8, 28.0, 86.9, 28.1), 20, "EPSG:4326"),
        ((86.8, 28.0, 86.9, 28.1), 20, "EPSG:999999"),
        ((-60, 10, 60, 20), 20, None),
    ],
)
def test_bad_regions_are_refused(bbox: tuple[float, float, float, float], resolution: float, crs: str | None) -> None:
    with pytest.raises(RegionError):
        Region.from_bbox(bbox, resolution=resolution, crs=crs)


def test_bad_outlines_are_refused(tmp_path: Path) -> None:
    frame = inventory("RGIId", ["a", "b"])
    with pytest.raises(OutlineError, match=r"no glacier 'c'.*ids look like a, b"):
        Region.from_outlines(frame, glacier="c", resolution=20)
    with pytest.raises(OutlineError, match="carry no CRS"):
        Region.from_outlines(gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)]), resolution=20)
    with pytest.raises(OutlineError, match="no polygon"):
        Region.from_outlines(gpd.GeoDataFrame(geometry=[Point(0, 0)], crs="EPSG:4326"), resolution=20)
    broken = tmp_path / "broken.geojson"
    broken.write_text("{")
    with pytest.raises(OutlineError, match="cannot read the outlines"):
        Region.from_outlines(broken, resolution=20)
