"""`make train`: the shipped models are trained outside of the package, again each time, and go on after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WEIGHTS = Path("glaciercube/models/weights")
# In the place of the command: what is done is not done again, and a kill leaves a checkpoint.
COMMAND = """#!/bin/sh
out=$4; name=$(basename "$out")
mkdir -p "$out" "$out.training"
test -f "$out.training/fit" || echo "$name of $(cat glaciercube/models/weights/fusion-unet/model.json)" >> trained
touch "$out.training/fit"
test "$name" = "$KILLED" && exit 137
echo "new $name" > "$out/model.json"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("fusion-unet", "fusion-unet-time"):
        (tmp_path / WEIGHTS / name).mkdir(parents=True)
        (tmp_path / WEIGHTS / name / "model.json").write_text("old\n")
        (tmp_path / WEIGHTS / name / "stale").touch()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    command = tmp_path / "venv" / "bin" / "glaciercube"
    command.write_text(COMMAND)
    command.chmod(0o755)
    for name in (".created", ".runs"):
        (tmp_path / "venv" / name).touch()
    return tmp_path


def train(place: Path, killed: str = "") -> int:
    command = [str(shutil.which("make")), "--silent", "train", "VENV=venv"]
    done = subprocess.run(command, cwd=place, env={**os.environ, "KILLED": killed}, capture_output=True, check=False)
    return done.returncode


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_shipped_models_are_trained_beside_the_package_and_again(place: Path) -> None:
    assert train(place, killed="fusion-unet-time") != 0
    assert (place / WEIGHTS / "fusion-unet-time" / "model.json").read_text() == "old\n"
    assert train(place) == 0
    one = ["fusion-unet of old", "fusion-unet-time of new fusion-unet"]
    assert (place / "trained").read_text().splitlines() == one
    assert train(place) == 0
    assert (place / "trained").read_text().splitlines() == [*one, "fusion-unet of new fusion-unet", one[1]]
    assert sorted(str(path.relative_to(place / WEIGHTS)) for path in (place / WEIGHTS).rglob("*")) == [
        "fusion-unet",
        "fusion-unet-time",
        "fusion-unet-time/model.json",
        "fusion-unet/model.json",
    ]


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="needs the repository")
def test_checkpoints_within_the_package_are_not_of_it() -> None:
    path = WEIGHTS / "fusion-unet.training" / "fit.safetensors"
    command = [str(shutil.which("git")), "check-ignore", "-q", str(path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
