"""The network that a training begins with: a new one, or one whose weights are taken over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from glaciercube.errors import ModelError, require
from glaciercube.models.architectures.contracts import architecture_contract
from glaciercube.models.base import GlacierModule, Model
from glaciercube.models.chips import Chip
from glaciercube.models.classes import Output
from glaciercube.models.contract import Contract, Modality
from glaciercube.models.registry import build_module, load_model
from glaciercube.training.job import NetworkOptions
from glaciercube.training.statistics import fitted_contract

__all__ = ["begin"]

_log = logging.getLogger(__name__)


def begin(options: NetworkOptions, chips: Sequence[Chip], seed: int) -> tuple[Contract, GlacierModule]:
    """Make contract and module of a training.

    Parameters
    ----------
    options : NetworkOptions
        What is asked for.
    chips : sequence of Chip
        Whose statistics normalise the inputs.
    seed : int
        Of new weights.

    Raises
    ------
    ModelError
        If the architecture, a class or a modality is unknown, or weights and architecture share no layer.
    """
    base = None if options.weights is None else load_model(options.weights)
    contract = _contract(options, base)
    normalise = base is None if options.normalise is None else options.normalise
    if normalise:
        contract = fitted_contract(contract, chips)
    torch.manual_seed(seed)
    module = build_module(contract)
    if base is not None:
        _take_over(module, base)
    return contract, module


def _contract(options: NetworkOptions, base: Model | None) -> Contract:
    known = None if base is None else base.contract
    named = options.architecture or (known.architecture if known is not None else "fusion-unet")
    # Typed loosely: what is given is put in the place of what is usual, field by field.
    given: dict[str, Any] = {} if known is None else {"classes": known.classes, "outputs": known.outputs}
    if options.classes:
        given = {"classes": options.classes}
    if options.outputs:
        given["outputs"] = tuple(Output(name, classes) for name, classes in options.outputs.items())
    for name in ("windows", "time_context"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if base is not None and known is not None and named == known.architecture:
        given |= {"modalities": _chosen(known, options.modalities), "parameters": _parameters(base, options)}
        contract = replace(known, **given)
    else:
        shared = {} if base is None else _shared(base, named)
        usual = known or architecture_contract(named, **given)
        given["modalities"] = _chosen(usual, options.modalities)
        contract = architecture_contract(named, **{**shared, **options.parameters, **given})
    told: dict[str, Any] = {"name": options.name, "version": options.version, "description": options.description}
    return replace(contract, **{name: value for name, value in told.items() if value is not None})


def _parameters(base: Model, options: NetworkOptions) -> dict[str, Any]:
    """Parameters of the same architecture; its calibration does not outlive a training."""
    unknown = [name for name in options.parameters if name not in base.contract.parameters]
    require(
        not unknown,
        f"{base.contract.architecture} has no parameter {unknown[0] if unknown else ''!r}",
        f"it has {', '.join(base.contract.parameters)}",
    )
    fresh = {name: value for name, value in (("temperature", 1.0), ("shift", 0.0)) if name in base.contract.parameters}
    return {**base.contract.parameters, **fresh, **options.parameters}


def _shared(base: Model, architecture: str) -> dict[str, Any]:
    """Parameters of another architecture that are taken over with the weights, such as as many widths."""
    known = architecture_contract(architecture).parameters
    own = {n: v for n, v in base.contract.parameters.items() if n in known and n not in ("temperature", "shift")}
    if architecture.startswith("fusion-unet") and base.contract.architecture.startswith("fusion-unet"):
        return own
    # What is listed by scale means the same only where there are as many scales.
    return {n: v for n, v in own.items() if np.shape(v) == np.shape(known[n])}  # type: ignore[arg-type]


def _chosen(contract: Contract, names: Sequence[str]) -> tuple[Modality, ...]:
    return tuple(contract.modality(name) for name in names) if names else contract.modalities


def _take_over(module: GlacierModule, base: Model) -> None:
    """Put the weights in that fit; a layer for other inputs or classes begins anew."""
    own = module.state_dict()
    fitting = {
        name: value
        for name, value in base.module.state_dict().items()
        if name in own and own[name].shape == value.shape
    }
    if not fitting:
        raise ModelError(
            f"{base.contract.name!r} shares no layer with {type(module).__name__}",
            "begin with weights of the same architecture, or leave weights out",
        )
    module.load_state_dict({**own, **fitting})
    _log.info("%d of %d tensors begin with the weights of %s", len(fitting), len(own), base.contract.name)
