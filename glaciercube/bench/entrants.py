"""What competes in the benchmark: rules, architectures trained on a set's own folds, and shipped models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glaciercube.bench.sets import BenchSet
from glaciercube.models.architectures.contracts import RADAR, architecture_contract
from glaciercube.models.base import GlacierModule, Model
from glaciercube.models.chips import Chip
from glaciercube.models.classes import GROUND
from glaciercube.models.contract import Contract, Modality
from glaciercube.models.reach import Windows
from glaciercube.models.registry import build_module, load_model

__all__ = ["ENTRANTS", "Entrant", "Unsuited", "scratch_contract", "start"]

Kind = Literal["rule", "scratch", "shipped", "tuned"]

#: Layers that have no place of their own in a date.
_STATIC = ("terrain", "relief", "elevation_change", "velocity")
_WITHOUT_EVIDENCE = ("illumination", "coherence", "relief", "elevation_change", "velocity")
_SIX = 6


class Unsuited(Exception):  # noqa: N818 - a reason, told in the entrant's row
    """A set has nothing that an entrant can take."""


@dataclass(frozen=True)
class Entrant:
    """One row of the table.

    Attributes
    ----------
    title : str
        As it is called there.
    kind : {"rule", "scratch", "shipped", "tuned"}
        A rule; an architecture that is trained on the fold; a model of the package as it is; or trained on from it.
    model : str
        Name of the model or architecture.
    """

    title: str
    kind: Kind
    model: str


ENTRANTS: tuple[Entrant, ...] = (
    Entrant("band ratio 2.8, blue 0.15", "rule", "band-ratio"),
    Entrant("NDSI 0.4", "rule", "ndsi"),
    Entrant("fusion-unet, shipped", "shipped", "fusion-unet"),
    Entrant("fusion-unet-time, shipped", "shipped", "fusion-unet-time"),
    Entrant("fusion-unet", "scratch", "fusion-unet"),
    Entrant("fusion-unet-time", "scratch", "fusion-unet-time"),
    Entrant("U-Net, ResNet-34 (DL4GAM)", "scratch", "unet-resnet"),
    Entrant("DeepLabv3+", "scratch", "deeplab"),
    Entrant("GlaViTU", "scratch", "glavitu"),
    Entrant("GlacierNet", "scratch", "glaciernet"),
    Entrant("SegFormer-B0", "scratch", "segformer"),
    Entrant("ICEmapper", "scratch", "icemapper"),
    Entrant("fusion-unet, shipped and fine-tuned", "tuned", "fusion-unet"),
    Entrant("fusion-unet-time, shipped and fine-tuned", "tuned", "fusion-unet-time"),
)


def scratch_contract(
    architecture: str, modalities: Mapping[str, tuple[str, ...]], chips: Iterable[Chip], size: int
) -> Contract:
    """Contract of an untrained architecture over the layers of a set, with the five classes of the ground.

    Parameters
    ----------
    architecture : str
        As of `glaciercube.models.architectures.contracts`.
    modalities : mapping of str to tuple of str
        Layers by group. Every architecture is given all of them, ICEmapper, which takes no static ones, radar alone.
    chips : iterable of Chip
        That it is trained on: their means and deviations normalise.
    size : int
        Side in pixels of the windows of architectures that see whole windows.

    Raises
    ------
    Unsuited
        If the architecture takes none of the layers.
    """
    chips = list(chips)
    if architecture == "icemapper":
        if "radar" not in modalities:
            raise Unsuited("takes radar alone, and the set has none")
        chosen: tuple[Modality, ...] = (RADAR,)
    else:
        chosen = tuple(_modality(name, layers, chips, architecture) for name, layers in modalities.items())
    usual = architecture_contract(architecture)
    windows = None if usual.windows is None else Windows(size, max(usual.stride, size // 2))
    return architecture_contract(architecture, modalities=chosen, classes=GROUND, windows=windows)


def _modality(name: str, layers: tuple[str, ...], chips: list[Chip], architecture: str) -> Modality:
    fusion = architecture.startswith("fusion-unet")
    if fusion and name == "optical" and len(layers) == _SIX:
        # It takes reflectance as it is, and makes logarithms and ratios of it.
        return Modality("optical", layers)
    # Its optical branch wants all six bands: fewer are layers like any other.
    called = "bands" if fusion and name == "optical" else name
    means, deviations = zip(*(_spread(layer, chips) for layer in layers), strict=True)
    static, evidence = name in _STATIC, name not in _WITHOUT_EVIDENCE
    return Modality(called, layers, static=static, mean=means, std=deviations, clip=(-4.0, 4.0), evidence=evidence)


def _spread(layer: str, chips: list[Chip]) -> tuple[float, float]:
    values = np.concatenate([np.asarray(chip.variables[layer], np.float64).ravel()[::7] for chip in chips])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    return float(values.mean()), max(float(values.std()), 1e-6)


def start(
    entrant: Entrant, bench: BenchSet, chips: Iterable[Chip], size: int, seed: int
) -> tuple[Contract, GlacierModule]:
    """Contract and module of an entrant before it is trained on a fold.

    Raises
    ------
    Unsuited
        If the set has nothing that it can take.
    ModelError
        If a model is not shipped.
    """
    import torch

    torch.manual_seed(seed)
    if entrant.kind == "scratch":
        contract = scratch_contract(entrant.model, bench.modalities, chips, size)
        return contract, build_module(contract)
    model = load_model(entrant.model)
    if entrant.kind == "tuned":
        return _tunable(model)
    return model.contract, model.module


def _tunable(model: Model) -> tuple[Contract, GlacierModule]:
    """A copy of a shipped model to train on."""
    module = build_module(model.contract)
    module.load_state_dict({name: tensor.clone() for name, tensor in model.module.state_dict().items()})
    return model.contract, module.requires_grad_(requires_grad=True)
