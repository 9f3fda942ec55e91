"""The calving fronts of the benchmark: chips, training, rows."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from test_bench_keeping import killed_halfway

from glaciercube.bench import front_cells
from glaciercube.bench.front_cells import cells_of
from glaciercube.bench.front_entrants import ENTRANTS
from glaciercube.bench.front_set import TRAIN, drawn_front, fjord_sides, front_chips, sides_of, stretched
from glaciercube.bench.front_training import Recipe, train
from glaciercube.bench.fronts import main, section
from glaciercube.bench.scoring import seconds_per_megapixel
from glaciercube.errors import ConfigError
from glaciercube.evaluation.predict import predict_chip
from glaciercube.models.architectures.front_unet import FrontUNet
from glaciercube.models.base import Model
from glaciercube.models.classes import SIDES
from glaciercube.models.registry import load_model

NAMES = {
    "train": ("LE07_L1TP_230012_20000529_20170211_01_T1_B8", "LT05_L1TP_020007_19850529_20170219_01_T1_B2"),
    "test": ("LC08_L1TP_233013_20140821_20170420_01_T1_B8",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three made chips: a bright glacier below row 60 + 20 sin(x / 15), drawn from column 20 to 120."""
    from PIL import Image

    root = tmp_path_factory.mktemp("fronts")
    rng = np.random.default_rng(0)
    for part, names in NAMES.items():
        for name in names:
            places = {
                kind: root / "calving_fronts/greenland_training.dir/data" / part / kind for kind in ("images", "labels")
            }
            for place in places.values():
                place.mkdir(parents=True, exist_ok=True)
            y, x = np.mgrid[:160, :128]
            row = 60 + 20 * np.sin(x / 15)
            grey = np.clip(np.where(y > row, 170, 60) + rng.normal(0, 8, y.shape), 1, 255).astype(np.uint8)
            Image.fromarray(np.stack([grey] * 3 + [np.full_like(grey, 255)], axis=-1)).save(
                places["images"] / f"{name}_Subset.png"
            )
            drawn = (np.abs(y - row) < 2.0) & (x >= 20) & (x <= 120)
            Image.fromarray(np.where(drawn, 0, 255).astype(np.uint8)).convert("RGB").save(
                places["labels"] / f"{name}_Front.png"
            )
    return root


def test_chips_hold_the_front_and_its_sides(folder: Path) -> None:
    chips = front_chips(folder)
    assert [chip.place for chip in chips] == ["Kangerlussuaq", "Sverdrup"]
    assert set(TRAIN).isdisjoint(chip.place for chip in front_chips(folder, "test"))
    chip = chips[0]
    assert dict(chip.attributes, drawn=None) == {
        "glacier": "Kangerlussuaq",
        "sensor": "LE07 B8",
        "season": "spring",
        "resolution": "49 m",
        "drawn": None,
    }
    line = np.array(chip.attributes["drawn"])
    assert abs(line[0, 1] - 20) <= 2
    assert abs(line[-1, 1] - 120) <= 2
    assert np.abs(line[:, 0] - (60 + 20 * np.sin(line[:, 1] / 15))).max() < 2.5
    label = chip.label[0]
    assert tuple(chip.labels) == SIDES
    assert (label[0] == SIDES.index("seaward")).all()
    assert (label[-1] == SIDES.index("inland")).all()
    assert set(np.unique(label[tuple(line.T)])) == {SIDES.index("front")}
    with pytest.raises(ConfigError, match="unpack"):
        front_chips(folder / "elsewhere")


def test_a_front_that_turns_back_parts_its_sides() -> None:
    # Up along the left side of the fjord, across, and up a little again.
    line = np.array(
        [*((r, 5) for r in range(8, 20)), *((20, c) for c in range(5, 25)), *((r, 25) for r in range(19, 14, -1))]
    )
    sides = sides_of(line, (30, 30))
    assert sides[10, 10] == 0
    assert sides[10, 2] == 2
    assert sides[7, 2] == 0
    assert sides[25, 15] == 2
    thick = np.zeros((30, 30), bool)
    for row, column in line:
        thick[row - 1 : row + 2, column - 1 : column + 2] = True
    found = drawn_front(thick)
    assert max(np.abs(found - point).max(axis=1).min() for point in line) <= 1


def test_brightness_does_not_depend_on_exposure() -> None:
    grey = np.random.default_rng(0).uniform(20, 200, (40, 40)).astype(np.float32)
    np.testing.assert_allclose(stretched(grey), stretched(grey * 0.5 + 10), atol=1e-5)
    assert np.quantile(stretched(grey), [0.02, 0.98]) == pytest.approx([0.0, 1.0], abs=1e-5)


def test_the_sides_of_a_fjord_are_where_the_drawn_front_ends(folder: Path) -> None:
    chip = front_chips(folder)[0]
    drawn = np.array(chip.attributes["drawn"])
    for side, column in zip(fjord_sides(chip), (drawn[0, 1], drawn[-1, 1]), strict=True):
        assert side.shape == chip.label.shape[1:]
        assert set(np.argwhere(side)[:, 1]) == {column}
        assert side.sum() == len(side)


def small_training(folder: Path, steps: int) -> tuple[list[float], np.ndarray]:
    chips = front_chips(folder)
    usual = ENTRANTS[0].contract()
    contract = dataclasses.replace(usual, parameters={"widths": (8, 8, 16), "dropout": 0.0}, stride=8)
    recipe = Recipe(seconds=1e6, steps=steps, warm=2, batch=2, size=(96, 96), average=5.0, rate=1e-2)
    torch.manual_seed(0)
    losses: list[float] = []
    trained = train(FrontUNet(contract), contract, chips, recipe, lambda _, loss: losses.append(loss))
    assert trained.steps == steps == len(losses)
    return losses, predict_chip(Model.from_module(contract, trained.module), chips[0], classes=("front",))[0]


def test_training_learns_where_the_front_is(folder: Path) -> None:
    losses, probability = small_training(folder, 25)
    assert np.mean(losses[-5:]) < 0.9 * losses[0]
    on = front_chips(folder)[0].label[0] == SIDES.index("front")
    assert probability[on].mean() > 2 * probability[~on].mean()


def test_training_repeats_itself(folder: Path) -> None:
    (first, before), (second, after) = (small_training(folder, 3) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(before, after)


def test_rows_are_made_once_and_models_are_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_cells, "seconds_per_megapixel", partial(seconds_per_megapixel, side=128, repeats=1))
    first = section(folder, tmp_path, seconds=1.0, quick=True, models=("front-unet",))
    cell = first.record["cells"][0]
    assert [re.sub(r" \(\d+ s\)$", "", row[0]) for row in first.rows] == [
        "front-unet",
        "front-unet, one training, seen once",
        "U-Net of Mohajerani et al. (2019)",
        "second hand, Mohajerani et al. (2019)",
    ]
    assert all(len(row) == len(first.columns) for row in first.rows)
    assert cell["seconds_per_megapixel"] > 3 * cell["once"]["seconds_per_megapixel"]  # of six views
    assert cell["steps"] == 1
    assert list(cell["fronts"]) == ["LC08_233013_20140821"]  # of the test folder alone
    (kept,) = [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "trainings"]
    model = load_model(kept)  # what was scored: all views
    assert (model.contract.classes, model.contract.architecture) == (SIDES, "views")
    again = section(folder, tmp_path, seconds=1.0, quick=True, models=("front-unet",))
    assert again.record["cells"][0]["seconds"] == cell["seconds"]
    monkeypatch.setattr(front_cells, "seconds_per_megapixel", lambda _: 0.0)
    next(tmp_path.glob("*.json")).unlink()  # scored anew, and not trained anew
    anew = section(folder, tmp_path, seconds=1.0, quick=True, models=("front-unet",)).record["cells"][0]
    assert (anew["seconds"], anew["fronts"]) == (cell["seconds"], cell["fronts"])
    assert not section(None, tmp_path, seconds=1.0).record["cells"]


def test_command_trains_and_scores_what_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--data", str(folder), "--out", str(tmp_path), *arguments])

    wrong = call("--models", "front-unet,other")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "the benchmark has no front model 'other': choose among front-unet, plain-unet" in wrong.stderr
    monkeypatch.setattr(front_cells, "seconds_per_megapixel", lambda _: 1.0)
    chosen = ("--models", "front-unet", "--steps", "1", "--leave", "Sverdrup")
    assert call(*chosen, "--train-only").exit_code == 0
    (training,) = (tmp_path / "trainings").iterdir()
    before = training.stat().st_mtime_ns
    done = call(*chosen)
    assert done.exit_code == 0, done.output
    assert done.stdout == (tmp_path / "fronts-Sverdrup.md").read_text(encoding="utf-8")
    assert "## Calving fronts: Sverdrup (left out)" in done.stdout
    assert training.stat().st_mtime_ns == before


def test_a_score_that_is_killed_while_it_is_written_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_cells, "run_entrant", lambda *_, **__: (None, {"model": "front-unet"}))
    monkeypatch.setattr(front_cells, "save_model", lambda *_: None)
    recipe = Recipe(seconds=1.0, steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed_halfway)
        with pytest.raises(KeyboardInterrupt):
            cells_of(folder, tmp_path, recipe, models=("front-unet",))
    assert cells_of(folder, tmp_path, recipe, models=("front-unet",)) == [{"model": "front-unet"}]
