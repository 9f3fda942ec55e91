"""Raw GRD, calibrated, geocoded and flattened: a product of known ground, seen from a known orbit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj.transformer import TransformerGroup

from glaciercube.catalog import SensorOptions, find
from glaciercube.cube import LoadOptions, load
from glaciercube.cube.radar import RadarOptions
from glaciercube.errors import BandError, ConfigError, ReadError
from glaciercube.region import Region
from glaciercube.rtc.distortion import layover_and_shadow
from glaciercube.simulate.cog import write_cog

pytest.importorskip("sarsen", reason="the extra sarsen is not installed")

from synthetic_safe import EPSG, GAMMA, MIDDLE, NAME, earth_centred, look, write_safe

from glaciercube.rtc.publish import make_rtc
from glaciercube.rtc.terrain_correct import RtcOptions, terrain_correct

SIDE = 2400.0  # m of the image, without its rim
TARGETS = ((-700.0, 620.0), (560.0, -480.0), (330.0, 10.0))
REGION = Region("rtc", GeoBox((160, 160), Affine(10, 0, MIDDLE[0] - 800, 0, -10, MIDDLE[1] + 800), f"EPSG:{EPSG}"))
OPTIONS = RtcOptions(geoid_height=40.0, margin=650.0)

Float = npt.NDArray[np.float64]


def hill(east: Float, north: Float) -> Float:
    """A hill with flanks up to 25 degrees, the steepest under the third target; no layover."""
    away = (east - MIDDLE[0]) ** 2 + (north - MIDDLE[1]) ** 2
    return 500 + 250 * np.exp(-away / 2 / 330**2)


def peak(east: Float, north: Float) -> Float:
    """Flanks up to 61 degrees: they fold over on one side and hide from the radar on the other."""
    away = (east - MIDDLE[0]) ** 2 + (north - MIDDLE[1]) ** 2
    return 500 + 450 * np.exp(-away / 2 / 150**2)


def write_dem(path: Path, height: Callable[[Float, Float], Float], geoid: float, side: float = 4400.0) -> Path:
    """Heights above a geoid that lies `geoid` metres above the ellipsoid, 5 m pixels."""
    count = round(side / 5)
    axis = (np.arange(count) + 0.5) * 5 - side / 2
    east, north = np.meshgrid(MIDDLE[0] + axis, MIDDLE[1] - axis)
    corner = Affine(5, 0, MIDDLE[0] - side / 2, 0, -5, MIDDLE[1] + side / 2)
    write_cog(path, (height(east, north) - geoid).astype(np.float32), corner, f"EPSG:{EPSG}")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The product, its elevation model, and the catalogue made of them."""
    folder = tmp_path_factory.mktemp("grd")
    safe = write_safe(folder, hill, SIDE, TARGETS)
    dem = write_dem(folder / "dem.tif", hill, 40.0)
    return safe, dem, make_rtc(safe, dem, REGION, folder / "rtc", OPTIONS)


@pytest.fixture(scope="module")
def scene(made: tuple[Path, Path, Path]) -> xr.Dataset:
    bands = ("local_incidence", "layover_shadow")
    scenes = find(made[2], REGION, "2023-07-01", {"sentinel-1": SensorOptions(bands=bands)})
    options = LoadOptions(radar=RadarOptions(border_noise=False))
    return load(scenes, REGION, options)["sentinel1"].to_dataset().isel(time=0).compute()


def away_from_targets(scene: xr.Dataset) -> npt.NDArray[np.bool_]:
    clear = np.ones(scene["vv"].shape, dtype=bool)
    x, y = scene["x"].to_numpy(), scene["y"].to_numpy()[:, None]
    for east, north in TARGETS:
        clear &= np.hypot(x - MIDDLE[0] - east, y - MIDDLE[1] - north) > 80
    return clear


@pytest.mark.parametrize("target", TARGETS)
def test_point_targets_lie_where_they_are(scene: xr.Dataset, target: tuple[float, float]) -> None:
    east, north = MIDDLE[0] + target[0], MIDDLE[1] + target[1]
    near = scene["vv"].sel(x=slice(east - 70, east + 70), y=slice(north + 70, north - 70))
    bright = near.where(near > near.max() / 10, 0.0) / 1.0
    assert float(near.max()) > 50 * GAMMA["vv"]
    x, y = (float((bright * bright[axis]).sum() / bright.sum()) for axis in ("x", "y"))
    # The target fills one image cell of 10 m, wherever it lies in it.
    assert np.hypot(x - east, y - north) < 8.0


@pytest.mark.parametrize(("name", "gamma"), GAMMA.items())
def test_ground_of_one_gamma_nought_is_even_on_flat_land_and_on_slopes(
    scene: xr.Dataset, name: str, gamma: float
) -> None:
    power = scene[name].to_numpy()
    clear = away_from_targets(scene)
    assert np.isfinite(power).all()
    angle = scene["local_incidence"].to_numpy()
    assert angle[clear].min() < 22
    assert angle[clear].max() > 62
    assert np.median(power[clear]) == pytest.approx(gamma, rel=0.01)
    for low, high in ((0, 28), (28, 36), (36, 45), (45, 53), (53, 90)):
        part = power[clear & (angle >= low) & (angle < high)]
        assert part.size > 200
        # Unflattened, the facing slope would be 2.5 times as bright as the flat, and the far one half.
        assert part.mean() == pytest.approx(gamma, rel=0.05)
    assert (np.abs(power[clear] / gamma - 1) < 0.25).mean() > 0.99
    np.testing.assert_allclose(scene[f"{name}_db"], 10 * np.log10(power), rtol=1e-5)


def test_local_incidence_is_the_angle_between_ray_and_normal(scene: xr.Dataset) -> None:
    east, north = np.meshgrid(scene["x"].to_numpy(), scene["y"].to_numpy())

    def at(x: float, y: float) -> Float:
        return earth_centred(east + x, north + y, hill(east + x, north + y))

    normal = np.cross(at(2, 0) - at(-2, 0), at(0, 2) - at(0, -2))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    expected = np.degrees(np.arccos((normal * look(at(0, 0)).towards).sum(-1)))
    np.testing.assert_allclose(scene["local_incidence"], expected, atol=0.6)


def test_a_hill_without_layover_has_none(scene: xr.Dataset) -> None:
    assert scene["layover_shadow"].dtype == np.uint8
    assert (scene["layover_shadow"] == 1).all()


def test_the_scene_says_its_pass_and_how_it_was_made(made: tuple[Path, Path, Path]) -> None:
    scenes = find(made[2], REGION, "2023-07-01", ["sentinel-1"])
    (notes,) = (json.loads(text) for text in scenes.table["notes"])
    assert (notes["platform"], notes["instrument_mode"], notes["orbit_state"]) == ("sentinel-1a", "IW", "ascending")
    assert notes["relative_orbit"] == 58
    assert notes["polarizations"] == ["vv", "vh"]
    assert str(scenes.table["time"].iloc[0]) == "2023-07-01 05:29:10"  # the third slice of 25 s
    item = scenes.items()[0]
    assert item.id == f"{NAME}_rtc"
    assert item.properties["glaciercube:rtc"] == asdict(OPTIONS)
    assert set(item.assets) == {"vv", "vh", "local_incidence", "layover_shadow"}
    node = load(scenes, REGION)["sentinel1"]
    assert set(node.data_vars) == {"vv", "vh", "vv_db", "vh_db"}  # geometry is read when asked for


def test_a_wrong_geoid_moves_the_image(made: tuple[Path, Path, Path], scene: xr.Dataset) -> None:
    safe, dem, _ = made
    small = Region("small", REGION.geobox[100:160, 100:160])
    wrong = terrain_correct(safe, dem, small, RtcOptions(geoid_height=-10.0, margin=650.0))
    right = scene["vv"].isel(y=slice(100, 160), x=slice(100, 160))
    columns = [int(np.nanargmax(each.max("y"))) for each in (wrong["vv"], right)]
    # 50 m too low: off by 50 m / tan(42 degrees) along the look.
    assert abs(columns[0] - columns[1]) * 10 == pytest.approx(55, abs=15)


def test_larger_pixels_hold_the_mean_of_power(made: tuple[Path, Path, Path], scene: xr.Dataset) -> None:
    safe, dem, _ = made
    grid = GeoBox((20, 20), Affine(40, 0, MIDDLE[0] - 800, 0, -40, MIDDLE[1] + 800), f"EPSG:{EPSG}")
    coarse = terrain_correct(safe, dem, Region("coarse", grid), OPTIONS)
    assert coarse["vv"].shape == (20, 20)
    blocks = scene["vv"].to_numpy()[:80, :80].reshape(20, 4, 20, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse["vv"], blocks, rtol=0.04)


def test_layover_and_shadow_are_where_ranges_and_angles_fold() -> None:
    axis = (np.arange(300) - 150) * 5.0
    east, north = np.meshgrid(MIDDLE[0] + axis, MIDDLE[1] - axis)
    points = earth_centred(east, north, peak(east, north))
    seen = look(points)
    satellite = points + seen.towards * seen.range[..., None]
    down = -satellite / np.linalg.norm(satellite, axis=-1, keepdims=True)
    angle = np.arccos((down * -seen.towards).sum(-1))
    layover, shadow = layover_and_shadow(seen.time, seen.range, angle, 5.0)
    # The track runs due north of a meridian some degrees away: lines of one time lie almost along the rows.
    row = 150
    expected_shadow = angle[row] < np.maximum.accumulate(angle[row])
    far = seen.range[row]
    folded = (far < np.maximum.accumulate(far)) | (far > np.minimum.accumulate(far[::-1])[::-1])
    assert 15 < expected_shadow.sum() < 120
    assert 15 < (folded & ~expected_shadow).sum() < 160
    assert (shadow[row] == expected_shadow).mean() > 0.98
    assert (layover[row] == (folded & ~expected_shadow)).mean() > 0.96
    facing, hidden = np.argwhere(layover)[:, 1].mean(), np.argwhere(shadow)[:, 1].mean()
    assert facing < 150 < hidden  # seen from the west
    assert not (layover & shadow).any()


def test_shadow_has_no_power_and_layover_is_told(tmp_path: Path) -> None:
    safe = write_safe(tmp_path, peak, 1200.0)
    dem = write_dem(tmp_path / "dem.tif", peak, 0.0, side=4000.0)
    region = Region("peak", GeoBox((70, 70), Affine(10, 0, MIDDLE[0] - 350, 0, -10, MIDDLE[1] + 350), f"EPSG:{EPSG}"))
    found = terrain_correct(safe, dem, region, RtcOptions(geoid_height=0.0, margin=800.0, oversampling=1))
    flags = found["layover_shadow"].to_numpy()
    assert ((flags & 4) > 0).sum() > 100
    assert ((flags & 2) > 0).sum() > 100
    assert np.isnan(found["vv"].to_numpy()[(flags & 4) > 0]).all()
    assert np.isfinite(found["vv"].to_numpy()[flags == 1]).all()


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"margin": -1.0}, "margin"), ({"flattening": "sigma"}, "sigma"), ({"oversampling": 0}, "0")],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        RtcOptions(**options)


def test_what_cannot_be_corrected_is_refused(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    safe, dem, _ = made
    with pytest.raises(ReadError, match=r"no manifest.safe.*\.SAFE folder"):
        terrain_correct(tmp_path, dem, REGION, OPTIONS)
    with pytest.raises(ReadError, match="cannot read the elevation model"):
        terrain_correct(safe, tmp_path / "none.tif", REGION, OPTIONS)
    far = Region("far", REGION.geobox.translate_pix(0, 30_000))
    with pytest.raises(ReadError, match="nothing there"):
        terrain_correct(safe, dem, far, OPTIONS)
    broken = tmp_path / "S1A_X.SAFE"
    broken.mkdir()
    (broken / "manifest.safe").write_text("<xml/>")
    with pytest.raises(ReadError, match="cannot read the product"):
        terrain_correct(broken, dem, REGION, OPTIONS)
    (broken / "manifest.safe").write_text((safe / "manifest.safe").read_text().replace(">GRD<", ">SLC<"))
    with pytest.raises((BandError, ReadError)):
        terrain_correct(broken, dem, REGION, OPTIONS)


def test_without_the_geoids_height_nothing_is_guessed(made: tuple[Path, Path, Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells which grids are missing
        installed = TransformerGroup("EPSG:9518", "EPSG:4979", always_xy=True).best_available
    if installed:
        pytest.skip("PROJ's grid of EGM2008 is installed")
    with pytest.raises(ConfigError, match=r"geoid.*projsync"):
        terrain_correct(made[0], made[1], REGION, RtcOptions(margin=650.0))
