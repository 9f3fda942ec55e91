"""Calving fronts: found in probabilities, scored against drawn ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from glaciercube.change.fronts import (
    FrontOptions,
    class_outputs,
    find_fronts,
    front_between,
    front_frame,
    front_of_edge,
    front_of_zones,
    front_table,
)
from glaciercube.change.paths import cheapest_path, longest_path, path_length
from glaciercube.errors import ConfigError, ModelError
from glaciercube.evaluation.fronts import (
    FrontCase,
    nearest_distances,
    paired_distances,
    score_fronts,
    season_of,
)
from glaciercube.models.architectures.contracts import architecture_contract
from glaciercube.models.base import Model
from glaciercube.models.classes import ZONES, Output
from glaciercube.models.registry import build_module, save_model


def line(row: float, first: int = 0, last: int = 40) -> np.ndarray:
    columns = np.arange(first, last)
    return np.stack([np.full(len(columns), row), columns], axis=1)


def brute_force(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = np.sqrt(((a[:, None].astype(float) - b[None]) ** 2).sum(axis=2))
    return np.concatenate([apart.min(axis=1), apart.min(axis=0)])


def test_distance_of_parallel_lines_is_what_parts_them() -> None:
    score = score_fronts([FrontCase("a", line(10), line(13), 50.0)])
    assert score.distance_m == pytest.approx(150.0)
    assert score.distance_px == pytest.approx(3.0)
    assert score.paired_px == pytest.approx(3.0, abs=0.05)  # circles around the ends cut the lines unevenly
    assert score.interval_m == pytest.approx((150.0, 150.0))


def test_nearest_distances_agree_with_brute_force_and_count_both_lines() -> None:
    rng = np.random.default_rng(3)
    found, drawn = rng.uniform(0, 100, (70, 2)), rng.uniform(0, 100, (45, 2))
    np.testing.assert_allclose(nearest_distances(found, drawn), brute_force(found, drawn))
    # A found line that covers half of the drawn one lies on it, and is still punished for the half that it lacks.
    assert nearest_distances(line(5, 0, 20), line(5, 0, 40)).mean() == pytest.approx(sum(range(21)) / 60)


def test_mean_distance_error_weighs_every_pixel_of_all_images() -> None:
    cases = [FrontCase("a", line(0), line(1), 10.0), FrontCase("b", line(0, 0, 10), line(7, 0, 10), 100.0)]
    every = np.concatenate([brute_force(np.asarray(c.found), np.asarray(c.drawn)) * c.resolution for c in cases])
    assert score_fronts(cases).distance_m == pytest.approx(every.mean())
    assert score_fronts(cases).distance_m != pytest.approx((10.0 + 700.0) / 2)


def test_images_without_a_front_are_counted_and_not_averaged() -> None:
    none = np.zeros((0, 2), int)
    score = score_fronts([FrontCase("a", line(0), line(2), 10.0), FrontCase("b", none, line(2), 10.0)])
    assert (score.images, score.missing) == (2, 1)
    assert score.distance_m == pytest.approx(20.0)
    lost = score_fronts([FrontCase("b", none, line(2), 10.0)])
    assert lost.missing == 1
    assert np.isnan(lost.distance_m)
    assert np.isnan(lost.interval_m[0])
    with pytest.raises(ModelError, match="no drawn front"):
        FrontCase("c", line(0), none, 10.0)
    with pytest.raises(ModelError, match="no fronts"):
        score_fronts([])


def test_errors_are_broken_down_by_group() -> None:
    cases = [
        FrontCase("a", line(0), line(2), 10.0, {"glacier": "A", "season": "summer"}),
        FrontCase("b", line(0), line(4), 10.0, {"glacier": "B", "season": "summer"}),
        FrontCase("c", line(0)[:0], line(4), 10.0, {"glacier": "B", "season": "winter"}),
    ]
    score = score_fronts(cases)
    assert score.groups["glacier"]["A"].distance_px == pytest.approx(2.0)
    assert score.groups["glacier"]["B"].missing == 1
    assert score.groups["season"]["summer"].images == 2
    assert score.groups["season"]["summer"].distance_px == pytest.approx(3.0)


def test_interval_is_that_of_images_drawn_with_replacement() -> None:
    rng = np.random.default_rng(0)
    offsets = rng.uniform(0, 10, 12)
    score = score_fronts([FrontCase(str(k), line(0), line(v), 1.0) for k, v in enumerate(offsets)], seed=1)
    means = rng.choice(offsets, (20_000, 12)).mean(axis=1)
    np.testing.assert_allclose(score.interval_px, np.quantile(means, [0.025, 0.975]), rtol=0.05)
    assert score.interval_px[0] < score.distance_px < score.interval_px[1]


def test_paired_distances_go_along_both_lines_and_not_across() -> None:
    # The same line, found from the other end.
    assert paired_distances(line(3)[::-1], line(3)).max() == pytest.approx(0.0)
    # Too long by a quarter at one end: nearest points lie on the line, points at the same pace do not.
    found, drawn = line(3, 0, 51), line(3, 0, 41)
    assert paired_distances(found, drawn).mean() == pytest.approx(5.0, abs=0.01)


def test_ends_are_cut_from_both_lines_where_the_drawn_one_ends() -> None:
    drawn = line(10, 0, 61)
    # The found line runs up the side of the fjord at its end.
    found = np.concatenate([drawn, np.stack([np.arange(11, 31), np.full(20, 60)], axis=1)])
    assert paired_distances(found, drawn).mean() > 5
    assert paired_distances(found, drawn, cut=8.0).mean() < 0.1
    assert paired_distances(found, drawn, cut=1000.0).mean() == pytest.approx(paired_distances(found, drawn).mean())


def test_seasons_are_of_the_hemisphere() -> None:
    assert [season_of(np.datetime64(f"2001-{m:02d}-15")) for m in (12, 2, 3, 5, 6, 9, 11)] == [
        "winter",
        "winter",
        "spring",
        "spring",
        "summer",
        "autumn",
        "autumn",
    ]
    assert season_of(np.datetime64("1965-01-15"), north=False) == "summer"


def test_cheapest_path_costs_as_little_as_any(subtests: pytest.Subtests) -> None:
    rng = np.random.default_rng(5)
    for trial in range(3):
        with subtests.test(trial=trial):
            cost, mask = rng.uniform(0.1, 3.0, (7, 6)), rng.random((7, 6)) > 0.15
            mask[0, 0] = mask[6, 5] = True
            path = cheapest_path(mask, cost, (0, 0), (6, 5))
            assert _price(path, cost) == pytest.approx(_bellman_ford(mask, cost)[6, 5])
            assert mask[tuple(path.T)].all()
            assert (np.abs(np.diff(path, axis=0)).max(axis=1) == 1).all()
    assert len(cheapest_path(np.eye(3, 4, dtype=bool)[:, [0, 3, 1, 2]], np.ones((3, 4)), (0, 0), (1, 2))) == 0


def _price(path: np.ndarray, cost: np.ndarray) -> float:
    steps = np.hypot(*np.diff(path, axis=0).T)
    return float((steps * (cost[tuple(path[1:].T)] + cost[tuple(path[:-1].T)]) / 2).sum())


def _bellman_ford(mask: np.ndarray, cost: np.ndarray) -> np.ndarray:
    best = np.full(cost.shape, np.inf)
    best[0, 0] = 0
    for _ in range(cost.size):
        for y, x in np.argwhere(mask):
            for dy, dx in np.argwhere(np.ones((3, 3))) - 1:
                v, u = y + dy, x + dx
                if (dy or dx) and 0 <= v < cost.shape[0] and 0 <= u < cost.shape[1] and mask[v, u]:
                    best[y, x] = min(best[y, x], best[v, u] + np.hypot(dy, dx) * (cost[y, x] + cost[v, u]) / 2)
    return best


def test_longest_path_follows_a_bent_shape_from_end_to_end() -> None:
    mask = np.zeros((30, 30), bool)
    mask[5:25, 4] = mask[24, 4:20] = mask[15:25, 19] = True
    mask[20:25, 10] = True  # a spur
    path = longest_path(mask, np.ones(mask.shape))
    assert sorted(map(tuple, path[[0, -1]].tolist())) == [(5, 4), (15, 19)]
    assert path_length(path) == pytest.approx(19 + 15 + 9, abs=2)
    assert not len(longest_path(np.zeros((3, 3), bool), np.ones((3, 3))))


def bent_front(gap: slice = slice(0, 0)) -> tuple[np.ndarray, np.ndarray]:
    columns = np.arange(10, 90)
    rows = np.rint(40 + 12 * np.sin(columns / 14)).astype(int)
    y, x = np.mgrid[:80, :100]
    apart = np.sqrt((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2).min(axis=2)
    probability = 0.9 * np.exp(-(apart**2) / 4)
    probability[:, gap] *= 0.2
    return probability, np.stack([rows, columns], axis=1)


def test_front_of_an_edge_is_found_within_a_pixel_also_over_a_gap() -> None:
    for gap in (slice(0, 0), slice(45, 52)):
        probability, drawn = bent_front(gap)
        probability[60:64, 20:24] = 0.8  # something else that looks like one
        found = front_of_edge(probability, 50.0)
        assert nearest_distances(found, drawn).mean() < 1.0
    # Without leave to join, half of the line is lost.
    half = front_of_edge(probability, 50.0, FrontOptions(gap=0.0))
    assert path_length(half) < 0.7 * path_length(found)


def test_where_no_front_is_probable_none_is_found() -> None:
    probability, _ = bent_front()
    assert not len(front_of_edge(probability * 0.2, 50.0))
    assert not len(front_of_edge(np.full((20, 20), np.nan), 50.0))
    assert not len(front_of_edge(probability, 50.0, FrontOptions(shortest=50_000.0)))
    assert find_fronts({"front": probability * 0.2, "other": 1 - probability}, 50.0) == []
    with pytest.raises(ConfigError, match="threshold"):
        FrontOptions(threshold=0.0)
    with pytest.raises(ModelError, match="no front can be read"):
        find_fronts({"glacier": probability, "land": 1 - probability}, 50.0)


def test_a_line_has_to_be_as_probable_as_the_docs_say_unless_told_otherwise() -> None:
    probability, _ = bent_front()
    said = f"pixels above a threshold ({FrontOptions().threshold:g})"
    assert said in (Path(__file__).parents[1] / "docs" / "fronts.md").read_text(encoding="utf-8")
    for peak, found in ((0.34, False), (0.36, True)):
        assert bool(len(front_of_edge(probability / probability.max() * peak, 50.0))) == found


def test_between_given_sides_the_front_goes_from_one_to_the_other() -> None:
    probability, drawn = bent_front(slice(45, 52))
    probability[60:64, 20:24] = 0.8
    first, second = np.zeros((2, *probability.shape), bool)
    first[:, 4], second[:, 93] = True, True
    found = front_between(probability, first, second)
    assert (found[0, 1], found[-1, 1]) == (4, 93)
    assert nearest_distances(found[(found[:, 1] >= 10) & (found[:, 1] < 90)], drawn).mean() < 1.0
    assert not len(front_between(probability * 0.2, first, second))
    with pytest.raises(ModelError, match="side"):
        front_between(probability, first, np.zeros_like(first))


def test_errors_between_given_sides_leave_out_what_is_near_them() -> None:
    drawn = line(20, 10, 90)
    # Five rows off up to 8 pixels from the sides, one off between.
    columns = np.arange(10, 90)
    found = np.stack([np.where((columns < 18) | (columns > 81), 25, 21), columns], axis=1)
    sides = np.array([(row, column) for row in range(40) for column in (10, 89)])
    case = FrontCase("one", np.zeros((0, 2), int), drawn, 50.0, {}, found, sides)
    score = score_fronts([case, FrontCase("two", drawn, drawn, 50.0)], resamples=100)
    assert score.between_px == pytest.approx(1.0, abs=0.01)
    assert score.between_m == pytest.approx(50.0, abs=0.5)
    assert (score.images, score.missing, score.crossed, score.paired_px) == (
        2,
        1,
        1,
        0.0,
    )  # without help, none in the first
    with pytest.raises(ModelError, match="give both"):
        FrontCase("one", found, drawn, 50.0, between=found)


def zones() -> dict[str, np.ndarray]:
    """Ocean above row 20 and glacier below it, land at the sides; a floe, a lake and a small second front."""
    most = np.full((50, 60), 1)
    most[:, 5:50] = 2
    most[:20, 5:50] = 0
    most[8:11, 20:24] = 2  # a floe taken for glacier
    most[30:33, 30:34] = 0  # a lake on the glacier
    most[:5, 50:] = 0
    most[5:8, 52:56] = 2  # glacier at the ocean's side, 4 pixels wide
    return {name: np.where(most == k, 0.8, 0.1) for k, name in enumerate(("ocean", "land", "glacier"))}


def test_front_of_zones_is_where_the_largest_ocean_meets_glacier() -> None:
    (front,) = front_of_zones(zones(), 100.0)
    np.testing.assert_array_equal(front[np.argsort(front[:, 1])], line(19, 5, 50))
    # Pieces of up to 750 m are dropped: at 200 m a pixel the second one is longer.
    two = front_of_zones(zones(), 260.0)
    assert len(two) == 2
    assert two[1][:, 1].min() >= 52
    assert front_of_zones({**zones(), "ocean": np.zeros((50, 60))}, 100.0) == []


def test_zones_are_told_by_their_names_and_not_by_their_order() -> None:
    given = zones()
    turned = {name: given[name] for name in ("glacier", "land", "ocean")}
    (front,) = find_fronts(turned, 100.0)
    np.testing.assert_array_equal(front, find_fronts(given, 100.0)[0])


def test_fronts_stand_on_the_ground_with_their_dates() -> None:
    import xarray as xr
    from odc.geo.xr import xr_coords

    geobox = GeoBox((80, 100), Affine(50.0, 0.0, 500_000.0, 0.0, -50.0, 7_400_000.0), "EPSG:32624")
    probability, drawn = bent_front()
    times = np.array(["2001-07-04", "2001-08-05"], "datetime64[ns]")
    held = np.stack([probability, probability * 0.1]).astype(np.float32)
    predicted = xr.Dataset(
        {"front_probability": (("time", "y", "x"), held)}, coords={**xr_coords(geobox), "time": times}
    )
    predicted["front_probability"].attrs["grid_mapping"] = "spatial_ref"
    table = front_table(predicted, {"front": "front_probability"})
    assert table["time"].tolist() == [times[0]]
    assert table.crs == "EPSG:32624"
    assert table["length_m"].iloc[0] == pytest.approx(path_length(drawn) * 50, rel=0.1)
    x, y = table.geometry.iloc[0].coords[0]
    end = drawn[np.abs(drawn[:, 1] - (x - 500_000) / 50).argmin()]
    assert abs((7_400_000 - y) / 50 - 0.5 - end[0]) < 3
    assert not len(front_frame([], geobox))
    with pytest.raises(ModelError, match="no ocean_probability"):
        front_table(predicted, {"ocean": "ocean_probability"})


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = architecture_contract("front-unet", widths=(8, 8), dropout=0.0)
    save_model(Model.from_module(contract, build_module(contract)), tmp_path / "folder/of/a/front/model")
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "fronts.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)  # noqa: S102 - our own
    assert list(names["fronts"].columns) == ["time", "length_m", "geometry"]
    assert names["fronts"].crs == names["grid"].crs


def test_a_models_outputs_lead_to_its_fronts_by_the_names_of_its_classes() -> None:
    front = architecture_contract("front-unet")
    assert class_outputs(front) == {"front": "front_probability", "inland": "inland_probability"}
    single = tuple(Output(f"{name}_probability", (name,)) for name in ZONES)
    zoned = architecture_contract("hed-unet", outputs=single)
    assert class_outputs(zoned) == {name: f"{name}_probability" for name in ZONES}
    both = architecture_contract("hed-unet", outputs=(Output("ice", ("glacier",)), Output("rest", ("ocean", "land"))))
    assert class_outputs(both) == {"glacier": "ice"}
