"""`glaciercube train`: one file in, a model folder out that loads, says how it was made, and is scored by folds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from made_chips import made_chip
from small_models import small_contract

from glaciercube.cli import main
from glaciercube.config import SetConfig, parse_config
from glaciercube.errors import ConfigError, ModelError
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.registry import build_module, save_model
from glaciercube.trainconfig import TrainConfig
from glaciercube.training.exchange import write_set
from glaciercube.training.job import NetworkOptions
from glaciercube.training.kept import KeptChips
from glaciercube.training.network import begin

CONTRACT = small_contract("fusion-unet")
NETWORK = {
    "architecture": "fusion-unet",
    "parameters": {"widths": [4, 8]},
    "modalities": ["optical", "radar"],
}


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "set"
    # Two places, some hundred kilometres from each other, with two chips each.
    made = [made_chip(CONTRACT, number, size=24, dates=1) for number in range(4)]
    made = [replace(chip, place=f"p{i // 2}", centre=(5.0 + 3 * (i // 2), 46.0)) for i, chip in enumerate(made)]
    write_set(made, folder)
    return folder


def run(folder: Path, job: dict[str, Any], *arguments: str) -> Any:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(job))
    torch.set_num_threads(1)
    return CliRunner().invoke(main, ["train", str(path), "--quiet", *arguments], catch_exceptions=False)


def test_every_fold_is_trained_scored_and_written(tmp_path: Path, chips: Path) -> None:
    job = {
        "out": str(tmp_path / "model"),
        "network": NETWORK,
        "samples": {"sets": [str(chips)]},
        "folds": {"kind": "places", "validation": False},
        "fold": "all",
        "find": ["ice"],
        "fit": {"steps": 3, "batch": 2, "size": 16, "validate": 2},
        "calibrate": {"without": [[], ["radar"]], "sets": [str(chips)]},
    }
    result = run(tmp_path, job)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "model" / "cross-validation.json").read_text())
    assert len(table["folds"]) == 2
    assert len({fold["fold"] for fold in table["folds"]}) == 2
    first = tmp_path / "model" / table["folds"][0]["folder"]
    model = load_model(first)
    metrics = json.loads((first / "metrics.json").read_text())
    assert metrics["chips"] == {"train": 2, "validation": 0}
    assert metrics["calibration"]["places"] == 2
    assert model.contract.parameters["temperature"] != 1.0
    # The samples' own statistics, of a made radar that is not the package's.
    assert model.contract.modality("radar").mean != CONTRACT.modality("radar").mean
    card = (first / "README.md").read_text()
    for needed in ("expected calibration error", "reliability.png", "without radar", model.hash, "Parted by geography"):
        assert needed in card, needed
    picture = next(first.glob("scores/*/reliability.png"))
    assert picture.stat().st_size > 1000


def test_a_set_brings_its_own_parts(tmp_path: Path) -> None:
    made = [replace(made_chip(CONTRACT, number, size=24, dates=1), place=f"p{number}") for number in range(4)]
    write_set(made, tmp_path / "set", splits={"train": (0, 1), "validation": (2,), "test": (3,)})
    job = {
        "out": str(tmp_path / "model"),
        "network": NETWORK,
        "samples": {"sets": [str(tmp_path / "set")]},
        "find": ["ice"],
        "fit": {"steps": 2, "batch": 2, "size": 16, "validate": 1},
        "calibrate": None,
    }
    result = run(tmp_path, job)
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["chips"] == {"train": 2, "validation": 1}
    assert metrics["tests"]["set"]["facts"]["chips"] == "1 of 1 places"
    assert "images" not in metrics["tests"]["set"]["overlap"]  # the report has them
    assert "glaciers" in json.loads((tmp_path / "model" / "scores" / "set" / "report.json").read_text())
    samples = parse_config((tmp_path / "train.yaml").read_text(), "train.yaml", SetConfig)
    assert samples.samples.sets == (str(tmp_path / "set"),)


def test_weights_are_taken_over_and_a_training_goes_on(tmp_path: Path, chips: Path) -> None:
    torch.manual_seed(5)
    base = tmp_path / "base"
    save_model(Model.from_module(CONTRACT, build_module(CONTRACT)), base)
    job = {
        "network": {"weights": str(base), "name": "tuned", "version": "3"},
        "samples": {"sets": [str(chips)]},
        "calibrate": None,
        "fit": {"steps": 4, "batch": 2, "size": 16, "rate": 1e-12, "decay": 0.0, "every": 2},
    }
    assert run(tmp_path, job, "--out", str(tmp_path / "model")).exit_code == 0
    tuned, begun = load_model(tmp_path / "model"), load_model(base)
    assert (tuned.contract.name, tuned.contract.version) == ("tuned", "3")
    for name, value in begun.module.named_parameters():
        torch.testing.assert_close(dict(tuned.module.named_parameters())[name], value, rtol=0, atol=1e-6)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "not scored" in card
    log = tmp_path / "model.training" / "log.csv"
    before = log.read_text()
    assert run(tmp_path, job, "--out", str(tmp_path / "model")).exit_code == 0
    assert log.read_text() == before, "nothing was left to do"
    assert load_model(tmp_path / "model").hash == tuned.hash


def test_another_architecture_begins_with_the_layers_that_it_shares(tmp_path: Path) -> None:
    base = Model.from_module(CONTRACT, build_module(CONTRACT))
    save_model(base, tmp_path)
    options = NetworkOptions(architecture="fusion-unet-time", weights=str(tmp_path), parameters={"attention_heads": 2})
    contract, module = begin(options, [made_chip(CONTRACT, 0)], seed=1)
    assert contract.time_context is not None
    assert contract.modalities == CONTRACT.modalities
    own = module.state_dict()
    assert all(torch.equal(own[name], value) for name, value in base.module.state_dict().items())
    with pytest.raises(ModelError, match="shares no layer"):
        begin(NetworkOptions(architecture="segformer", weights=str(tmp_path)), [], seed=1)


def test_wrong_configurations_name_the_line_and_the_remedy() -> None:
    def refused(text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            parse_config(text, "train.yaml", TrainConfig)
        return str(caught.value)

    assert "nothing to train on" in refused("out: x\n")
    assert "line 3" in refused("out: x\nsamples: {sets: [a]}\nfit: {stepz: 3}\n")
    assert "did you mean steps" in refused("samples: {sets: [a]}\nfit: {stepz: 3}\n")
    assert "steps 0" in refused("samples: {sets: [a]}\nfit: {steps: 0}\n")
    assert "more than one source" in refused("samples: {sets: [a], simulated: {seeds: [0, 3]}}\n")
    assert "give the first one and the one after" in refused("samples: {simulated: {seeds: [3, 3]}}\n")
    assert "no folds" in refused("samples: {sets: [a]}\nfold: 2\n")
    assert "test 'far' has no source" in refused("samples: {sets: [a]}\ntest: {far: {}}\n")


def test_errors_of_a_training_end_in_a_sentence(tmp_path: Path, chips: Path) -> None:
    job = {"out": str(tmp_path / "m"), "network": {"architecture": "glavito"}, "samples": {"sets": [str(chips)]}}
    result = run(tmp_path, job)
    assert result.exit_code == 1
    assert "did you mean 'glavitu'" in result.output
    result = run(tmp_path, {**job, "network": NETWORK, "folds": {"kind": "places", "validation": False}, "fold": 9})
    assert result.exit_code == 1
    assert "there is no fold 9" in result.output


def test_chips_are_read_once() -> None:
    read: list[int] = []

    class Counted(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    chips = Counted([made_chip(CONTRACT, number, size=16) for number in range(3)])
    kept = KeptChips(chips, memory=1e9)
    assert [kept[i].name for i in (0, 1, 0, 1, -3)] == [f"made {i}" for i in (0, 1, 0, 1, 0)]
    assert read == [0, 1]
    assert kept[0].variables["red"].dtype == np.float16
    none = KeptChips(chips, memory=0)
    assert none[2].name == none[2].name == "made 2"
    assert read == [0, 1, 2, 2]
