"""Extents change no faster than ice can, and what the prior overrules is told."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from glaciercube.bench import physics
from glaciercube.bench.corrections import CORRECTIONS
from glaciercube.bench.priors import event_chip, interval, prior_scores
from glaciercube.bench.retreat import MEASURES, loss_scores, seen_by, static_modalities
from glaciercube.change.area import area_series
from glaciercube.change.difference import area_change
from glaciercube.change.hidden_markov import forward_backward
from glaciercube.change.priors import (
    GAINED,
    LOST,
    STEEP,
    UNCONFIRMED,
    PriorOptions,
    prior_report,
    smooth_series,
    with_prior,
)
from glaciercube.change.terrain import (
    TerrainRecord,
    TerrainUse,
    TerrainWarning,
    read_terrain_records,
    terrain_use,
    write_terrain_record,
)
from glaciercube.errors import ConfigError, CubeError, StoreError
from glaciercube.evaluation.predict import ice_of
from glaciercube.inference import QUALITY_BITS
from glaciercube.models import load_model
from glaciercube.models.builtin import SHIPPED
from glaciercube.models.chips import Chip

Array = npt.NDArray[Any]
YEARS = np.arange(7.0)


def tongue(front: int, shape: tuple[int, int] = (40, 60)) -> Array:
    """Ice over the rows 10 to 29, up to a column."""
    ice = np.zeros(shape, bool)
    ice[10:30, :front] = True
    return ice


def said(ice: Array, sure: float = 0.9) -> Array:
    return np.where(ice, sure, 1 - sure).astype(np.float64)


def cube(probability: Array, quality: Array | None = None) -> xr.Dataset:
    grid = GeoBox(probability.shape[1:], Affine(20, 0, 500_000, 0, -20, 6_000_000), "EPSG:32633")
    time = pd.to_datetime([f"{2015 + n}-08-01" for n in range(len(probability))])
    coords = {**xr_coords(grid), "time": time}
    dims = ("time", "y", "x")
    variable = xr.DataArray(probability.astype(np.float32), dims=dims, coords=coords)
    variable.encoding["grid_mapping"] = "spatial_ref"
    flags = np.zeros(probability.shape, np.uint8) if quality is None else quality
    return xr.Dataset(
        {"glacier_probability": variable, "quality": (dims, flags)}, attrs={"region": "here", "provenance": "{}"}
    )


def outline_of_the_cube() -> Any:
    import geopandas as gpd
    from shapely.geometry import box

    return gpd.GeoDataFrame({"name": ["a"]}, geometry=[box(500_000, 5_999_200, 501_200, 6_000_000)], crs="EPSG:32633")


def made_series(dates: int = 2, *, glaciers: bool = False) -> Chip:
    """A tongue that loses a third of its length, year by year."""
    ice = np.stack([tongue(front) for front in np.linspace(45, 30, dates).round().astype(int)])
    time = np.array([f"{2015 + n}-08-01T10:00:00" for n in range(dates)], "datetime64[s]")
    height = np.broadcast_to(3000.0 - 10 * np.arange(60), (40, 60))
    return Chip(
        variables={"elevation": height},
        label=ice.astype(np.uint8),
        labels={"other": ("other",), "clean_ice": ("clean_ice",)},
        weight=np.ones(ice.shape, np.float32),
        time=time,
        resolution=20.0,
        name="made",
        glaciers=ice[0].astype(np.int32) if glaciers else None,
    )


def test_the_posterior_is_that_of_every_series_of_states_weighed() -> None:
    rng = np.random.default_rng(0)
    ice, lost, gained = rng.uniform(0.05, 0.95, 5), rng.uniform(0.01, 0.5, 4), rng.uniform(0.01, 0.5, 4)
    weights, states = [], list(itertools.product((0, 1), repeat=5))
    for state in states:
        weight = 0.5
        for n, on in enumerate(state):
            weight *= ice[n] if on else 1 - ice[n]
            if n:
                change = lost[n - 1] if state[n - 1] else gained[n - 1]
                weight *= change if on != state[n - 1] else 1 - change
        weights.append(weight)
    wanted = np.array(weights) @ np.array(states) / sum(weights)
    found = forward_backward(*(part[:, None, None] for part in (ice, lost, gained)))
    np.testing.assert_allclose(found[:, 0, 0], wanted, rtol=1e-9)


def test_a_date_that_no_other_agrees_with_is_overruled_and_told() -> None:
    probability = np.stack([said(tongue(40))] * 7)
    probability[3, 15:20, 5:12] = 0.1  # a shadow in the middle of the ice
    probability[4, 33:38, 40:50] = 0.9  # snow far below it
    made, flags = smooth_series(probability, YEARS, 20.0)
    assert ((made >= 0.5) == tongue(40)).all()
    assert (flags[3, 15:20, 5:12] == GAINED).all()
    assert (flags[4, 33:38, 40:50] == LOST).all()
    assert (flags > 0).sum() == 5 * 7 + 5 * 10
    report = prior_report(with_prior(cube(probability)))
    np.testing.assert_allclose(report["gained_km2"], [0, 0, 0, 35 * 4e-4, 0, 0, 0])
    np.testing.assert_allclose(report["lost_km2"], [0, 0, 0, 0, 50 * 4e-4, 0, 0])
    assert report["share"][4] == pytest.approx(50 / 2400)


@pytest.mark.parametrize(
    "fronts",
    [
        [40, 40, 38, 36, 34, 31, 28],  # a loss of 30 %, year by year
        [25, 25, 25, 55, 55, 55, 55],  # a surge of 600 m within a year
        [50, 50, 50, 50, 20, 20, 20],  # a calving event of 600 m
        [58, 57, 57, 30, 12, 11, 10],  # a tongue that falls apart within two years
    ],
)
def test_retreat_surge_calving_and_collapse_are_not_hidden(fronts: list[int]) -> None:
    true = np.stack([tongue(front) for front in fronts])
    made, _ = smooth_series(np.stack([said(ice) for ice in true]), YEARS, 20.0)
    lost = true[0] & ~true[-1]
    area = (made >= 0.5).sum(axis=(1, 2))
    assert area[-1] == true[-1].sum()
    assert area[0] == true[0].sum()
    assert not (made[-1] >= 0.5)[lost].any()


def test_what_only_the_last_date_shows_is_unconfirmed_unless_it_is_marked() -> None:
    true = np.stack([tongue(50)] * 6 + [tongue(20)])
    probability = np.stack([said(ice) for ice in true])
    gone = tongue(50) & ~tongue(20)
    made, flags = smooth_series(probability, YEARS, 20.0)
    far = gone & (np.arange(60) < 40)[None] & (abs(np.arange(40) - 19.5) < 3)[:, None]
    assert (made[-1] >= 0.5)[far].all()
    assert (flags[-1][far] == GAINED | UNCONFIRMED).all()
    made, flags = smooth_series(probability, YEARS, 20.0, allowed=gone)
    assert not (made[-1] >= 0.5)[gone].any()
    assert not flags.any()
    # Without dates that agree nothing is allowed for, however many say the same.
    late = np.stack([said(tongue(58))] * 3 + [said(tongue(4))] * 4)
    none, _ = smooth_series(late, YEARS / 100, 20.0, PriorOptions(agree=0, trust=0.5))
    some, _ = smooth_series(late, YEARS / 100, 20.0, PriorOptions(agree=2, trust=0.5))
    assert (none[0] >= 0.5).sum() < (some[0] >= 0.5).sum() == tongue(58).sum()


def test_hidden_pixels_are_no_evidence_and_stay_missing() -> None:
    probability = np.stack([said(tongue(40))] * 5)
    probability[2] = 0.99
    quality = np.zeros(probability.shape, np.uint8)
    quality[2] = QUALITY_BITS["cloud"]
    probability[1, 12, 12] = np.nan
    found = with_prior(cube(probability, quality))
    made = found["glacier_probability"].to_numpy()
    assert np.isnan(made[2]).all()
    assert np.isnan(made[1, 12, 12])
    assert np.isfinite(np.delete(made, 2, axis=0)).sum() == 4 * 2400 - 1
    assert not found["overruled"].any()
    np.testing.assert_array_equal(found["glacier_probability_observed"], probability.astype(np.float32))
    assert prior_report(found)["seen_km2"].tolist() == pytest.approx([0.96, 0.9596, 0, 0.96, 0.96])


def test_a_lazy_cube_is_corrected_block_by_block_as_the_whole() -> None:
    rng = np.random.default_rng(1)
    true = np.stack([tongue(front, (90, 150)) for front in (120, 118, 100, 96, 90)])
    probability = np.clip(said(true, 0.8) + rng.normal(0, 0.25, true.shape), 0, 1)
    probability[rng.uniform(size=true.shape) < 0.05] = np.nan
    whole = with_prior(cube(probability))
    lazy = with_prior(cube(probability).chunk({"time": 1, "y": 40, "x": 64}))
    assert lazy["overruled"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), whole)
    assert whole["overruled"].any()


def test_areas_are_read_with_the_prior_and_get_no_interval_that_was_fitted_without() -> None:
    probability = np.stack([said(tongue(40))] * 5)
    probability[2, 12:28, 5:30] = 0.1
    observed, outline = cube(probability), outline_of_the_cube()
    corrected = with_prior(observed)
    assert "provenance" not in corrected.attrs
    assert json.loads(corrected.attrs["prior"])["agree"] == 2
    areas = [area_series(one, outline)["area_km2"].to_numpy() for one in (observed, corrected)]
    assert areas[0].min() < 0.2
    np.testing.assert_allclose(areas[1], 0.32, rtol=1e-6)


def test_ice_on_ground_that_is_too_steep_is_told_apart() -> None:
    probability = np.stack([said(tongue(40))] * 4)
    observed = cube(probability)
    slope = xr.DataArray(np.where(np.arange(60) < 5, 55.0, 20.0)[None] * np.ones((40, 1)), dims=("y", "x"))
    found = with_prior(observed, PriorOptions(steepest=50.0), slope=slope)
    made, flags = found["glacier_probability"].to_numpy(), found["overruled"].to_numpy()
    assert not (made >= 0.5)[:, :, :5].any()
    assert ((made >= 0.5) == tongue(40))[:, :, 5:].all()
    assert (flags[:, 10:30, :5] == STEEP).all()
    assert (flags > 0).sum() == 4 * 20 * 5
    np.testing.assert_allclose(prior_report(found)["steep_km2"], 100 * 4e-4)
    with pytest.raises(CubeError, match="give slope"):
        with_prior(observed, PriorOptions(steepest=50.0))


def test_options_that_mean_nothing_are_refused() -> None:
    for wrong in ({"retreat": -1.0}, {"blur": 0.0}, {"trust": 0.0}, {"agree": -1}, {"hidden_by": ("fog",)}):
        with pytest.raises(ConfigError):
            PriorOptions(**wrong)
    with pytest.raises(CubeError, match="two dates"):
        with_prior(cube(np.zeros((1, 4, 4))))


def _record(fresh: float, stale: float, weights: str = "abc") -> TerrainRecord:
    values = {"fresh": fresh, "stale": stale, "off": 0.99}
    shares = {terrain: {"detected": (value, 0.0, 1.0)} for terrain, value in values.items()}
    # The worse of the families counts.
    perfect = {terrain: {"detected": (1.0, 1.0, 1.0)} for terrain in values}
    return TerrainRecord("net", weights, ("terrain", "relief"), 0.3, 60, {"a": perfect, "b": shares})


def _made(*modalities: str, weights: str = "abc", variables: tuple[str, ...] = ()) -> xr.Dataset:
    made = cube(np.stack([said(tongue(front)) for front in (50, 40, 30)]))
    told = {"variables": list(variables)} if variables else {}
    return made.assign_attrs(model="net", model_hash=weights, modalities=list(modalities), **told)


def test_terrain_that_hides_retreat_is_told_by_the_weights_and_never_passes_unmeasured(tmp_path: Path) -> None:
    hides, shows = _record(0.97, 0.8), _record(0.97, 0.96)
    use = terrain_use(_made("optical", "terrain"), [hides])
    assert (use.state, use.used) == ("hidden", ("terrain",))
    assert "80 % under one from before the loss" in use.text
    assert "97 % of a true loss" in use.text
    assert terrain_use(_made("optical", "radar"), [hides]).state == "none"
    assert terrain_use(_made("optical", "terrain"), [shows]) == TerrainUse("shown", ("terrain",))
    # Other weights of the same name, and layers of one's own under other names.
    for other in (
        _made("optical", "terrain", weights="new"),
        _made("mine", weights="new", variables=("blue", "slope")),
    ):
        use = terrain_use(other, [hides])
        assert use.state == "unmeasured"
        assert "was not measured for these weights" in use.text
    assert terrain_use(_made("optical", weights="new", variables=("blue",)), [hides]).state == "none"
    path = tmp_path / "terrain.json"
    assert read_terrain_records(path) == ()
    for record in (shows, _record(0.5, 0.5, "other"), hides):
        write_terrain_record(record, path)
    assert read_terrain_records(path) == (hides, _record(0.5, 0.5, "other"))


def test_maps_that_hide_retreat_are_compared_only_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    outline = outline_of_the_cube()
    hidden, without, unknown = _made("optical", "terrain"), _made("optical"), _made("terrain", weights="new")
    monkeypatch.setattr("glaciercube.change.terrain._shipped", lambda: (_record(0.97, 0.8),))
    with pytest.raises(StoreError, match=r"80 % .*leave dem out of sensors.* allow_terrain=True"):
        area_change(hidden, outline, 2015, 2017)
    with pytest.warns(TerrainWarning, match="80 %"):
        allowed = area_change(hidden, outline, 2015, 2017, allow_terrain=True)
    pd.testing.assert_frame_equal(allowed, area_change(without, outline, 2015, 2017))
    with pytest.warns(TerrainWarning, match="was not measured"):
        area_change(unknown, outline, 2015, 2017)
    # Areas of several dates are given with a warning, also under the prior; that of one date needs none.
    for series in (hidden, with_prior(hidden)):
        with pytest.warns(TerrainWarning, match="their differences are not"):
            area_series(series, outline)
    assert len(area_series(hidden.isel(time=[0]), outline)) == 1
    monkeypatch.setattr("glaciercube.change.terrain._shipped", lambda: (_record(0.97, 0.96),))
    area_change(hidden, outline, 2015, 2017)
    area_series(hidden, outline)


def test_every_shipped_model_has_its_own_record() -> None:
    records = {record.model_hash: record for record in read_terrain_records()}
    for name in SHIPPED:
        model = load_model(name)
        record = records[model.hash]
        assert record.scenes >= 60
        assert record.modalities == static_modalities(model) == ("illumination", "terrain", "relief")
        assert set(record.shares) == {"a", "b"}
        assert all(set(shares) == {"fresh", "stale", "off"} for shares in record.shares.values())


def test_the_share_of_a_loss_that_a_model_detects_is_that_of_the_truth() -> None:
    """The band ratio on ground that is bright where ice is, but for a known part of what is lost."""
    chip = made_series()
    lost = chip.label[0] != chip.label[1]
    hidden = lost & (np.cumsum(lost).reshape(lost.shape) <= lost.sum() // 4)
    bright = chip.label == 1
    shown = bright.copy()
    shown[1][hidden] = True
    model = load_model("band-ratio")

    def seen(ice: Array) -> Chip:
        bands = {"red": np.where(ice, 0.8, 0.1), "swir16": np.full(ice.shape, 0.1), "blue": np.full(ice.shape, 0.5)}
        return replace(chip, variables={name: band.astype(np.float32) for name, band in bands.items()})

    plain = seen_by(model, seen(bright))
    scores = loss_scores(chip, seen_by(model, seen(shown)), plain)
    assert scores["detected"] / scores["ice_before"] == 1 - hidden.sum() / lost.sum()
    assert scores["kept"] / scores["plain_detected"] == 1 - hidden.sum() / lost.sum()
    assert scores["told_loss"] == scores["true_loss"] - hidden.sum()
    perfect = loss_scores(chip, plain, plain)
    assert perfect["detected"] == perfect["lost"] == perfect["true_loss"] == perfect["kept"] == lost.sum()
    assert perfect["hit"] == perfect["either"]
    # Where snow lies afterwards a loss is told apart from where the ground is bare.
    snowy = replace(
        chip,
        label=np.where(hidden & (chip.label == 0), 2, chip.label),
        labels={**chip.labels, "seasonal_snow": ("seasonal_snow",)},
    )
    under = loss_scores(snowy, seen_by(model, seen(shown)), plain)
    assert under["bare_detected"] == under["bare_before"] == lost.sum() - hidden.sum()


def test_an_event_and_what_the_prior_makes_of_a_series_are_scored_by_the_truth() -> None:
    chip = made_series(dates=6, glaciers=True)
    sure = np.where(chip.label == 1, 0.9, 0.1)
    scores = prior_scores(chip, sure, PriorOptions())
    assert scores["hit"] == scores["either"]
    assert scores["told"] == scores["event"] > 0
    assert scores["right"] == scores["wrong"] == scores["area_error"] == 0
    wrong = sure.copy()
    wrong[2, 15:20, 5:12] = 0.1
    plain, prior = (prior_scores(chip, wrong, options) for options in (None, PriorOptions()))
    assert plain["area_error"] == 35
    assert (prior["area_error"], prior["right"], prior["wrong"]) == (0, 35, 0)
    for event in ("surge", "calving", "collapse"):
        turned, probability, where = event_chip(chip, sure, event)
        assert where.sum() > 20
        assert (np.abs(ice_of(turned).astype(int) - ice_of(chip)).sum(axis=(1, 2)) > 0).any()
        told = prior_scores(turned, probability, PriorOptions(), where)
        assert told["told"] == told["event"] > 20
    value, low, high = interval([scores, plain], "area_error", "area", [scores, scores])
    assert low <= value <= high
    assert value == pytest.approx(35 / (2 * scores["area"]))


def test_the_benchmarks_part_is_measured_once_and_kept(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"quick": True, "models": ("band-ratio",), "families": ("b",)}
    assert all(part.rows == () for part in physics.sections(tmp_path, kept=True, **asked))
    found = physics.sections(tmp_path, **asked)
    terrain, change, corrections = found
    assert {row[2] for row in terrain.rows} == {"fresh", "stale", "off"}
    assert {row[0] for row in corrections.rows} == set(CORRECTIONS)
    assert all(len(row) == len(part.columns) for part in found for row in part.rows)
    assert len(terrain.rows[0]) == 3 + len(MEASURES)
    assert change.record["options"]["retreat"] == 50
    # What was measured is read again, and nothing drawn.
    for chip in tmp_path.glob("scenes/*/*.npz"):
        chip.unlink()
    assert physics.sections(tmp_path, kept=True, **asked) == found
    assert not list(tmp_path.glob("scenes/*/*.npz"))
