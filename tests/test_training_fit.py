"""Every architecture is fitted by one function, which resumes, stops early, and deals samples out among processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SMALL, small_contract

from glaciercube.models.base import Model
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.contract import Contract
from glaciercube.models.registry import build_module
from glaciercube.training.fit import fit
from glaciercube.training.options import FitOptions, Sensors

WHOLE = Sensors(whole=1.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny convolutions lose more to threads that wait for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_chip(contract: Contract, number: int, *, size: int = 40, dates: int = 3) -> Chip:
    """Blobs of two labels that every variable shows, with clouds of noise."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:size, 0:size]
    ice = np.hypot(y - rng.uniform(0, size), x - rng.uniform(0, size)) < size / 2
    variables: dict[str, np.ndarray] = {}
    for modality in contract.modalities:
        for name, mean, std in zip(modality.variables, modality.mean, modality.std, strict=True):
            shape = (size, size) if modality.static else (dates, size, size)
            shown = mean + std * np.where(ice, 1.0, -1.0) * (0.2 if modality.name == "optical" else 1.0)
            variables[name] = (shown + 0.1 * std * rng.standard_normal(shape)).astype(np.float16)
    label = np.broadcast_to(ice.astype(np.uint8), (dates, size, size)).copy()
    label[:, :2] = UNKNOWN
    ground, glacier = ("land", "glacier") if "land" in contract.classes else ("other", "clean_ice")
    return Chip(
        variables,
        label,
        {"ground": (ground,), "ice": (glacier,)},
        np.ones(label.shape, np.float32),
        np.datetime64("2020-07-01", "s") + np.arange(dates) * np.timedelta64(10 * 86400, "s"),
        10.0,
        f"made {number}",
    )


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_learns(name: str, tmp_path: Path) -> None:
    contract = small_contract(name)
    chips = [made_chip(contract, number) for number in range(4)]
    options = FitOptions(steps=30, batch=4, size=32, rate=1e-2, targets=2, sensors=WHOLE)
    torch.manual_seed(0)
    module = fit(build_module(contract), contract, chips, options, log=tmp_path, device="cpu", progress=False)
    losses = [float(line.split(",")[1]) for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert losses[-1] < 0.8 * losses[0], losses
    assert Model.from_module(contract, module).hash
