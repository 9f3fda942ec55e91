"""A fit goes on from its own checkpoint and from no other: chips, weights and options are told from each other."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_chips import made_chip
from small_models import small_contract
from test_samples import SMALL, Tally, drawn, inventory, make_cube
from test_training_command import NETWORK, run

from glaciercube.errors import ModelError
from glaciercube.models.chips import Chip
from glaciercube.models.registry import build_module
from glaciercube.training.exchange import read_set, write_set
from glaciercube.training.fingerprint import chips_hash
from glaciercube.training.fit import fit
from glaciercube.training.kept import KeptChips
from glaciercube.training.options import FitOptions
from glaciercube.training.sampling import SampleOptions, sample_chips
from glaciercube.training.truth import TruthOptions

CONTRACT = small_contract("fusion-unet")
CHIPS = [made_chip(CONTRACT, number, size=24, dates=1) for number in range(4)]
OPTIONS = FitOptions(steps=2, batch=2, size=16)


def fitted(
    checkpoint: Path,
    chips: Sequence[Chip] = CHIPS,
    options: FitOptions = OPTIONS,
    validation: Sequence[Chip] = CHIPS[:1],
    seed: int = 0,
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    module = build_module(CONTRACT)
    fit(module, CONTRACT, chips, options, validation=validation, checkpoint=checkpoint, progress=False)


def test_a_checkpoint_of_another_fit_is_refused_by_what_differs(tmp_path: Path) -> None:
    checkpoint = tmp_path / "fit.safetensors"
    fitted(checkpoint)
    fitted(checkpoint, options=replace(OPTIONS, every=1, workers=1))
    fitted(checkpoint, [replace(chip, variables=dict(reversed(list(chip.variables.items())))) for chip in CHIPS])
    other = [*CHIPS[:3], made_chip(CONTRACT, 9, size=24, dates=1)]
    weight = [*CHIPS[:3], replace(CHIPS[3], weight=np.full_like(CHIPS[3].weight, 0.5))]
    labels = [*CHIPS[:3], replace(CHIPS[3], labels={"ground": ("water",), "ice": ("clean_ice",)})]
    for chips in (other, weight, labels, CHIPS[::-1]):
        with pytest.raises(ModelError, match=r"it differs in training chips: .*\(out\), or delete"):
            fitted(checkpoint, chips)
    with pytest.raises(ModelError, match="it differs in validation chips: "):
        fitted(checkpoint, validation=CHIPS[1:2])
    with pytest.raises(ModelError, match="it differs in starting weights: "):
        fitted(checkpoint, seed=1)
    with pytest.raises(ModelError, match="it differs in option rate, option sensors: "):
        fitted(checkpoint, options=replace(OPTIONS, rate=1e-4, sensors=replace(OPTIONS.sensors, whole=0.5)))


def test_samples_of_a_cube_are_told_apart_without_reading_it() -> None:
    tally = Tally()
    chips = sample_chips(make_cube(tally), inventory(), SampleOptions(windows=SMALL))
    found = chips_hash(KeptChips(chips))
    assert found == chips_hash(drawn())
    assert not tally.blocks
    outlines = inventory()
    moved = outlines.set_geometry(outlines.geometry.translate(5.0))
    later = inventory(src_date="2017-08-01")
    debris = outlines[:1].set_geometry(outlines[:1].geometry.buffer(-200.0))
    others = [
        drawn(truth=TruthOptions(boundary_weight=0.25)),
        drawn(hidden=0.5),
        drawn(dates=None),
        drawn().take(range(1, len(chips))),
        sample_chips(make_cube(), moved, SampleOptions(windows=SMALL)),
        sample_chips(make_cube(), later, SampleOptions(windows=SMALL)),
        sample_chips(make_cube(), inventory(), SampleOptions(windows=SMALL), debris=debris),
        sample_chips(make_cube().assign_attrs(reflectance="toa"), inventory(), SampleOptions(windows=SMALL)),
    ]
    assert len({found, *map(chips_hash, others)}) == 1 + len(others)


def test_stored_chips_are_told_apart_without_reading_them(tmp_path: Path) -> None:
    write_set(CHIPS, tmp_path / "one")
    write_set([*CHIPS[:3], replace(CHIPS[3], weight=np.zeros_like(CHIPS[3].weight))], tmp_path / "other")
    for name in ("one", "other"):
        shutil.rmtree(tmp_path / name / "chips.zarr")
    one, other = read_set(tmp_path / "one"), read_set(tmp_path / "other")
    assert chips_hash(KeptChips(one)) == chips_hash(one) != chips_hash(other)
    assert chips_hash(one[:3]) == chips_hash(other[:3])


def test_a_training_does_not_go_on_with_another_set_or_fold(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 4)):
        made = [made_chip(CONTRACT, number, size=24, dates=1) for number in range(first, first + 4)]
        made = [replace(chip, place=f"p{i // 2}", centre=(5.0 + 3 * (i // 2), 46.0)) for i, chip in enumerate(made)]
        write_set(made, tmp_path / name)
    job = {
        "out": str(tmp_path / "model"),
        "network": {**NETWORK, "normalise": False},
        "samples": {"sets": [str(tmp_path / "a")]},
        "folds": {"kind": "places", "validation": False},
        "find": ["ice"],
        "fit": {"steps": 2, "batch": 2, "size": 16},
        "calibrate": None,
    }
    assert run(tmp_path, job).exit_code == 0
    another = {**job, "samples": {"sets": [str(tmp_path / "b")]}}
    for refused in (run(tmp_path, job, "--fold", "2"), run(tmp_path, another)):
        assert refused.exit_code == 1
        assert "it differs in training chips" in refused.output
