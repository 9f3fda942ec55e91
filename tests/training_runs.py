"""Fits of tests, which other processes run too: to be killed, or to share the work."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from made_chips import made_chip
from safetensors.torch import save_file
from small_models import small_contract
from torch import Tensor, distributed, nn

from glaciercube.models.base import GlacierModule
from glaciercube.models.contract import Contract
from glaciercube.models.registry import build_module
from glaciercube.training.fit import fit
from glaciercube.training.options import FitOptions


def dropping(folder: Path) -> dict[str, Tensor]:
    """A fit of a model with dropout layers, whose random numbers have to be the same after a kill, too."""
    contract = small_contract("glavitu", widths=(4, 8), layers=1)
    options = FitOptions(steps=24, batch=2, every=3)
    return _fitted(contract, build_module(contract), options, folder, folder / "fit.safetensors")


def sharing(folder: Path, rank: int, size: int) -> dict[str, Tensor]:
    """One process of a fit that several share, of a model without batch normalisation and dropout."""
    if size > 1:
        meet = f"file://{folder.parent}/meet"
        distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=size)
    contract = small_contract("segformer", classes=("other", "clean_ice", "water"))
    module = build_module(contract)
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d | nn.Dropout):
                setattr(parent, name, nn.Identity())
    options = FitOptions(steps=12, batch=4, average=0.5, precision="float32")
    try:
        return _fitted(contract, module, options, folder, None)
    finally:
        if size > 1:
            distributed.destroy_process_group()


def _fitted(
    contract: Contract, module: GlacierModule, options: FitOptions, folder: Path, checkpoint: Path | None
) -> dict[str, Tensor]:
    chips = [made_chip(contract, number) for number in range(3)]
    fitted = fit(module, contract, chips, options, checkpoint=checkpoint, log=folder, device="cpu", progress=False)
    return fitted.state_dict()


def main() -> None:
    """``python training_runs.py dropping FOLDER`` or ``... sharing FOLDER RANK SIZE``."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = Path(sys.argv[2])
    weights = dropping(folder) if sys.argv[1] == "dropping" else sharing(folder, int(sys.argv[3]), int(sys.argv[4]))
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "weights.safetensors")


if __name__ == "__main__":
    main()
