"""Simulated sequences: one place at its dates, and the chips that are made of them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from scipy.stats import mannwhitneyu

from glaciercube.errors import ConfigError
from glaciercube.models.classes import GROUND
from glaciercube.simulate import second, second_ice, second_terrain
from glaciercube.simulate.coherence import draw_coherence
from glaciercube.simulate.second_sensors import draw_second_coherence
from glaciercube.simulate.sequence import GROUND_CLASSES, SequenceOptions, draw_sequence
from glaciercube.simulate.surface import LAND, Surface
from glaciercube.training.job import SimulatedOptions
from glaciercube.training.simulated import CLOUD_WEIGHT, simulated_chips

SMALL = SequenceOptions(size=64, resolution=20.0, dates=3)


@pytest.fixture(scope="module")
def drawn() -> xr.Dataset:
    return draw_sequence(5, SMALL)


def test_seed_decides_a_sequence(drawn: xr.Dataset) -> None:
    xr.testing.assert_identical(drawn, draw_sequence(5, SMALL))
    assert not np.array_equal(drawn["elevation"], draw_sequence(6, SMALL)["elevation"])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"size": 0}, "size 0 is too small: give 8"),
        ({"resolution": 0.0}, "resolution 0.0 is none"),
        ({"dates": 0}, "dates 0 are none: give 1 to 100"),
        ({"dates": (5, 2)}, r"dates \(5, 2\) are none"),
        ({"years": (2024, 2016)}, "years 2024 to 2016 are none"),
        ({"level": "l1c"}, "no level 'l1c'"),
        ({"cloud_cover": 1.5}, "cloud_cover 1.5 is not a share"),
        ({"stale": -1.0}, "-1.0 years old is out of range: give stale 0 to 20"),
        ({"dem_year": 1990.0}, "model of 1990.0 is out of range: give dem_year 1995"),
        ({"dem_year": "middle"}, "model of middle is out of range"),
        ({"dates": 2, "loss": 3.0}, "loss 3.0 is not a share"),
        ({"dates": (1, 3), "loss": 0.3}, "nothing can be lost at one date"),
        ({"dates": 2, "loss": 0.3, "years": (2020, 2020)}, "nothing can be lost"),
        ({"layers": ("dem",)}, r"layers \['dem'\] are none"),
        ({"layers_missing": -0.1}, "layers_missing -0.1 is not a share"),
        ({"family": "c"}, "no family 'c': give a or b"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"simulated sequence: .*{problem}"):
        SequenceOptions(**options)
    with pytest.raises(ConfigError, match=problem):
        SimulatedOptions(seeds=(0, 1), **options)


def test_classes_of_the_truth_are_those_of_the_models() -> None:
    assert set(GROUND_CLASSES) == set(GROUND)


def test_dates_share_one_place(drawn: xr.Dataset) -> None:
    assert drawn["ground"].dims == ("time", "y", "x")
    assert drawn["elevation"].dims == drawn["glaciers"].dims == ("y", "x")
    assert (np.diff(drawn["time"].to_numpy()) > np.timedelta64(0)).all()
    ice = np.isin(drawn["ground"], (1, 2))
    assert (ice[0] == (drawn["glaciers"] > 0)).all()
    assert not (ice[1:] & ~ice[:-1]).any()
    # Rock keeps its pattern from date to date, more than it could by chance.
    rock = (drawn["ground"] == 0).all("time") & ~drawn["cloud"].any("time") & drawn["red"].notnull().all("time")
    rock &= ~drawn["cast_shadow"].any("time")
    first, last = (np.log(drawn["red"].to_numpy()[k][rock]) for k in (0, -1))
    assert np.corrcoef(first, last)[0, 1] > 0.4


def test_a_loss_that_is_asked_for_happens() -> None:
    options = replace(SMALL, size=96, dates=2, loss=0.3)
    for seed in (5,):
        stale = draw_sequence(seed, replace(options, dem_year="first"))
        ice = np.isin(stale["ground"], (1, 2)).sum(axis=(1, 2))
        assert 1 - ice[1] / ice[0] == pytest.approx(0.3, abs=0.04)
        assert stale.attrs["loss"] == pytest.approx(1 - ice[1] / ice[0])
        current = draw_sequence(seed, replace(options, dem_year="last"))
        lost = np.isin(stale["ground"][0], (1, 2)) & ~np.isin(stale["ground"][1], (1, 2))
        assert float((stale["elevation"] - current["elevation"]).to_numpy()[lost].mean()) > 1


def test_chips_come_back_from_disk_as_they_were_drawn(tmp_path: Path) -> None:
    options = replace(SMALL, size=32, dates=(1, 2), cloud_cover=0.3)
    drawn = simulated_chips([1, 2], options, folder=tmp_path, progress=False)
    again = simulated_chips([2, 1], options, folder=tmp_path, progress=False)[::-1]
    for one, two in zip(drawn, again, strict=True):
        assert one.name == two.name
        assert one.attributes == two.attributes
        for name, value in one.variables.items():
            np.testing.assert_array_equal(value, two.variables[name])
        np.testing.assert_array_equal(one.label, two.label)
    chip = drawn[0]
    assert set(np.unique(chip.weight)) == {np.float32(CLOUD_WEIGHT), np.float32(1)}
    assert float(np.mean(chip.weight < 1)) == pytest.approx(float(np.mean(chip.attributes["cloud"])), abs=1e-3)
    assert chip.place != drawn[1].place
    simulated_chips([1], replace(options, cloud_cover=0.0), folder=tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_layers_say_what_the_ice_does_and_may_be_missing() -> None:
    options = replace(SMALL, size=96, dates=1, resolution=30.0, layers_missing=0.0)
    drawn = [draw_sequence(seed, options).isel(time=0) for seed in range(2)]
    on, off = (
        {
            name: np.concatenate([d[name].to_numpy()[np.isin(d["ground"], (1, 2)) == ice] for d in drawn])
            for name in ("elevation_change", "velocity", "coherence")
        }
        for ice in (True, False)
    )
    assert np.nanmean(on["elevation_change"]) < np.nanmean(off["elevation_change"]) - 0.1
    assert np.nanmean(on["velocity"]) > np.nanmean(off["velocity"])
    assert min(on["coherence"].min(), off["coherence"].min()) >= 0
    assert max(on["coherence"].max(), off["coherence"].max()) <= 1
    gone = draw_sequence(0, replace(options, layers_missing=1.0))
    assert gone[["elevation_change", "velocity", "coherence"]].isnull().all().to_array().all()
    assert gone["vv"].notnull().any()


def above(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Chance that a pixel of the one lies above a pixel of the other."""
    return float(mannwhitneyu(one, other).statistic / one.size / other.size)


def test_backscatter_hardly_parts_debris_from_rock() -> None:
    # Real scenes: 0.44 to 0.64 at Khumbu; 60 scenes in test_world_real.py.
    date = draw_sequence(5000, replace(SMALL, size=96, dates=1, layers_missing=0.0, gaps=False)).isel(time=0)
    truth, value = date["ground"].to_numpy(), date["vv"].to_numpy()
    debris, rock = (value[(truth == kind) & np.isfinite(value)] for kind in (2, 0))
    assert min(debris.size, rock.size) > 500
    assert 0.35 < above(rock, debris) < 0.65


@pytest.mark.parametrize("draw", [draw_coherence, draw_second_coherence])
def test_coherence_shows_moving_and_melting_ice_but_in_pairs_that_lost_it(draw: Callable[..., Any]) -> None:
    shape = (64, 64)
    ice = np.zeros(shape, dtype=bool)
    ice[:, 32:] = True
    debris = np.zeros(shape, dtype=np.float32)
    debris[32:, 32:] = 1
    level = Surface(
        resolution=20.0,
        elevation=np.full(shape, 1000, dtype=np.float32),
        ice=ice,
        debris=debris,
        snow=np.zeros(shape, dtype=np.float32),
        water=np.full(shape, LAND, dtype=np.uint8),
        turbidity=np.zeros(shape, dtype=np.float32),
    )
    bare = xr.Dataset({name: (("y", "x"), np.full(shape, 0.2, np.float32)) for name in ("red", "nir")})
    still, fast = np.zeros(shape, np.float32), np.where(ice, np.float32(50), np.float32(0))

    def gained(speed: npt.NDArray[np.float32], part: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """How much farther rock lies above ice in pairs that show ice than in the same pairs that hide it."""
        out = []
        for seed in range(40):
            hidden, shown = (draw(level, speed, bare, contrast, seed, seed) for contrast in (0.0, 1.0))
            assert hidden.dtype == shown.dtype == np.float32
            assert shown.min() > 0
            assert shown.max() < 1
            out.append(above(shown[~ice], shown[part]) - above(hidden[~ice], hidden[part]))
        return np.array(out)

    clean, under = ice & (debris == 0), debris == 1
    bright = gained(still, clean)
    assert 0.15 < (bright < 0.1).mean() < 0.5  # `LOST` of the pairs, and a few where chance had done it
    assert np.quantile(bright, 0.7) > 0.35
    assert 0.1 < np.median(gained(still, under)) < np.median(gained(fast, under))


def test_the_second_family_is_valid_and_decided_by_its_seed() -> None:
    options = replace(SMALL, family="b", dates=2)
    one, same, first = draw_sequence(5, options), draw_sequence(5, options), draw_sequence(5, replace(SMALL, dates=2))
    xr.testing.assert_identical(one, same)
    assert set(one.data_vars) == set(first.data_vars)
    for name, value in one.data_vars.items():
        assert value.dims == first[name].dims
        assert value.dtype == first[name].dtype
    for seed in range(2):
        drawn = draw_sequence(seed, replace(options, cloud_cover=0.3, gaps=False))
        for band in ("blue", "nir", "swir22"):
            assert float(drawn[band].min()) > 0.9e-4
            assert float(drawn[band].max()) < 2
        ice = np.isin(drawn["ground"], (1, 2))
        assert (ice[0] == (drawn["glaciers"] > 0)).all()
        assert not (ice[1] & ~ice[0]).any()
        assert 0.2 < float(drawn["cloud"].mean()) < 0.4
        vv = 10 * np.log10(drawn["vv"].to_numpy())
        assert -26 < np.nanpercentile(vv, 1) < np.nanpercentile(vv, 99) < 6
    both = [np.isin(draw_sequence(9, replace(SMALL, family=name))["ground"], (1, 2)) for name in ("a", "b")]
    assert not np.array_equal(both[0], both[1])


def test_the_families_share_no_code_for_terrain_and_ice() -> None:
    first = {"terrain", "ice", "landscape"}
    for module, allowed in (
        (second_terrain, {"surface"}),
        (second_ice, {"surface", "second_terrain"}),
        # The container of a place through the years, and how long it is known, but none of what draws it.
        (second, {"surface", "second_terrain", "second_ice", "landscape"}),
    ):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        taken = {
            (str(node.module).rsplit(".", 1)[-1], alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("glaciercube")
            for alias in node.names
        }
        assert {name for name, _ in taken} <= allowed
        assert {name for origin, name in taken if origin in first} <= {"Landscape", "EARLIER", "LATER"}
