"""Clouds and what is only called so: classes, probabilities, a model, dilation, and ice that is recovered."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

import glaciercube as gc
from glaciercube.catalog import Scenes, SensorOptions, find
from glaciercube.cube import ComposeOptions, LoadOptions, MaskOptions, compose, load, looks_like_ice
from glaciercube.cube.cloud_model import MODEL_BANDS
from glaciercube.cube.masks import optical_flags
from glaciercube.errors import ConfigError, CubeError, ModelError
from glaciercube.inference import QUALITY_BITS, predict
from glaciercube.models import load_model
from glaciercube.simulate import stac
from glaciercube.simulate.clouds import ICE_CLOUD, WATER_CLOUD
from glaciercube.simulate.passes import optical_passes
from glaciercube.simulate.spectra import BANDS, load_statistics
from glaciercube.simulate.world import World, WorldOptions, simulate_world

OBSERVED, CLOUD, SHADOW, SNOW, RECOVERED = 1, 2, 4, 8, 64
FALSE_CLOUD, SIZE = 0.5, 96
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def mistaken() -> World:
    """A world in which half of the bright ice is called cloud on every date."""
    return simulate_world(
        WorldOptions(size=SIZE, years=(2021, 2022), dates_per_year=3, false_cloud=FALSE_CLOUD, percentages=True)
    )


@pytest.fixture(scope="module")
def scenes(mistaken: World, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    catalog = stac.write_catalog(mistaken, tmp_path_factory.mktemp("mistaken"))
    bands = SensorOptions(bands=("cloud_probability", "snow_probability"))
    return find(catalog, mistaken.region, "2021/2022", {"sentinel-2": bands})


@pytest.fixture(scope="module")
def optical(scenes: Scenes, mistaken: World) -> xr.Dataset:
    return load(scenes, mistaken.region, LoadOptions(cell=32))["sentinel2"].to_dataset().compute()


@pytest.fixture(scope="module")
def truth(mistaken: World) -> dict[str, npt.NDArray[np.bool_]]:
    """Per date, on the region's grid: ice, pixels wholly free of cloud, and pixels wholly under it."""
    out: dict[str, list[npt.NDArray[Any]]] = {"ice": [], "clear": [], "cloud": []}
    for view in optical_passes(mistaken.options):
        share = _on_grid(stac._render(mistaken, view, "boa")["cloud"].to_numpy())
        out["clear"].append(share == 0)
        out["cloud"].append(share == 1)
        out["ice"].append(_on_grid(mistaken.landscape.ice(view.day.year)) == 1)
    return {name: np.stack(layers) for name, layers in out.items()}


def _on_grid(ground: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    inner = ground[32:-32, 32:-32]
    return np.asarray(inner.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3)), np.float64)


def flags_of(optical: xr.Dataset, **options: Any) -> npt.NDArray[np.uint8]:
    return optical_flags(optical, MaskOptions(**options)).to_numpy()


def test_ice_that_is_persistently_called_cloud_is_recovered(
    optical: xr.Dataset, truth: Mapping[str, npt.NDArray[np.bool_]]
) -> None:
    called = optical["scl"].isin([8, 9]).to_numpy() & optical["red"].notnull().to_numpy()
    mistake, cloud = called & truth["ice"] & truth["clear"], called & truth["cloud"]
    always = (optical["scl"].isin([8, 9, 10, 0]).all("time") & optical["red"].notnull().any("time")).to_numpy()
    assert mistake.sum() > 1000
    assert (mistake & always).sum() > 500
    assert cloud.sum() > 1000
    flags = {kind: flags_of(optical, recover_ice=kind) for kind in ("never", "spectrum", "persistent")}
    recovered = {kind: (found & RECOVERED) > 0 for kind, found in flags.items()}
    assert not recovered["never"].any()
    # Recall of ice that was wrongly called cloud, and true cloud that was wrongly let through.
    assert recovered["spectrum"][mistake].mean() > 0.9
    assert recovered["spectrum"][cloud].mean() < 0.005
    assert recovered["persistent"][mistake & always].mean() > 0.9
    assert recovered["persistent"][cloud].mean() <= recovered["spectrum"][cloud].mean()
    assert not (recovered["persistent"] & ~recovered["spectrum"]).any()
    # What is recovered counts as seen, and as snow or ice.
    assert not (flags["spectrum"][recovered["spectrum"]] & (CLOUD | SHADOW)).any()
    assert (flags["spectrum"][recovered["spectrum"]] & SNOW).all()
    # Nothing else moves.
    same = ~recovered["spectrum"]
    np.testing.assert_array_equal(flags["spectrum"][same], flags["never"][same])


def test_a_date_is_judged_by_itself_unless_persistence_is_asked_for(optical: xr.Dataset) -> None:
    part = optical.isel(time=slice(0, 3))
    np.testing.assert_array_equal(flags_of(part), flags_of(optical)[:3])
    assert (flags_of(part.isel(time=[0, 1]), recover_ice="persistent") & RECOVERED).sum() == 0


def test_the_rule_knows_measured_snow_and_ice_and_refuses_cloud() -> None:
    green, nir, swir = (BANDS.index(name) for name in ("green", "nir", "swir16"))
    rng = np.random.default_rng(0)
    known = {}
    for kind in ("snow", "ice", "rock", "water"):
        of = load_statistics("boa")[kind]
        drawn = np.exp(rng.multivariate_normal(of.mean, of.between + of.within, 20_000))
        known[kind] = looks_like_ice(drawn[:, green], drawn[:, nir], drawn[:, swir]).mean()
    assert known["ice"] > 0.95
    assert known["snow"] > 0.93
    assert known["rock"] < 0.005
    assert known["water"] < 0.03
    for cloud in (WATER_CLOUD, ICE_CLOUD):
        for brightness in (0.75, 1.0, 1.2):
            assert not looks_like_ice(*(brightness * cloud[[green, nir, swir]]))
    assert not looks_like_ice(np.nan, 0.5, 0.01)
    assert not looks_like_ice(0.0, 0.0, 0.0)


def test_thin_cirrus_and_other_classes_are_not_overruled_unless_asked(optical: xr.Dataset) -> None:
    cirrus = optical.assign(scl=xr.full_like(optical["scl"], 10))
    assert not (flags_of(cirrus) & RECOVERED).any()
    assert (flags_of(cirrus, recover_classes=(8, 9, 10)) & RECOVERED).any()
    assert not (flags_of(cirrus, cloud_classes=(8, 9)) & CLOUD).any()
    snow = optical.assign(scl=xr.full_like(optical["scl"], 11))
    assert not (flags_of(snow, cloud_probability=1) & CLOUD).any()
    saturated = optical.assign(scl=xr.full_like(optical["scl"], 1))
    assert not (flags_of(saturated) & CLOUD).any()


def _disk(mask: npt.NDArray[np.bool_], metres: float) -> npt.NDArray[np.bool_]:
    """Every pixel within so many metres of a masked one, by trying every shift."""
    reach, (high, wide) = int(metres // 20), mask.shape
    out = np.zeros_like(mask)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if 20 * np.hypot(down, right) <= metres:
                rows, columns = (slice(max(0, s), min(n, n + s)) for s, n in ((down, high), (right, wide)))
                back = (slice(max(0, -s), min(n, n - s)) for s, n in ((down, high), (right, wide)))
                out[rows, columns] |= mask[tuple(back)]
    return out


@pytest.mark.parametrize("cell", [13, 32])
@pytest.mark.parametrize("metres", [19.0, 20.0, 100.0, 500.0])
def test_dilation_grows_by_metres_without_seams(optical: xr.Dataset, cell: int, metres: float) -> None:
    whole = flags_of(optical, dilate=metres)
    lazy = optical_flags(optical.chunk(time=1, y=cell, x=cell), MaskOptions(dilate=metres))
    assert lazy.dtype == "uint8"
    np.testing.assert_array_equal(lazy.compute(), whole)
    window = {"y": slice(21, 50), "x": slice(5, 44)}
    np.testing.assert_array_equal(lazy.isel(window).compute(), whole[:, 21:50, 5:44])
    before = flags_of(optical)
    observed = (before & OBSERVED) > 0
    for bit in (CLOUD, SHADOW):
        for index in range(len(before)):
            wanted = _disk((before[index] & bit) > 0, metres) & observed[index]
            np.testing.assert_array_equal((whole[index] & bit) > 0, wanted)
    assert not ((whole & CLOUD > 0) & (whole & RECOVERED > 0)).any()


@pytest.mark.parametrize("shape", [(80, 80), (80, 7), (3, 3), (1, 6), (1, 1)])
@pytest.mark.parametrize("chunk", [1, 13, 32, 80])
@pytest.mark.parametrize("metres", [60.0, 1580.0, 1600.0, 5000.0])
def test_dilation_may_reach_across_the_whole_grid(shape: tuple[int, int], chunk: int, metres: float) -> None:
    if chunk == 1 and shape[0] * shape[1] > 100:
        chunk = 5
    rng = np.random.default_rng(8)
    red = np.where(rng.random((2, *shape)) < 0.05, np.nan, 0.1).astype(np.float32)
    scl = np.where(rng.random((2, *shape)) < 0.5 / (shape[0] * shape[1]) ** 0.5, 9, 4).astype(np.uint8)
    scl[0, 0, 0], red[0, 0, 0] = 3, 0.1
    coords = {"y": np.arange(shape[0]) * -20.0, "x": np.arange(shape[1]) * 20.0}
    optical = xr.Dataset({"red": (("time", "y", "x"), red), "scl": (("time", "y", "x"), scl)}, coords)
    lazy = optical_flags(optical.chunk(time=1, y=chunk, x=chunk), MaskOptions(dilate=metres))
    assert lazy.chunks == optical.chunk(time=1, y=chunk, x=chunk)["red"].chunks
    found = lazy.to_numpy()
    np.testing.assert_array_equal(flags_of(optical, dilate=metres), found)
    observed = np.isfinite(red)
    for bit, kind in ((CLOUD, 9), (SHADOW, 3)):
        for index in range(2):
            wanted = _near((scl[index] == kind) & observed[index], metres) & observed[index]
            np.testing.assert_array_equal((found[index] & bit) > 0, wanted)


def _near(mask: npt.NDArray[np.bool_], metres: float) -> npt.NDArray[np.bool_]:
    """As `_disk`, by the distance to every masked pixel."""
    rows, columns = np.indices(mask.shape) * 20.0
    out = np.zeros_like(mask)
    for row, column in np.argwhere(mask) * 20.0:
        out |= np.hypot(rows - row, columns - column) <= metres
    return out


def test_probabilities_add_cloud_and_veto_it(optical: xr.Dataset) -> None:
    plain, scl = flags_of(optical, recover_ice="never"), optical["scl"].to_numpy()
    observed = (plain & OBSERVED) > 0
    likely = optical["cloud_probability"].to_numpy() >= 3
    found = flags_of(optical, recover_ice="never", cloud_probability=3)
    np.testing.assert_array_equal((found & CLOUD) > 0, observed & (np.isin(scl, (8, 9, 10)) | (likely & (scl != 11))))
    sure = optical["snow_probability"].to_numpy() >= 90
    vetoed = flags_of(optical, recover_ice="never", snow_probability=90)
    np.testing.assert_array_equal((vetoed & CLOUD) > 0, ((plain & CLOUD) > 0) & ~sure)
    assert (sure & (plain & CLOUD > 0)).any()
    with pytest.raises(CubeError, match=r"no cloud_probability .*bands: \[cloud_probability\]"):
        flags_of(optical.drop_vars("cloud_probability"), cloud_probability=40)


def test_the_layers_stay_in_the_cube(scenes: Scenes, mistaken: World, optical: xr.Dataset) -> None:
    cube = compose(load(scenes, mistaken.region), ComposeOptions(mask=MaskOptions(dilate=40)))
    for name in ("scl", "cloud_probability", "snow_probability"):
        np.testing.assert_array_equal(cube[name], optical[name])
        assert cube[name].dtype == "uint8"
    # Another policy from the same layers, without reading reflectance anew.
    np.testing.assert_array_equal(cube["optical_flags"], flags_of(cube.compute(), dilate=40))


def test_a_store_can_hide_again_what_was_recovered(scenes: Scenes, mistaken: World) -> None:
    cube = compose(load(scenes, mistaken.region)).compute()
    quality = predict(cube, load_model("ndsi"))["quality"].compute()
    flags = cube["optical_flags"]
    for name, bit in (("cloud", CLOUD), ("cloud_shadow", SHADOW), ("snow", SNOW), ("recovered", RECOVERED)):
        np.testing.assert_array_equal((quality & QUALITY_BITS[name]) > 0, (flags & bit) > 0)
    assert not (quality & (QUALITY_BITS["radar_observed"] | QUALITY_BITS["terrain_known"])).any()
    prediction = predict(cube, load_model("ndsi")).compute()
    hidden_by = ("cloud", "cloud_shadow", "recovered")
    shown, hidden = (
        gc.area_series(prediction, mistaken.outlines, options)["coverage"].sum()
        for options in (None, gc.AreaOptions(hidden_by=hidden_by))
    )
    assert shown > hidden + 0.3
    # Intervals were measured under the masks by default, and hold for no others.
    other = predict(
        compose(load(scenes, mistaken.region), ComposeOptions(mask=MaskOptions(dilate=60))), load_model("ndsi")
    )
    assert gc.area_series(prediction, mistaken.outlines)["lower_km2"].notna().any()
    assert gc.area_series(other.compute(), mistaken.outlines)["lower_km2"].isna().all()


def test_options_are_checked_and_reach_the_plan(scenes: Scenes, mistaken: World, tmp_path: Path) -> None:
    for wrong in (
        {"dilate": -1.0},
        {"cloud_probability": 0.0},
        {"snow_probability": 101.0},
        {"persistent_share": 0.0},
        {"cloud_classes": (8, 11)},
    ):
        with pytest.raises(ConfigError):
            MaskOptions(**wrong)
    model, store = load_model("ndsi"), gc.StoreOptions(str(tmp_path / "s.zarr"))
    plans = [
        gc.make_plan(mistaken.region, scenes, model, store, compose=ComposeOptions(mask=mask))
        for mask in (MaskOptions(), MaskOptions(), MaskOptions(dilate=60))
    ]
    assert plans[0].keys == plans[1].keys
    assert not set(plans[0].keys) & set(plans[2].keys)
    # A further date leaves older rows as they are, unless persistence is asked for.
    fewer = replace(scenes, table=scenes.table[scenes.table["time"] < scenes.table["time"].max()])
    for kind, kept in (("spectrum", len(plans[0].rows) - 1), ("persistent", 0)):
        options = ComposeOptions(mask=MaskOptions(recover_ice=kind))  # type: ignore[arg-type]
        before, after = (
            set(gc.make_plan(mistaken.region, own, model, store, compose=options).keys) for own in (fewer, scenes)
        )
        assert len(before & after) == kept


# The optional model.


def _toa(values: Mapping[str, float]) -> xr.Dataset:
    layers = {name: (("time", "y", "x"), np.full((1, 4, 4), values[name], np.float32)) for name in MODEL_BANDS}
    coords = {"time": np.array(["2024-07-01"], "datetime64[ns]"), "y": np.arange(4) * -20.0, "x": np.arange(4) * 20.0}
    return xr.Dataset(layers, coords, attrs={"reflectance": "toa"})


CLOUDY = dict(zip(MODEL_BANDS, (0.6, 0.6, 0.6, 0.6, 0.65, 0.65, 0.3, 0.03, 0.5, 0.4), strict=True))
MEADOW = dict(zip(MODEL_BANDS, (0.12, 0.09, 0.06, 0.1, 0.35, 0.36, 0.1, 0.001, 0.2, 0.1), strict=True))


def test_the_cloud_model_masks_top_of_atmosphere_and_refuses_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    cloudy = _toa(CLOUDY)
    with pytest.raises(ModelError, match="knows top-of-atmosphere reflectance and the cube holds surface"):
        flags_of(cloudy.assign_attrs(reflectance="surface"), model="s2cloudless")
    with pytest.raises(CubeError, match=r"bands: \[cirrus\]"):
        flags_of(cloudy.drop_vars("cirrus"), model="s2cloudless")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'glaciercube\[clouds\]'"):
        flags_of(cloudy, model="s2cloudless")


def test_the_cloud_model_tells_cloud_from_meadow() -> None:
    pytest.importorskip("s2cloudless")
    for values, wanted in ((CLOUDY, OBSERVED | CLOUD), (MEADOW, OBSERVED)):
        lazy = _toa(values).chunk(time=1, y=2, x=2)
        lazy["nir09"] = lazy["nir09"].where(lazy["x"] > 0)
        flags = optical_flags(lazy, MaskOptions(model="s2cloudless")).compute()
        assert (flags[:, :, 1:] == wanted).all()
        # Where a band is missing the model says nothing.
        assert (flags[:, :, 0] == OBSERVED).all()


# Real clouds over lowland without snow.


@pytest.fixture(scope="module")
def belgium(real_data: Path) -> xr.DataTree:
    pytest.importorskip("netCDF4")
    spec = importlib.util.spec_from_file_location("real_data_tool", ROOT / "tools" / "real_data.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    if not (real_data / "s1_s2_dated").is_dir():
        pytest.skip("s1_s2_dated is not there")
    tree: xr.DataTree = tool.dated_tree(real_data / "s1_s2_dated")
    return tree


@pytest.mark.real
def test_real_clouds_are_masked_and_none_is_taken_for_ice(belgium: xr.DataTree) -> None:
    cube = compose(belgium)
    flags, red = cube["optical_flags"].to_numpy(), cube["red"].to_numpy()
    hidden = (flags & (CLOUD | SHADOW)) > 0
    scl = belgium["sentinel2"]["scl"].to_numpy()
    np.testing.assert_array_equal(hidden, np.isin(scl, (3, 8, 9, 10)))
    assert not (flags & RECOVERED).any()
    # Fields of April have a red reflectance of 0.02 to 0.2; what is left unmasked and brighter is a few roofs.
    bright = red > 0.2
    assert (bright & ~hidden).sum() < 0.005 * (~hidden).sum()
    assert hidden[bright].mean() > 0.999
    # By eye, two dates are clear, and on the last one fields show through cirrus.
    share = hidden.mean(axis=(1, 2))
    days = [str(time)[5:10] for time in cube["time"].to_numpy()]
    assert [day for day, part in zip(days, share, strict=True) if part < 0.5] == ["04-05", "04-15"]
    through = compose(belgium, ComposeOptions(mask=MaskOptions(cloud_classes=(8, 9))))["optical_flags"]
    share = ((through & (CLOUD | SHADOW)) > 0).mean(("y", "x")).to_numpy()
    assert [day for day, part in zip(days, share, strict=True) if part < 0.5] == ["04-05", "04-15", "04-30"]


@pytest.mark.real
def test_a_cloud_of_ice_crystals_is_not_taken_for_ice(belgium: xr.DataTree) -> None:
    """22 April: red 0.97, SWIR 0.21 and so an NDSI of snow; and it stays cloud at any brightness that was measured."""
    here = belgium["sentinel2"].to_dataset().isel(time=8)
    assert str(here["time"].to_numpy())[:10] == "2023-04-22"
    ndsi = (here["red"] - here["swir16"]) / (here["red"] + here["swir16"])
    assert float(ndsi.min()) > 0.6
    assert not looks_like_ice(here["red"], here["nir"], here["swir16"]).any()


@pytest.mark.real
def test_companions_are_the_nearest_in_time_with_their_signed_age(belgium: xr.DataTree) -> None:
    cube = compose(belgium)
    radar = belgium["sentinel1"].to_dataset()
    optical_days, radar_days = (
        [int(np.datetime64(time, "D").astype(int)) for time in belgium[node]["time"].to_numpy()]
        for node in ("sentinel2", "sentinel1")
    )
    ages = []
    for row, day in enumerate(optical_days):
        # By hand: the smallest distance, and of two alike the earlier.
        nearest = min(range(len(radar_days)), key=lambda i: (abs(radar_days[i] - day), radar_days[i]))
        ages.append(radar_days[nearest] - day)
        np.testing.assert_array_equal(cube["vv"].isel(time=row), radar["vv"].isel(time=nearest))
    assert ages == [1, 0, 1, -2, 0, 0, 0, 0, -2, -1, 0, -1]
    np.testing.assert_array_equal(cube["sentinel1_age"], ages)
    strict = compose(belgium, ComposeOptions(max_age=1.0))
    kept = np.abs(ages) <= 1
    np.testing.assert_array_equal(np.isfinite(strict["sentinel1_age"]), kept)
    assert strict["vv"].isel(time=np.flatnonzero(~kept)).isnull().all()
    assert strict["vv"].isel(time=np.flatnonzero(kept)).notnull().all()


@pytest.mark.real
def test_the_picture_shows_every_date_with_its_companion(belgium: xr.DataTree, tmp_path: Path) -> None:
    from glaciercube.view.companions import plot_companions

    cube = compose(belgium, ComposeOptions(max_age=1.0))
    figure = plot_companions(cube, title="Belgium")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[:4] == ["2023-04-02   100% masked", "04-03, 1 day later", "2023-04-05   1% masked", "04-05, same day"]
    assert sum(title == "no companion" for title in titles) == 2
    assert len(titles) == 24
    figure.savefig(tmp_path / "picture.png")
    with pytest.raises(CubeError, match="has no vv_db, sentinel1_age"):
        plot_companions(cube.drop_vars(["vv_db", "sentinel1_age"]))
