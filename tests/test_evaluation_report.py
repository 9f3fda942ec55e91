"""Glaciers are scored one by one, and a report says the same in Markdown and in JSON."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glaciercube.evaluation.cases import Case, ClassCounts
from glaciercube.evaluation.classwise import class_tables
from glaciercube.evaluation.glaciers import (
    by_debris,
    by_size,
    each_glacier,
    glacier_table,
    glacier_zones,
    hidden_glaciers,
)
from glaciercube.evaluation.jsonable import jsonable
from glaciercube.evaluation.report import evaluate_cases, write_report
from glaciercube.evaluation.segmentation import Confusion

SHAPE = (40, 60)


def case_of(probability: np.ndarray, truth: np.ndarray, **other: Any) -> Case:
    every = np.ones(truth.shape, bool)
    layers: dict[str, Any] = {"known": every, "counted": every, "resolution": 20.0, "name": "a"}
    time = np.datetime64("2021-08-01", "s")
    return Case(time=time, probability=probability.astype(np.float32), truth=truth, **{**layers, **other})


def two_glaciers() -> tuple[np.ndarray, np.ndarray]:
    """One of 20 x 20 pixels (0.16 km2), one of 10 x 10 (0.04 km2)."""
    numbers = np.zeros(SHAPE, np.int32)
    numbers[5:25, 5:25], numbers[10:20, 45:55] = 1, 2
    return numbers, numbers > 0


def test_ground_off_the_glaciers_counts_for_the_nearest_within_the_margin() -> None:
    numbers, truth = two_glaciers()
    zones = glacier_zones(case_of(truth, truth, glaciers=numbers), margin=40.0)
    assert zones[15, 26] == 1
    assert zones[15, 43] == 2
    assert zones[15, 27] == 0
    assert (zones == 1).sum() == 20 * 20 + 4 * 20 * 2 + 4 * 1  # two pixels on each side, and one at each corner
    patches = glacier_zones(case_of(truth, truth), margin=0.0)
    np.testing.assert_array_equal(patches > 0, truth)
    assert patches.max() == 2
    assert not glacier_zones(case_of(truth, np.zeros(SHAPE, bool)), margin=40.0).any()


def test_areas_and_overlap_of_each_glacier_by_hand() -> None:
    numbers, truth = two_glaciers()
    p = np.where(truth, 0.9, 0.0)
    p[5:25, 25] = 0.6  # a column beside the larger one
    p[10:15, 45:55] = 0.2  # the upper half of the smaller one
    table = glacier_table([case_of(p, truth, glaciers=numbers)], margin=20.0).set_index("glacier")
    assert list(table.index) == ["1", "2"]
    pixel = 0.02**2
    assert list(table["area_km2"]) == pytest.approx([400 * pixel, 100 * pixel])
    assert list(table["expected_km2"]) == pytest.approx([(360 + 12) * pixel, (45 + 10) * pixel])
    assert list(table["mapped_km2"]) == pytest.approx([420 * pixel, 50 * pixel])
    assert list(table["iou"]) == pytest.approx([400 / 420, 0.5])
    assert list(table["precision"]) == pytest.approx([400 / 420, 1.0])
    assert list(table["recall"]) == pytest.approx([1.0, 0.5])
    assert table["debris_share"].isna().all()
    assert not table["cut"].any()


def test_size_classes_average_the_images_of_a_glacier_first() -> None:
    numbers, truth = two_glaciers()
    over, under = np.where(truth, 1.0, 0.0), np.where(truth, 0.7, 0.0)
    cases = [case_of(p, truth, glaciers=numbers) for p in (over, under)]
    third = case_of(np.where(truth, 0.5, 0.0), truth, glaciers=numbers, name="b")
    groups = {group.name: group for group in by_size(glacier_table([*cases, third]))}
    assert (groups["all"].glaciers, groups["all"].images) == (4, 6)
    small = groups["below 0.1 km2"]
    # Errors of 0 and 0.3 of one glacier, 0.5 of another.
    assert (small.glaciers, small.images) == (2, 3)
    assert small.error == pytest.approx((0.15 + 0.5) / 2)
    assert small.bias == pytest.approx(-small.error)
    assert groups["0.1-0.2 km2"].glaciers == 2
    assert groups["5-10 km2"].glaciers == 0
    assert math.isnan(groups["5-10 km2"].iou)
    assert [g.glacier for g in each_glacier(glacier_table(cases))] == ["1", "2"]


def test_glaciers_that_are_hidden_are_counted_and_in_no_class() -> None:
    numbers, truth = two_glaciers()
    counted = np.ones(SHAPE, bool)
    counted[:, 42:] = False
    table = glacier_table([case_of(truth, truth, glaciers=numbers, counted=counted)])
    assert hidden_glaciers(table) == 1
    assert by_size(table)[0].glaciers == 1


def test_debris_classes_by_share_of_the_ice() -> None:
    numbers, truth = two_glaciers()
    debris = np.zeros(SHAPE, bool)
    debris[5:25, 5:8] = True  # 15 % of the larger
    groups = {g.name: g for g in by_debris(glacier_table([case_of(truth, truth, glaciers=numbers, debris=debris)]))}
    assert {name: g.glaciers for name, g in groups.items()} == {
        "below 1 % debris": 1,
        "1-10 % debris": 0,
        "10-50 % debris": 1,
        "50 % debris and more": 0,
        "debris not known": 0,
    }


def test_cut_glaciers_are_marked_and_slivers_left_out() -> None:
    truth = np.zeros(SHAPE, bool)
    truth[:20, :20], truth[30:33, 30:33] = True, True  # nine pixels are 0.0036 km2
    table = glacier_table([case_of(truth, truth)])
    assert list(table["cut"]) == [True]


def test_classes_are_summed_over_images_of_like_classes() -> None:
    _, truth = two_glaciers()
    counts = np.array([[5, 1, 0], [2, 7, 1], [0, 0, 0]])
    cases = [case_of(truth, truth, classes=ClassCounts(("a", "b", "c"), counts)) for _ in range(2)]
    (table,) = class_tables([*cases, case_of(truth, truth)])
    assert table.images == 2
    assert table.counts == ((10, 2, 0), (4, 14, 2), (0, 0, 0))
    assert table.scores[1].iou == 14 / (14 + 2 + 6)
    assert math.isnan(table.scores[2].recall)
    assert class_tables([case_of(truth, truth)]) == ()


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for key, each in value.items() if key != "format" for n in numbers_in(each)]
    if isinstance(value, list):
        return [n for each in value for n in numbers_in(each)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_report_says_the_same_twice_and_dashes_what_has_no_value(tmp_path: Path) -> None:
    numbers, truth = two_glaciers()
    rng = np.random.default_rng(0)
    p = np.clip(np.where(truth, 0.8, 0.1) + rng.normal(0, 0.2, SHAPE), 0, 1)
    debris = np.zeros(SHAPE, bool)
    counts = ClassCounts(("rest", "ice"), np.array([[3, 1], [0, 0]]))
    cases = [
        case_of(p, truth, glaciers=numbers, debris=debris, classes=counts),
        case_of(p * 0, np.zeros(SHAPE, bool), name="empty"),
    ]
    report = evaluate_cases(cases, title="A model | a set", facts={"model": "m"})
    written = write_report(report, tmp_path / "out")
    content = json.loads(written["json"].read_text())
    text = written["markdown"].read_text()
    assert content["overlap"]["pooled"]["iou"] == report.overlap.pooled.iou
    assert content["images"][1]["overlap"]["iou"] is None
    assert content["outlines"]["images"] == 1
    assert content["outlines"]["neither"] == 1
    assert "| empty | 2021-08-01 | - | - | - | - | 2,400 |" in text
    heads = {head.strip() for line in text.splitlines() if line.startswith("| ") for head in line.split("|")}
    assert {"mean probability", "observed share of ice", "mapped as rest", "area error", "area bias"} <= heads
    assert not {"said", "true", "mean p", "lost"} & heads
    # Every figure of the text is one of the record, rounded.
    known = numbers_in(content)
    for cell in re.findall(r"(?<=\| )[+-]?[\d,]+\.\d+(?= \|)", text):
        value, digits = float(cell.replace(",", "")), len(cell.split(".")[1])
        assert any(abs(value - each) <= 0.5001 * 10**-digits for each in known), cell
    for group in content["sizes"]:
        assert f"| {group['name']} | {group['glaciers']} | {group['images']} |" in text
    assert written["picture"].read_bytes().startswith(b"\x89PNG")


def test_records_become_what_json_can_hold() -> None:
    held = {1: (Confusion(1, 1, 0, 2), math.inf), "none": [math.nan, None], "digits": 0.123456}
    found = jsonable(held, 3)
    assert found["1"][0] == {
        "hits": 1,
        "false_alarms": 1,
        "misses": 0,
        "rejections": 2,
        "iou": 0.5,
        "f1": 0.667,
        "precision": 0.5,
        "recall": 1.0,
        "accuracy": 0.75,
        "pixels": 4,
    }
    assert found["1"][1] is None
    assert found["none"] == [None, None]
    assert (found["digits"], jsonable(held)["digits"]) == (0.123, 0.123456)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
