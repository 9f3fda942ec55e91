"""Every architecture at a size that a test can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from glaciercube.models import Contract, TimeContext, Windows
from glaciercube.models.architectures.contracts import architecture_contract
from glaciercube.models.base import Masked, Model
from glaciercube.models.registry import build_module

SMALL: Mapping[str, Mapping[str, Any]] = {
    "unet-resnet": {
        "encoder": "resnet18",
        "widths": (4, 4, 8, 8),
        "decoder": (8, 8, 4, 4, 4),
        "windows": Windows(64, 32),
    },
    "glaciernet": {"widths": (8, 8), "depths": (2, 2)},
    "deeplab": {
        "encoder": "resnet18",
        "widths": (4, 4, 8, 8),
        "pyramid": (8,),
        "low": (4,),
        "windows": Windows(48, 48),
    },
    "glavitu": {"widths": (8, 16), "layers": 2, "hidden": 16, "windows": Windows(48, 24)},
    "icemapper": {
        "widths": (4, 8),
        "windows": Windows(32, 16, sigma=0.5),
        "time_context": TimeContext(before=30.0, after=30.0, most=2),
    },
    "segformer": {
        "widths": (8, 8, 10, 16),
        "depths": (1, 1, 1, 1),
        "decoder": (8,),
        "windows": Windows(64, 64),
    },
    "hed-unet": {"widths": (4, 8, 16)},
    "front-unet": {"widths": (4, 8, 16)},
    "hooknet": {"widths": (4, 4, 8, 8, 8), "windows": Windows(64, 32, margin=16)},
    "fusion-unet": {"widths": (4, 8)},
    "fusion-unet-time": {
        "widths": (4, 8),
        "attention_heads": 2,
        "time_context": TimeContext(before=30.0, after=0.0, most=1),
    },
}


def small_contract(name: str, **other: Any) -> Contract:
    return architecture_contract(name, **{**SMALL[name], **other})


def small_model(name: str, seed: int = 0, **other: Any) -> Model:
    """Random weights, and batch normalisation that has seen some input: few channels die out under torch's own."""
    contract = small_contract(name, **other)
    torch.manual_seed(seed)
    module = build_module(contract).train()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim >= 4:
                torch.nn.init.kaiming_normal_(parameter)
            elif not parameter.any():  # what begins at 0 would hide what it does
                parameter.normal_(0.0, 0.3)
        for layer in module.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.momentum = 1.0
        side = 4 * contract.stride if contract.windows is None else contract.windows.size
        dynamic, static = masked_inputs(contract, 2, (side, side))
        still = {key: Masked(entry.values[:1], entry.valid[:1]) for key, entry in static.items()}
        module(dynamic, module.encode_static(still))
    return Model.from_module(contract, module)


def masked_inputs(contract: Contract, dates: int, size: tuple[int, int]) -> tuple[dict[str, Masked], dict[str, Masked]]:
    """Normalised values, all of them there, of as many dates of the static modalities too."""
    groups: tuple[dict[str, Masked], dict[str, Masked]] = ({}, {})
    for number, modality in enumerate(contract.modalities):
        generator = torch.Generator().manual_seed(number)
        values = torch.rand(dates, len(modality.variables), *size, generator=generator)
        groups[modality.static][modality.name] = Masked(values, torch.ones_like(values[:, :1], dtype=torch.bool))
    return groups


def inputs_of(
    contract: Contract, dates: int, size: tuple[int, int], seed: int = 0, missing: float = 0.05
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values about each modality's mean, some of them missing."""
    generator = torch.Generator().manual_seed(seed)
    dynamic: dict[str, Tensor] = {}
    static: dict[str, Tensor] = {}
    for modality in contract.modalities:
        shape = (1 if modality.static else dates, len(modality.variables), *size)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (modality.mean, modality.std))
        values = mean + std * torch.randn(shape, generator=generator)
        if size != (1, 1):
            values[torch.rand(shape, generator=generator) < missing] = torch.nan
        (static if modality.static else dynamic)[modality.name] = values[0] if modality.static else values
    return dynamic, static


def days_of(contract: Contract, dates: int) -> dict[str, Any]:
    """Days, for those that ask for them."""
    return {} if contract.time_context is None else {"days": [12.0 * i for i in range(dates)]}
