"""A model is scored on chips, with all of its inputs and with fewer."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from small_models import small_model
from test_evaluation_predict import make_chip

from glaciercube.cli import main
from glaciercube.errors import ConfigError, ModelError
from glaciercube.evaluation.front_cases import front_cases
from glaciercube.evaluation.markdown import markdown
from glaciercube.evaluation.predict import PredictOptions
from glaciercube.evaluation.run import EvaluateOptions, evaluate_model
from glaciercube.evaluation.sensors import common_subsets, sensor_table
from glaciercube.models import load_model
from glaciercube.models.chips import Chip
from glaciercube.models.classes import Output
from glaciercube.training.exchange import write_set


def icy_chip(name: str = "chip", **other: object) -> Chip:
    """A square of clean ice, bright in red and dark in shortwave infrared, on rock; noise elsewhere."""
    chip = make_chip(2)
    ice = np.zeros(chip.label.shape, bool)
    ice[:, 8:24, 8:24] = True
    variables = dict(chip.variables)
    variables["red"] = np.where(ice, 0.7, 0.1)
    variables["blue"] = np.where(ice, 0.7, 0.1)
    variables["swir16"] = np.where(ice, 0.05, 0.2)
    chip = dataclasses.replace(chip, variables=variables, label=ice.astype(np.uint8), name=name)
    return dataclasses.replace(chip, **other)  # type: ignore[arg-type]


def test_rule_that_is_right_scores_one() -> None:
    report = evaluate_model(load_model("band-ratio"), [icy_chip("a"), icy_chip("b")], source="squares")
    assert report.overlap.pooled.iou == 1
    assert (len(report.images), report.outlines.mean) == (4, 0)
    assert report.facts["chips"] == "2 of 2 places"
    assert report.facts["to be found"] == "clean_ice, debris_covered_ice"
    assert "kept from the model" not in report.facts
    # 16 x 16 pixels of 20 m.
    assert [(g.name, g.images, round(g.area_km2, 4)) for g in report.glaciers] == [("a", 2, 0.1024), ("b", 2, 0.1024)]
    (table,) = report.classes
    assert table.names == ("other+seasonal_snow+water", "clean_ice+debris_covered_ice")
    assert [score.iou for score in table.scores] == [1, 1]
    assert report.debris[0].glaciers == 2


def test_table_of_sensors_loses_what_is_left_out() -> None:
    model, chips = small_model("fusion-unet"), [icy_chip()]
    rows = {row.name: row for row in sensor_table(model, chips)}
    assert list(rows)[:3] == ["all", "without optical", "without illumination"]
    assert rows["all"].lost == 0
    for name, row in rows.items():
        assert row.lost == pytest.approx(rows["all"].iou - row.iou), name
        assert row.pixels + row.unseen == 2 * 32 * 32
    blind = rows["(ice everywhere)"]
    assert blind.iou == pytest.approx(0.25)
    assert math.isnan(blind.ece)
    (both, _) = sensor_table(
        model, chips, PredictOptions(without=("optical",)), subsets={"S1": ("illumination", "terrain")}
    )
    assert both.iou == rows["radar alone"].iou


def test_pixels_that_a_subset_cannot_see_are_told() -> None:
    chip = icy_chip()
    variables = dict(chip.variables)
    for name in ("vv_db", "vh_db"):
        variables[name] = variables[name].copy()
        variables[name][:, :, :16] = np.nan
    chip = dataclasses.replace(chip, variables=variables)
    rows = {row.name: row for row in sensor_table(small_model("fusion-unet"), [chip])}
    assert rows["all"].unseen == 0
    assert rows["radar alone"].unseen == 2 * 32 * 16


def test_subsets_are_those_that_all_chips_have() -> None:
    whole = icy_chip()
    without_radar = {name: v for name, v in whole.variables.items() if not name.startswith("v")}
    found = common_subsets(small_model("fusion-unet"), [whole, icy_chip("b", variables=without_radar)])
    assert "without radar" not in found
    assert "without optical" in found
    assert all("radar" not in left for left in found.values())


def test_models_of_several_dates_are_also_shown_each_alone() -> None:
    model, chip = small_model("fusion-unet-time"), icy_chip()
    rows = {row.name: row for row in sensor_table(model, [chip], subsets=None)}
    alone = sensor_table(model, [chip], PredictOptions(alone=True))
    assert rows["each date alone"].iou == alone[0].iou
    assert "each date alone" not in {row.name for row in alone}
    report = evaluate_model(model, [chip], EvaluateOptions(sensors=True))
    assert {row.name for row in report.sensors} == set(rows)
    assert report.facts["dates"] == "with their neighbours"


def test_what_cannot_be_evaluated_is_refused() -> None:
    model = load_model("band-ratio")
    with pytest.raises(ConfigError, match="no chips"):
        evaluate_model(model, [])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        EvaluateOptions(threshold=1.5)
    with pytest.raises(ConfigError, match="margin"):
        EvaluateOptions(margin=-1)


def front_chip(size: int = 64, rows: tuple[int, int] = (30, 30), **other: object) -> Chip:
    """Ocean above glacier, seen as a dark and a bright half that meet some rows from the drawn front."""
    dates = len(rows)
    label = np.zeros((dates, size, size), np.uint8)
    red = np.full((dates, size, size), 0.1)
    for date, row in enumerate(rows):
        label[date, 30:], red[date, row:] = 1, 0.9
    variables = {"blue": red, "red": red, "swir16": np.full_like(red, 0.1)}
    labels = {"ocean": ("ocean",), "glacier": ("glacier",)}
    return make_chip(
        dates, size, variables=variables, label=label, labels=labels, weight=np.ones(label.shape, np.float32), **other
    )


def test_fronts_are_read_from_classes_and_labels_by_name() -> None:
    rule = load_model("band-ratio")
    named = dataclasses.replace(
        rule, contract=dataclasses.replace(rule.contract, classes=("ocean", "glacier"), architecture="band-ratio")
    )
    report = evaluate_model(named, [front_chip(rows=(30, 33)), front_chip(rows=(30, 64), name="all ocean")])
    assert report.fronts is not None
    # Off by 0 and 3 pixels of 20 m, right, and missing.
    assert (report.fronts.images, report.fronts.missing) == (4, 1)
    assert report.fronts.distance_m == pytest.approx(20.0)
    assert report.fronts.groups["glacier"]["all ocean"].missing == 1
    text = markdown(report.as_dict())
    assert "| all | 4 | 1 | 20.0 |" in text
    assert "| glacier: all ocean | 2 | 1 | 0.0 |" in text
    assert evaluate_model(rule, [front_chip()]).fronts is None
    lines = {"drawn": [[5, x] for x in range(64)]}
    (case,) = front_cases(named, [front_chip(rows=(30,), attributes=lines)])  # type: ignore[arg-type]
    assert (case.drawn[:, 0] == 5).all()


def test_fronts_between_given_sides_are_read_from_the_class_front_alone() -> None:
    rule = load_model("band-ratio")
    outputs = (Output("front_probability", ("front",)),)
    contract = dataclasses.replace(
        rule.contract, classes=("other", "front"), outputs=outputs, architecture="band-ratio"
    )
    named = dataclasses.replace(rule, contract=contract)
    chip = front_chip(rows=(30,), attributes={"drawn": [[30, x] for x in range(10, 50)]})  # type: ignore[arg-type]
    walls = np.zeros((2, 64, 64), bool)
    walls[0, :, 10] = walls[1, :, 49] = True
    (case,) = front_cases(named, [chip], sides=lambda _: (walls[0], walls[1]))
    assert case.between is not None
    assert (case.between[0, 1], case.between[-1, 1]) == (10, 49)
    assert case.sides is not None
    assert set(case.sides[:, 1]) == {10, 49}
    with pytest.raises(ModelError, match="no front from side to side"):
        front_cases(rule, [chip], sides=lambda _: (walls[0], walls[1]))


def test_command_scores_a_model_on_a_set(tmp_path: Path) -> None:
    def call(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, ["evaluate", "model", *map(str, arguments), "--out", str(tmp_path / "out")])

    far = icy_chip("b", centre=(11.0, 46.0))
    write_set([icy_chip("a", centre=(10.0, 46.0)), far], tmp_path / "set", {"train": [0], "test": [1]})
    done = call("band-ratio", tmp_path / "set", "--split", "test", "--sensors", "--find", "clean_ice", "--alone")
    assert done.exit_code == 0, done.output
    assert "2 images, 2,048 pixels: IoU 1.000, 1.000 with a pixel's tolerance" in done.stdout
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["title"] == "band-ratio on set, test"
    assert [row["name"] for row in content["sensors"]] == ["all", "(ice everywhere)"]
    assert content["facts"]["to be found"] == "clean_ice"
    for arguments, words in (
        (("band-ratio", tmp_path / "none"), str(tmp_path / "none")),
        (("band-ratio", tmp_path / "set", "--find", "moon"), "has no label moon"),
        (("band-ratio", tmp_path / "set", "--without", "radar"), "has no modality 'radar'"),
        (("no-model", tmp_path / "set"), "no-model"),
    ):
        refused = CliRunner().invoke(main, ["evaluate", "model", *map(str, arguments), "--out", str(tmp_path / "new")])
        assert refused.exit_code == 1
        assert words in refused.stderr
        assert not (tmp_path / "new").exists()
