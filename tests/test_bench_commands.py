"""Commands that measure: each says what it takes without doing it, and what is wrong in a sentence."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import glaciercube.bench
from glaciercube.bench.real_sets import FOLDER
from glaciercube.errors import ConfigError

ROOMS = {
    module.name: importlib.import_module(f"glaciercube.bench.{module.name}")
    for module in pkgutil.iter_modules(glaciercube.bench.__path__)
}
COMMANDS = {name: room.main for name, room in ROOMS.items() if hasattr(room, "main")} | {
    name: importlib.import_module(f"glaciercube.training.{name}").main for name in ("calibrate_area", "coverage")
}
# What each is given so that it refuses: arguments, and what is made to refuse where no argument can be wrong.
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "ablations": (("--question", "none", "--out", "{}"), ""),
    "calibrate_area": (("--cache", "{}", "--out", "{}/a.json", "--model", "none"), ""),
    "corrections": (("--out", "{}"), "simulated_chips"),
    "coverage": (("--cache", "{}", "--model", "none"), ""),
    "fronts": (("--data", "{}/none", "--out", "{}"), ""),
    "memory": (("flat", "{}", "4"), "flat"),
    "planning": (("9", "--here"), "measure"),
    "priors": (("--options", '{{"no": 1}}', "--folder", "{}"), ""),
    "real_intervals": (("--data", "{}"), ""),
    "retreat": (("--model", "none", "--out", "{}"), ""),
    "shifts": (("{}/none",), ""),
    "table": (("--data", "{}/none", "--out", "{}"), ""),
    "training": (("--steps", "1"), "measure"),
    "uncertainty": (("--cache", "{}", "--model", "none"), ""),
    "units": (("threads", "1"), "measure"),
}


def refuse(*_: Any, **__: Any) -> Any:
    raise ConfigError("nothing is measured", "ask for something else")


def test_every_command_is_tried() -> None:
    assert set(COMMANDS) == set(REFUSED)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_measures_nothing(name: str) -> None:
    assert isinstance(COMMANDS[name], click.Command)
    done = CliRunner().invoke(COMMANDS[name], ["--help"])
    assert done.exit_code == 0
    assert done.stdout.startswith("Usage:")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_in_a_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, refusing = REFUSED[name]
    if refusing:
        monkeypatch.setattr(ROOMS[name], refusing, refuse)
    done = CliRunner().invoke(COMMANDS[name], [text.format(tmp_path) for text in arguments])
    assert done.exit_code == 1, done.output
    said = done.stderr.splitlines()[-1]
    assert said.startswith("glaciercube: ")
    assert ": " in said.removeprefix("glaciercube: ")
    assert "Traceback" not in done.stderr


def test_sets_that_are_made_need_no_folder_of_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    chosen = ["--out", str(tmp_path), "--kept", "--sets"]
    done = CliRunner().invoke(COMMANDS["table"], [*chosen, "physics,ablations"])
    assert done.exit_code == 0, done.output
    assert "What dates and sensors add" in done.stdout
    assert CliRunner().invoke(COMMANDS["table"], [*chosen, "physics,spectra"]).exit_code == 1
    wrong = CliRunner().invoke(COMMANDS["table"], [*chosen, "phisics"])
    assert (wrong.exit_code, "phisics" in wrong.stderr) == (1, True)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("target", ["real", "benchmark"])
def test_make_asks_for_the_folder_of_real_data_before_it_installs_anything(target: str, tmp_path: Path) -> None:
    command = ["make", target, f"REAL={tmp_path / 'none'}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, check=False, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"no real data are at {tmp_path / 'none'}: give their folder, REAL=folder" in done.stderr
    assert not (tmp_path / "venv").exists()
