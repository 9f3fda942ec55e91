"""The record of how often the shipped intervals hold is of the shipped weights and intervals, and the page tells it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from glaciercube.change import find_calibration
from glaciercube.models import load_model
from glaciercube.training.calibrate_area import FAMILY as CALIBRATED
from glaciercube.training.coverage import FAMILY, FIRST_SEED, LEVEL, calibration_hash, table

DOCS = Path(__file__).parents[1] / "docs"
SIZES = (("error", ".2f"), ("median_error", ".2f"), ("bias", "+.2f"))


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "coverage.json").read_text(encoding="utf-8"))
    return found


def test_the_check_was_of_another_world_and_of_the_seeds_said_beforehand(record: dict[str, Any]) -> None:
    assert record["family"] == FAMILY != CALIBRATED
    assert record["seeds"] == [FIRST_SEED, FIRST_SEED + 500]
    assert record["level"] == LEVEL


def test_the_check_was_of_the_shipped_weights_and_intervals(record: dict[str, Any]) -> None:
    shipped = {name: load_model(name).hash for name in ("fusion-unet", "fusion-unet-time", "band-ratio")}
    met = set()
    for row in record["rows"]:
        assert row["model_hash"] == shipped[row["model"]], "the weights have changed: check the coverage again"
        used = find_calibration(row["model_hash"], row["modalities"], row["every"], row["quantity"])
        assert used is not None
        assert row["calibration"] == calibration_hash(used), "make calibrate was run since: check the coverage again"
        met.add((row["model"], row["quantity"], row["every"]))
    assert met == {(n, q, e) for n in shipped for q in ("area", "change") for e in ("observation", "year")}


def test_the_counts_are_what_is_said_of_them(record: dict[str, Any]) -> None:
    for row in record["rows"]:
        count = row["glaciers"]
        assert row["inside"] + row["below"] + row["above"] == count
        assert row["p_value"] == pytest.approx(binomtest(row["inside"], count, LEVEL).pvalue, abs=1e-6)
        assert sum(size[0] for size in row["sizes"].values()) == count
        assert count >= (450 if row["quantity"] == "area" else 250)


def test_areas_hold_at_least_as_often_as_they_say(record: dict[str, Any]) -> None:
    for row in record["rows"]:
        if row["quantity"] == "area":
            less = binomtest(row["inside"], row["glaciers"], LEVEL, alternative="less").pvalue
            assert less > 0.01, "the intervals hold less often than they say"


def test_the_page_says_how_many_rows_are_consistent(record: dict[str, Any]) -> None:
    consistent = sum(row["p_value"] > 0.01 for row in record["rows"])
    page = (DOCS / "uncertainty.md").read_text(encoding="utf-8")
    assert f"consistent with 90 % in {consistent} of {len(record['rows'])} rows" in page
    assert consistent > 0.8 * len(record["rows"]), "the intervals do not hold as often as they say"


def test_the_page_has_every_row(record: dict[str, Any]) -> None:
    page = (DOCS / "uncertainty.md").read_text(encoding="utf-8").splitlines()
    for line in table(record["rows"]).splitlines():
        assert line in page, line


def test_the_page_has_the_errors_by_size_of_the_shipped_cards() -> None:
    page = (DOCS / "uncertainty.md").read_text(encoding="utf-8").splitlines()
    weights = DOCS.parent / "glaciercube" / "models" / "weights"
    reports = [
        json.loads((weights / name / "scores" / "family-b" / "report.json").read_text(encoding="utf-8"))
        for name in ("fusion-unet", "fusion-unet-time")
    ]
    for each in zip(*(report["sizes"] for report in reports), strict=True):
        if each[0]["glaciers"]:
            cells = [" / ".join(f"{one[key]:{form}}" for one in each) for key, form in SIZES]
            assert f"| {each[0]['name'].removesuffix(' km2')} | {each[0]['glaciers']} | {' | '.join(cells)} |" in page
    for report in reports:
        near, whole = report["near_calibration"]["ece"], report["calibration"]["ece"]
        assert any(f"| {near:.3f} | {whole:.3f} |" in line for line in page)
