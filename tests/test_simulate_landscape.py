"""Simulated landscapes: ice that only shrinks, on ground that keeps its place, under weather of the season."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from odc.geo.geobox import GeoBox
from scipy import ndimage

from glaciercube.region.sun import sun_position
from glaciercube.simulate.dem import dem_tiles, stale_dem
from glaciercube.simulate.landscape import Landscape, random_landscape
from glaciercube.simulate.surface import LAKE, OCEAN

SUMMER = dt.date(2018, 8, 20)


@pytest.fixture(scope="module")
def coast() -> Landscape:
    return random_landscape(34, (200, 200), 20.0, years=(2015, 2025), ocean=True)


@pytest.mark.parametrize(
    ("seed", "shape", "resolution"), [(1, (64, 64), 10.0), (2, (128, 96), 20.0), (3, (420, 420), 30.0)]
)
def test_ice_never_comes_back(seed: int, shape: tuple[int, int], resolution: float) -> None:
    landscape = random_landscape(seed, shape, resolution)
    before = landscape.ice(1995)
    assert before.shape == shape
    for year in (2005, 2015, 2017.5, 2025, 2030):
        now = landscape.ice(year)
        assert not (now & ~before).any()
        before = now


def test_loss_per_decade_spans_almost_nothing_to_a_third() -> None:
    losses = []
    for seed in range(16):
        landscape = random_landscape(seed, (100, 100), 100.0)  # the whole domain
        first, last = (int(landscape.ice(year).sum()) for year in (2015, 2025))
        losses.append(1 - last / first)
    assert min(losses) < 0.03
    assert 0.1 < np.median(losses) < 0.35
    assert max(losses) < 0.55


def test_seed_decides_everything() -> None:
    one, same, other = (random_landscape(seed, (64, 64), 20.0) for seed in (5, 5, 6))
    for name in ("elevation", "ice", "debris", "snow", "water", "turbidity"):
        np.testing.assert_array_equal(getattr(one.surface(SUMMER), name), getattr(same.surface(SUMMER), name))
    assert not np.array_equal(one.bed, other.bed)


def test_surface_is_consistent(coast: Landscape) -> None:
    surface = coast.surface(SUMMER)
    ocean, wet = surface.water == OCEAN, surface.water > 0
    assert ocean.any()
    assert (surface.water == LAKE).any()
    assert (surface.elevation[ocean] == 0).all()
    assert (surface.elevation[~ocean] > 0).all()
    assert not (surface.ice & wet).any()
    assert (surface.debris[~surface.ice] == 0).all()
    assert (surface.turbidity[~wet] == 0).all()
    assert (surface.snow[wet] == 0).all()
    for cover in (surface.debris, surface.snow, surface.turbidity):
        assert cover.dtype == np.float32
        assert cover.min() >= 0
        assert cover.max() <= 1


def test_tidewater_fronts_leave_sea_behind(coast: Landscape) -> None:
    early, late = coast.surface(dt.date(2000, 8, 20)), coast.surface(dt.date(2024, 8, 20))
    assert (ndimage.binary_dilation(early.water == OCEAN) & early.ice).any()
    calved = early.ice & (late.water == OCEAN)
    assert calved.any()
    assert (early.elevation[calved] >= 8).all()


def test_snow_follows_season_and_hemisphere() -> None:
    north = random_landscape(4, (96, 96), 20.0)
    south = random_landscape(4, (96, 96), 20.0, latitude=-50.0)
    for landscape, summer, winter in ((north, 8, 2), (south, 2, 8)):
        bare = landscape.surface(dt.date(2018, summer, 25)).snow.mean()
        white = landscape.surface(dt.date(2018, winter, 25)).snow.mean()
        assert white > 0.9
        assert bare < white - 0.2
    # Which slopes are glacierised changes with the side that the sun shines from.
    assert not np.array_equal(north.ice(2018), south.ice(2018))


def test_glaciers_part_the_ice(coast: Landscape) -> None:
    labels = coast.glaciers(2015)
    np.testing.assert_array_equal(labels > 0, coast.ice(2015))
    assert len(np.unique(labels[labels > 0])) > 2


def test_stale_dem_keeps_the_surface_of_lost_ice(coast: Landscape) -> None:
    lost = coast.ice(2010) & ~coast.ice(2025)
    lost = ndimage.binary_erosion(lost, iterations=2)
    assert lost.any()
    lowered = stale_dem(coast, 2010)[lost] - coast.elevation(2025)[lost]
    assert np.median(lowered) > 4
    assert np.percentile(lowered, 95) > 10
    stable = ~ndimage.binary_dilation(coast.ice(2010) | coast.sea, iterations=4)
    noisy = stale_dem(coast, 2010, np.random.default_rng(0))
    error = (noisy - coast.elevation(2010))[stable]
    assert abs(error.mean()) < 0.5
    assert 0.3 < error.std() < 5


@pytest.mark.parametrize(
    ("crs", "corner", "name", "columns"),
    [
        ("EPSG:32606", (499000.0, 6655000.0), "N60_00_W148", 1800),
        ("EPSG:32606", (499000.0, 6640000.0), "N59_00_W148", 2400),
        ("EPSG:32718", (600000.0, 4600000.0), "S49_00_W074", 3600),
        ("EPSG:32718", (600000.0, 4400000.0), "S51_00_W074", 2400),
    ],
)
def test_tiles_have_the_layout_of_glo30(crs: str, corner: tuple[float, float], name: str, columns: int) -> None:
    grid = GeoBox.from_bbox((corner[0], corner[1] - 600, corner[0] + 600, corner[1]), crs=crs, resolution=10)
    tile = dem_tiles(np.ones((60, 60), dtype=np.float32), grid)[0]
    assert tile.name == f"Copernicus_DSM_COG_10_{name}_00_DEM"
    assert tile.elevation.shape == (3600, columns)
    west, north = tile.transform * (0.5, 0.5)
    assert west == pytest.approx(round(west), abs=1e-9)
    assert north == pytest.approx(round(north), abs=1e-9)
    assert tile.elevation.max() == 1


def test_sun_stands_where_a_real_scene_says() -> None:
    # S2B_MSIL2A_20190629T212529_R043_T06VVN: zenith 37.91, azimuth 170.15 in the middle of its granule.
    azimuth, elevation = sun_position(dt.datetime(2019, 6, 29, 21, 25, 29, tzinfo=dt.UTC), -147.83, 60.84)
    assert elevation == pytest.approx(90 - 37.91, abs=0.3)
    assert azimuth == pytest.approx(170.15, abs=1.5)  # the granule was seen a little later than its datatake began
