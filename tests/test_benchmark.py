"""The benchmark: folds that leave places out, cells that are kept, a table that says what was not trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from glaciercube.bench import ablations
from glaciercube.bench.cells import Budget, run_cell
from glaciercube.bench.entrants import ENTRANTS, Entrant, Unsuited, scratch_contract
from glaciercube.bench.report import section_of
from glaciercube.bench.scoring import cases_for, members_of, score_cases
from glaciercube.bench.sets import BenchSet, grouped_by_distance
from glaciercube.bench.simulated_set import simulated
from glaciercube.errors import ConfigError
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.models.classes import GROUND
from glaciercube.models.registry import build_module

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
FUSION = Entrant("fusion-unet", "scratch", "fusion-unet")
RATIO = Entrant("band ratio", "rule", "band-ratio")


def chip(number: int, *, size: int = 32, patch: bool = False) -> Chip:
    """Bright ice in the upper half, rock in the lower; a patch is all of one kind."""
    rng = np.random.default_rng(number)
    ice = np.zeros((1, size, size), bool)
    ice[:, : size // 2] = True
    if patch:
        ice[:] = number % 2 == 0
    bright, dark = (0.8, 0.75, 0.7, 0.6, 0.05, 0.04), (0.1, 0.11, 0.12, 0.15, 0.2, 0.2)
    noise = rng.normal(0.0, 0.005, (6, 1, size, size))
    variables = {
        name: np.where(ice, b, d).astype(np.float32) + n.astype(np.float32)
        for name, b, d, n in zip(BANDS, bright, dark, noise, strict=True)
    }
    return Chip(
        variables,
        ice.astype(np.uint8),
        {"other": ("other", "debris_covered_ice", "water"), "glacier": ("clean_ice", "seasonal_snow")},
        np.ones((1, size, size), np.float32),
        np.array(["2020-08-01"], "datetime64[s]"),
        10.0,
        f"chip {number}",
        attributes={"middle": True} if patch else {},
    )


def bench(chips: int = 3, **changes: object) -> BenchSet:
    made = tuple(chip(number) for number in range(chips))
    usual = BenchSet(
        "made",
        made,
        tuple(f"group {number}" for number in range(chips)),
        ("glacier",),
        "its mapping",
        "its split",
        modalities={"optical": BANDS},
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def test_every_group_is_left_out_once_and_never_trained_on() -> None:
    folds = list(bench(groups=("a", "a", "b")).folds())
    assert [fold.name for fold in folds] == ["a", "b"]
    assert [len(fold.test) for fold in folds] == [2, 1]
    for fold in folds:
        assert not {c.name for c in fold.train} & {c.name for c in fold.test}
    kept = list(bench(groups=("train", "train", "b"), kept=("train",)).folds())
    assert [(fold.name, len(fold.train)) for fold in kept] == [("b", 2)]


def test_boxes_nearer_than_the_distance_are_one_group_also_through_others() -> None:
    boxes = [(0, 0, 10, 10), (100, 0, 110, 10), (12, 0, 20, 10), (25, 0, 30, 10)]
    assert grouped_by_distance(boxes, 6.0) == [0, 1, 0, 0]
    assert grouped_by_distance(boxes, 3.0) == [0, 1, 0, 3]


def test_sets_refuse_labels_that_differ_or_are_unknown() -> None:
    with pytest.raises(ConfigError, match="mixes labels"):
        bench(positive=("rock",))
    with pytest.raises(ConfigError, match="groups"):
        bench(groups=("a",))


def test_a_rule_is_scored_by_its_own_output_and_a_network_by_the_labels_classes() -> None:
    rule = load_model("band-ratio")
    made = bench()
    assert [rule.contract.classes[i] for i in members_of(rule, made)] == ["glacier"]
    contract = scratch_contract("fusion-unet", made.modalities, made.chips, 32)
    network = Model.from_module(contract, build_module(contract))
    assert [GROUND[i] for i in members_of(network, made)] == ["clean_ice", "seasonal_snow"]
    scores = score_cases(cases_for(rule, made, made.chips))
    assert scores.iou == 1.0
    assert scores.pixels == 3 * 32 * 32


def test_of_patches_the_middle_pixel_alone_is_scored() -> None:
    patches = tuple(chip(number, patch=True) for number in range(5))
    made = bench(chips=5)
    cases = cases_for(load_model("band-ratio"), replace(made, chips=patches), patches)
    assert [int(case.seen.sum()) for case in cases] == [1] * 5
    scores = score_cases(cases)
    assert (scores.pixels, scores.iou) == (5, 1.0)


def test_a_cell_is_trained_within_its_budget_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench()
    fold = next(made.folds())
    budget = Budget(seconds=0.3, batch=2, size=32, least_steps=0.0, least_passes=0.0)
    first = run_cell(FUSION, made, fold, budget, tmp_path)
    assert first["training"]["steps"] >= 1
    assert first["training"]["passes"] == pytest.approx(first["training"]["steps"] * 2 / 2, rel=0.01)
    assert first["scores"]["pixels"] == 32 * 32
    monkeypatch.setattr("glaciercube.bench.cells.fit", None)  # a second run must not train
    assert run_cell(FUSION, made, fold, budget, tmp_path) == first
    other = replace(fold, test=fold.test)
    changed = bench(chips=3, positive=("other",))
    with pytest.raises(TypeError):  # another set is another cell
        run_cell(FUSION, changed, other, budget, tmp_path)


def test_what_cannot_be_trained_fairly_says_so_and_keeps_its_size(tmp_path: Path) -> None:
    made = bench()
    fold = list(made.folds())[-1]
    cell = run_cell(FUSION, made, fold, Budget(seconds=0.1, batch=2, size=32, least_steps=1e6), tmp_path)
    assert "not trained: 0.1 s give it" in cell["skipped"]
    assert "scores" not in cell
    assert cell["parameters"] > 300_000
    assert cell["seconds_per_megapixel"] > 0
    row = section_of("made", (), [cell]).rows[0]
    assert row[0] == "fusion-unet"
    assert row[-1] == cell["skipped"]
    assert len(row) == len(section_of("made", (), [cell]).columns)


def test_five_bands_are_layers_of_their_own_and_radar_models_want_radar() -> None:
    made = bench()
    contract = scratch_contract("fusion-unet", {"optical": BANDS[:5]}, made.chips, 32)
    assert [(m.name, m.variables) for m in contract.modalities] == [("bands", BANDS[:5])]
    assert contract.classes == GROUND
    windowed = scratch_contract("unet-resnet", made.modalities, made.chips, 64)
    assert windowed.windows is not None
    assert windowed.windows.size == 64
    with pytest.raises(Unsuited, match="radar"):
        scratch_contract("icemapper", made.modalities, made.chips, 32)


def test_a_section_gives_folds_and_their_mean(tmp_path: Path) -> None:
    made = bench()
    cells = [run_cell(RATIO, made, fold, Budget(), tmp_path) for fold in made.folds()]
    section = section_of("made (real)", ("a note",), cells)
    (row,) = section.rows
    found = dict(zip(section.columns, row, strict=True))
    assert found["IoU by fold"] == "1.00 / 1.00 / 1.00"
    assert found["mean IoU"] == "1.00"
    assert found["weights"] == "0"
    assert json.loads(json.dumps(section.record))["cells"][0]["set"] == "made"
    some = [*cells[:2], {**cells[2], "scores": None, "skipped": "not run"}]
    (row,) = section_of("made (real)", (), some).rows
    found = dict(zip(section.columns, row, strict=True))
    assert found["IoU by fold"] == "1.00 / 1.00 / -"
    assert found["mean IoU"] == "-"  # a mean over some folds would not compare


def test_every_named_system_is_an_entrant() -> None:
    wanted = {"band-ratio", "ndsi", "fusion-unet", "fusion-unet-time", "unet-resnet", "deeplab", "glavitu"}
    assert wanted <= {entrant.model for entrant in ENTRANTS}


def test_the_simulated_set_tests_on_another_family_with_other_seeds(tmp_path: Path) -> None:
    (fold,) = simulated(tmp_path, small=True).folds()
    assert fold.name == "family b"
    families = [{c.attributes["family"] for c in chips} for chips in (fold.train, fold.test)]
    assert families == [{"a"}, {"b"}]
    assert not {c.place for c in fold.train} & {c.place for c in fold.test}


def test_what_sensors_add_is_kept_and_compared_on_the_same_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ablations.section(tmp_path, quick=True)
    (answer,) = first.record["answers"]
    base, other = answer["shown"]
    for score in ("iou", "precision"):
        assert base[f"{score}_difference"] is None
        low, high = other[f"{score}_difference"]
        assert low <= other[score] - base[score] + 1e-9
        assert high >= other[score] - base[score] - 1e-9
    monkeypatch.setattr(ablations, "simulated_chips", None)  # a second call draws nothing
    assert ablations.section(tmp_path, quick=True).rows == first.rows


def test_what_sensors_add_is_asked_of_any_model_in_the_ways_that_it_can_be_shown(tmp_path: Path) -> None:
    chosen = ["--model", "ndsi", "--question", "a sensor less", "--scenes", "2", "--out", str(tmp_path)]
    done = CliRunner().invoke(ablations.main, chosen)
    assert done.exit_code == 0, done.output
    assert "| Sentinel-2 alone |" in done.output
    assert "| without Sentinel-2 |" not in done.output


def test_pixels_without_a_probability_count_as_missed_when_sensors_are_compared() -> None:
    made = bench()
    (case, *_) = cases_for(load_model("band-ratio"), made, made.chips)
    blind = replace(case, probability=np.full_like(case.probability, np.nan))
    counts = ablations._counts([blind], [case.name])[0]
    assert ablations._hits(counts) == 0
    assert counts[:, 1].sum() == case.truth.sum()


def test_scores_of_binned_probabilities_are_those_of_the_pixels() -> None:
    rng = np.random.default_rng(0)
    made = bench()
    (case, *_) = cases_for(load_model("band-ratio"), made, made.chips)
    probability = np.clip(0.5 * case.truth + 0.6 * rng.random(case.truth.shape), 0, 1).astype(np.float32)
    case = replace(case, probability=probability, counted=np.ones_like(case.truth))
    counts = ablations._counts([case], [case.name])[0]
    said = probability > 0.5
    assert ablations._iou(counts) == pytest.approx((said & case.truth).sum() / (said | case.truth).sum(), abs=1e-9)
    order = np.argsort(-probability, axis=None)
    found = np.cumsum(case.truth.ravel()[order])
    precision = found / np.arange(1, found.size + 1)
    exact = (precision * case.truth.ravel()[order]).sum() / found[-1]
    assert ablations._average_precision(counts) == pytest.approx(exact, abs=0.02)


def test_a_set_without_a_band_gives_shipped_models_its_neighbour() -> None:
    made = replace(bench(), stand_ins={"nothing": "swir16"})
    fold = next(made.folds())
    for chip in fold.with_stand_ins(made.stand_ins).test:
        np.testing.assert_array_equal(chip.variables["nothing"], chip.variables["swir16"])
    assert "nothing" not in fold.test[0].variables
