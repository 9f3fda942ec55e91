"""Every architecture is fitted by one function, which resumes, stops early, and deals samples out among processes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import training_runs
from made_chips import made_chip
from safetensors.torch import load_file
from small_models import SMALL, small_contract

from glaciercube.bench.training import measure
from glaciercube.errors import ConfigError, ModelError
from glaciercube.models.base import GlacierModule
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.registry import build_module
from glaciercube.training.fit import fit
from glaciercube.training.options import FitOptions, Jitter, Sensors
from glaciercube.training.statistics import fitted_contract

WHOLE = Sensors(whole=1.0)
CONTRACT = small_contract("fusion-unet")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny convolutions lose more to threads that wait for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def started(*arguments: str | Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, training_runs.__file__, *map(str, arguments)], env=environment)


def fitted(
    options: FitOptions,
    *,
    checkpoint: Path | None = None,
    log: Path | None = None,
    validation: list[Chip] | None = None,
) -> GlacierModule:
    torch.manual_seed(0)
    chips = [made_chip(CONTRACT, number) for number in range(4)]
    return fit(
        build_module(CONTRACT),
        CONTRACT,
        chips,
        options,
        validation=validation,
        checkpoint=checkpoint,
        log=log,
        progress=False,
    )


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def same(a: GlacierModule, b: GlacierModule) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_learns(name: str, tmp_path: Path) -> None:
    contract = small_contract(name)
    chips = [made_chip(contract, number) for number in range(4)]
    options = FitOptions(steps=20, batch=3, size=32, rate=1e-2, targets=2, sensors=WHOLE, jitter=Jitter(gain=0))
    torch.manual_seed(0)
    before = build_module(contract).state_dict()
    torch.manual_seed(0)
    module = fit(build_module(contract), contract, chips, options, log=tmp_path, device="cpu", progress=False)
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.97 * losses[0], losses
    changed = [n for n, v in module.state_dict().items() if v.is_floating_point() and not torch.equal(v, before[n])]
    weights = [n for n, _ in module.named_parameters()]
    assert set(weights) <= set(changed), set(weights) - set(changed)


def test_a_killed_fit_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    checkpoint = killed / "fit.safetensors"
    process = started("dropping", killed)
    deadline = time.monotonic() + 200
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was to be killed before its end"
    torch.manual_seed(0)
    expected = training_runs.dropping(whole)
    torch.manual_seed(0)
    found = training_runs.dropping(killed)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert [row["loss"] for row in rows(whole)] == [row["loss"] for row in rows(killed)]
    torch.manual_seed(1)
    with pytest.raises(ModelError, match="it differs in starting weights"):
        training_runs.dropping(killed)


def test_two_processes_fit_as_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    alone = training_runs.sharing(tmp_path / "alone", 0, 1)
    process = started("sharing", tmp_path / "second", "1", "2")
    torch.manual_seed(0)
    shared = training_runs.sharing(tmp_path / "first", 0, 2)
    assert process.wait(timeout=200) == 0
    one, two = ([float(row["loss"]) for row in rows(tmp_path / name)] for name in ("alone", "first"))
    np.testing.assert_allclose(two, one, rtol=2e-4)
    second = load_file(tmp_path / "second" / "weights.safetensors")
    for name, value in alone.items():
        torch.testing.assert_close(shared[name], value, rtol=1e-2, atol=1e-4)
        assert torch.equal(second[name], shared[name])


def test_a_fit_that_gets_no_better_ends_with_its_best_weights(tmp_path: Path) -> None:
    wrong = [made_chip(CONTRACT, number) for number in range(2)]
    wrong = [replace(chip, label=np.where(chip.label < 2, 1 - chip.label, chip.label)) for chip in wrong]
    options = FitOptions(steps=40, batch=2, size=16, rate=2e-2, validate=4, patience=2, sensors=WHOLE, average=0.5)
    module = fitted(options, log=tmp_path, validation=wrong)
    table = rows(tmp_path)
    scores = {int(row["step"]): float(row["validation"]) for row in table if row["validation"]}
    best = min(scores, key=lambda step: scores[step])
    # What is learned is wrong there: the sooner, the better.
    assert best < 32
    assert int(table[-1]["step"]) == best + 8
    again = fitted(replace(options, patience=None, validate=best), log=tmp_path / "again", validation=wrong)
    assert same(again, module)


def test_a_budget_of_processor_time_ends_a_fit(tmp_path: Path) -> None:
    began = time.process_time()
    fitted(FitOptions(steps=100_000, seconds=0.5, batch=2, size=16), log=tmp_path)
    last = rows(tmp_path)[-1]
    assert 0.5 <= float(last["seconds"]) <= time.process_time() - began
    assert int(last["step"]) < 100_000
    assert float(last["rate"]) < 0.3 * max(float(row["rate"]) for row in rows(tmp_path))


def test_batches_made_ahead_are_the_same() -> None:
    options = FitOptions(steps=6, batch=2, size=16)
    assert same(fitted(options), fitted(replace(options, workers=2)))


def test_chips_without_what_a_model_needs_are_refused() -> None:
    contract = small_contract("hed-unet")
    chip = made_chip(small_contract("unet-resnet"), 0)
    with pytest.raises(ModelError, match="none of the inputs"):
        fit(build_module(contract), contract, [chip], FitOptions(steps=1, size=16), progress=False)
    with pytest.raises(ModelError, match="no chips"):
        fit(build_module(contract), contract, [], FitOptions(steps=1), progress=False)


@pytest.mark.parametrize("steps", [3, 30])
@pytest.mark.parametrize("lacking", ["weight", "label", "values", "classes"])
def test_chips_that_teach_nothing_are_refused(lacking: str, steps: int, tmp_path: Path) -> None:
    chip = made_chip(CONTRACT, 0, size=24)
    either = {"ground": CONTRACT.classes, "ice": CONTRACT.classes}
    taught_nothing = {
        "weight": replace(chip, weight=np.zeros_like(chip.weight)),
        "label": replace(chip, label=np.full_like(chip.label, UNKNOWN)),
        "values": replace(chip, variables={name: np.full_like(v, np.nan) for name, v in chip.variables.items()}),
        "classes": replace(chip, labels=either),
    }[lacking]
    checkpoint = tmp_path / "fit.safetensors"

    def fitted(chips: list[Chip]) -> None:
        options = FitOptions(steps=steps, batch=1, size=16, every=4, sensors=WHOLE)
        torch.manual_seed(0)
        fit(build_module(CONTRACT), CONTRACT, chips, options, checkpoint=checkpoint, progress=False)

    said = "say nothing of the classes" if lacking == "classes" else f"of the first {min(steps, 10)} batches teaches"
    for _ in range(2):  # and when it is begun again
        with pytest.raises(ModelError, match=said):
            fitted([taught_nothing])
    if checkpoint.is_file():
        assert steps > 4
        checkpoint.unlink()
    fitted([chip])


def test_a_contract_takes_the_statistics_of_its_samples() -> None:
    contract = small_contract("glaciernet")
    chips = [made_chip(contract, number) for number in range(6)]
    found = fitted_contract(contract, chips)
    optical, terrain = found.modality("optical"), found.modality("terrain")
    values = np.concatenate([chip.variables["swir16"].ravel() for chip in chips]).astype(float)
    place = optical.variables.index("swir16")
    assert optical.mean[place] == pytest.approx(values.mean(), rel=1e-3)
    assert optical.std[place] == pytest.approx(values.std(), rel=1e-3)
    assert terrain.mean[terrain.variables.index("aspect_sin")] == 0
    assert fitted_contract(CONTRACT, chips).modality("optical") == CONTRACT.modality("optical")


def test_speed_is_told_of_steps_that_were_taken() -> None:
    options = FitOptions(batch=2, size=16, dates=2)
    found = measure(small_contract("fusion-unet-time"), options, steps=2, chips=2, device=torch.device("cpu"))
    assert (found.batch, found.size, found.dates, found.clock) == (2, 16, 2, "processor")
    assert min(found.fed, found.held, found.made) > 0
    assert found.share == found.fed / found.held


def test_events_without_tensorboard_are_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"glaciercube\[tensorboard\]"):
        fitted(FitOptions(steps=1, batch=1, size=16, tensorboard=True), log=tmp_path)


def test_events_for_tensorboard_have_the_rows_of_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fitted(FitOptions(steps=3, batch=1, size=16, tensorboard=True), log=tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text("utf-8").splitlines()))
    for name in events.Tags()["scalars"]:
        column = name.rpartition("/")[2]
        told = {one.step: one.value for one in events.Scalars(name)}
        assert told == {int(row["step"]): pytest.approx(float(row[column]), rel=1e-5) for row in rows if row[column]}
    assert events.Tags()["scalars"]
