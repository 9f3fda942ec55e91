"""Regions: grids in metres, from boxes, outlines and inventories."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely.geometry import MultiPolygon, Point, box

from glaciercube.errors import OutlineError, RegionError
from glaciercube.region import Region, choose_crs, footprint_meets, geographic_footprint


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
    lost = tmp_path / "lost.shp"
    frame.to_file(lost)
    lost.with_suffix(".prj").unlink()
    with pytest.raises(OutlineError, match=r"lost\.shp carry no CRS: put the \.prj .* ogr2ogr -a_srs"):
        Region.from_outlines(lost, resolution=20)
    with pytest.raises(OutlineError, match="no polygon"):
        Region.from_outlines(gpd.GeoDataFrame(geometry=[Point(0, 0)], crs="EPSG:4326"), resolution=20)
    broken = tmp_path / "broken.geojson"
    broken.write_text("{")
    with pytest.raises(OutlineError, match="cannot read the outlines"):
        Region.from_outlines(broken, resolution=20)


@pytest.mark.parametrize(
    ("bounds", "zone"),
    [
        ((5.2, 60.3, 5.4, 60.5), 32),  # Bergen: 32V
        ((5.2, 64.1, 5.4, 64.3), 31),
        ((15.5, 78.1, 15.7, 78.3), 33),  # Longyearbyen
        ((10.0, 79.0, 10.2, 79.1), 33),  # west Spitsbergen: 33X, not 32
        ((24.0, 80.0, 24.2, 80.1), 35),  # Nordaustlandet: 35X, not 34
        ((8.9, 79.0, 9.0, 79.1), 31),
    ],
)
def test_zones_follow_the_grid_of_sentinel2(bounds: tuple[float, ...], zone: int) -> None:
    assert choose_crs(bounds) == f"EPSG:{32600 + zone}"


def test_outlines_on_both_sides_of_the_antimeridian_make_one_small_grid() -> None:
    shapes = [Point(179.98, 68.0).buffer(0.01), Point(-179.97, 68.0).buffer(0.01)]
    frame = gpd.GeoDataFrame({"RGIId": ["west", "east"]}, geometry=shapes, crs="EPSG:4326")
    region = Region.from_outlines(frame, resolution=30)
    assert region.geobox.shape[1] * 30 < 6_000
    assert len(region.search_boxes()) == 2


PLACES = st.one_of(
    st.tuples(st.floats(-180, 180), st.floats(-90, 90)),
    st.tuples(st.floats(-180, 180), st.sampled_from([90.0, 89.9999, 89.99, 89.5, 84.5, -90.0, -89.97, -85.0])),
    st.tuples(st.sampled_from([180.0, -180.0, 179.999, -179.99]), st.floats(-90, 90)),
)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """A grid anywhere, of any size up to 1,200 km, in UTM of its zone or a polar CRS where one applies."""
    longitude, latitude = draw(PLACES)
    codes = [choose_crs((longitude, latitude, longitude, latitude))]
    if abs(latitude) >= 60:
        codes += ["EPSG:3413", "EPSG:32661"] if latitude > 0 else ["EPSG:3031", "EPSG:32761"]
    crs = draw(st.sampled_from(codes))
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(longitude, latitude)
    resolution = draw(st.sampled_from([10.0, 20.0, 300.0]))
    shape = (draw(st.integers(1, 4000)), draw(st.integers(1, 4000)))
    # Not always in the middle: poles and the antimeridian come to lie at edges and corners too.
    left = x - draw(st.floats(0, 1)) * shape[1] * resolution
    top = y + draw(st.floats(0, 1)) * shape[0] * resolution
    return Region("drawn", GeoBox(shape, Affine(resolution, 0, left, 0, -resolution, top), crs))


@given(regions(), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_every_point_of_a_grid_is_in_the_boxes_that_are_searched(
    region: Region, points: list[tuple[float, float]]
) -> None:
    rows, columns = region.geobox.shape
    # The same on each edge: extremes lie there.
    at = np.array([(a, b) for u, v in points for a, b in ((u, v), (u, 0), (u, 1), (0, v), (1, v))])
    a = region.geobox.affine
    x, y = a.c + a.a * at[:, 0] * columns, a.f + a.e * at[:, 1] * rows
    longitude, latitude = Transformer.from_crs(str(region.geobox.crs), "EPSG:4326", always_xy=True).transform(x, y)
    for margin in (0.0, 500.0):
        boxes = region.search_boxes(margin)
        for lon, lat in zip(longitude, latitude, strict=True):
            # A footprint of a millionth of a degree around the point: the least that a scene could share with the grid.
            assert footprint_meets(Point(lon, lat).buffer(1e-6), boxes), (lon, lat, boxes)


@given(regions())
def test_boxes_are_boxes_and_not_much_larger_than_the_grid(region: Region) -> None:
    boxes = region.search_boxes()
    for west, south, east, north in boxes:
        assert -180 <= west <= east <= 180
        assert -90 <= south <= north <= 90
    assert -180 <= region.longitude <= 180
    extent = region.geobox.boundingbox
    tall = sum(north - south for _, south, _, north in boxes[:1])
    # Twice the diagonal, in degrees: grids may be rotated against the meridians by any angle.
    assert tall <= 2 * np.hypot(extent.span_x, extent.span_y) / 100_000


def test_a_grid_over_the_pole_has_all_longitudes_and_the_days_of_utc() -> None:
    region = Region.from_bbox((-180, 89.5, 180, 90), resolution=1000)
    west, south, east, north = region.bbox
    assert (west, east, north) == (-180, 180, 90)
    assert 89 < south < 89.5
    assert region.longitude == 0
    assert str(region.geobox.crs) == "EPSG:32661"
    assert footprint_meets(box(37.0, 89.9, 38.0, 90.0), region.search_boxes())
    assert not footprint_meets(box(37.0, 88.0, 38.0, 88.9), region.search_boxes())


def test_footprints_at_the_antimeridian_are_understood_in_each_of_their_forms() -> None:
    boxes = Region.from_bbox((179.9, 66.0, -179.9, 66.1), resolution=60).search_boxes()
    for footprint in (
        box(179.95, 66.0, 181.0, 66.2),  # goes on beyond 180
        box(-181.0, 66.0, -179.95, 66.2),
        MultiPolygon([box(179.99, 66, 180, 67), box(-180, 66, -179, 67)]),
        box(-180.0, 66.0, -179.95, 66.2),
        box(180.02, 66.0, 180.05, 66.2),
    ):
        assert footprint_meets(footprint, boxes), footprint
    for elsewhere in (box(178.0, 66.0, 179.0, 66.2), box(181.0, 66.0, 182.0, 66.2), box(0, 66, 1, 66.2)):
        assert not footprint_meets(elsewhere, boxes), elsewhere


@pytest.mark.parametrize(
    ("crs", "place", "parts"),
    [("EPSG:32601", (-180.0, 66.0), 2), ("EPSG:32645", (86.8, 27.9), 1), ("EPSG:32661", (0.0, 90.0), 1)],
)
def test_footprints_are_cut_at_the_antimeridian_and_closed_over_a_pole(
    crs: str, place: tuple[float, float], parts: int
) -> None:
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*place)
    grid = GeoBox.from_bbox((x - 5000, y - 5000, x + 5000, y + 5000), crs=crs, resolution=100)
    footprint = geographic_footprint(grid)
    assert footprint.is_valid
    assert len(getattr(footprint, "geoms", [footprint])) == parts
    assert footprint.bounds[0] >= -180
    assert footprint.bounds[2] <= 180
    # The share of random points around the place that it holds is the share of them on the grid.
    rng = np.random.default_rng(1)
    xs, ys = x + rng.uniform(-7000, 7000, 500), y + rng.uniform(-7000, 7000, 500)
    inside = (abs(xs - x) <= 5000) & (abs(ys - y) <= 5000)
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(xs, ys)
    found = [footprint.intersects(Point(lon, lat)) for lon, lat in zip(longitude, latitude, strict=True)]
    assert np.mean(found != inside) < 0.01
