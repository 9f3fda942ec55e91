"""Dropout at prediction (Monte Carlo dropout; Gal and Ghahramani 2016, arXiv:1506.02142): one network, several passes.

Each pass leaves out other channels, and its mean and spread are those of an ensemble of thinned networks. Which
channels a pass leaves out is drawn from the stated seed, the pass and the layer alone, and is the same for every pixel,
date, block and process: a pass is one network, and not noise. Results are therefore the same wherever the grid is cut,
there are no seams, and a rerun gives the same pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models.base import GlacierModule, Masked, Model
from glaciercube.models.contract import Contract
from glaciercube.models.ensemble import Several

__all__ = ["Dropout", "with_dropout"]

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_NORMS = (nn.BatchNorm2d,)
#: Seed and number of the pass that this thread is in; None outside of any.
_PASS: ContextVar[tuple[int, int] | None] = ContextVar("glaciercube_dropout_pass", default=None)


class Dropout(Several):
    """Several passes of one module.

    Parameters
    ----------
    contract : Contract
        As of `with_dropout`: parameters ``base`` (MLM item as JSON), ``passes``, ``seed`` and ``rate``.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        from glaciercube.models.registry import build_module

        try:
            self.own = Contract.from_mlm(json.loads(str(contract.parameters["base"])))
            self.passes, self.seed = (int(contract.parameters[name]) for name in ("passes", "seed"))  # type: ignore[arg-type]
            self.rate = float(contract.parameters["rate"])  # type: ignore[arg-type]
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(
                f"model {contract.name!r} does not say what its passes are of ({error})",
                "make it with glaciercube.models.dropout.with_dropout",
            ) from error
        self.base = build_module(self.own)
        self.absent_is_missing = self.base.absent_is_missing
        _prepare(self.base, self.rate)

    @property
    def count(self) -> int:
        """How many passes."""
        return self.passes

    def member(self, number: int) -> Model:
        """One pass."""
        return Model.from_module(self.own, _Pass(self.base, self.seed, number))

    def encode_static(self, static: Mapping[str, Masked]) -> list[Any]:
        """Static features of every pass."""
        found = []
        for number in range(self.count):
            with _passing(self.seed, number):
                found.append(self.base.encode_static(static))
        return found

    def said(self, number: int, dynamic: Mapping[str, Masked], static_features: Any, *more: Any) -> Tensor:
        """What one pass says."""
        with _passing(self.seed, number):
            found: Tensor = self.base(dynamic, static_features[number], *more)
        return found


class _Pass(GlacierModule):
    """One pass as a module."""

    def __init__(self, base: GlacierModule, seed: int, number: int) -> None:
        super().__init__()
        self.base, self.seed, self.number = base, seed, number
        self.identity = f"{seed}/{number}".encode()
        self.absent_is_missing = base.absent_is_missing

    def encode_static(self, static: Mapping[str, Masked]) -> Any:
        with _passing(self.seed, self.number):
            return self.base.encode_static(static)

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any, *more: Any) -> Tensor:
        with _passing(self.seed, self.number):
            found: Tensor = self.base(dynamic, static_features, *more)
        return found


def with_dropout(model: Model, *, passes: int = 10, seed: int = 0, rate: float | None = None) -> Model:
    """A model that leaves channels out at prediction, several times, and gives the mean.

    Parameters
    ----------
    model : Model
        Of a known architecture.
    passes : int
        How many, 2 or more; prediction takes as many times as long.
    seed : int
        Of which channels are left out.
    rate : float, optional
        Share of channels that is left out after each batch normalisation, for models that were trained without dropout
        (Mi et al. 2019, arXiv:1910.04858): what they then say is noisier than they were trained for, and their mean
        must be calibrated anew. Models with dropout layers keep the rates that they were trained with.

    Returns
    -------
    Model
        To be written with `save_model`, loaded, run and calibrated as any other.

    Raises
    ------
    ModelError
        If the model has no dropout layers and no rate is given, or has some and one is given.
    """
    from glaciercube.models.registry import ARCHITECTURES, build_module

    has = any(isinstance(layer, _DROPOUTS) and layer.p > 0 for layer in model.module.modules())
    if model.contract.architecture not in ARCHITECTURES or isinstance(model.module, Several):
        raise ModelError(f"{model.contract.name!r} is no single network", "give a model of a known architecture")
    if has == (rate is not None) or passes < 2 or not 0 < (rate or 0.5) < 1:
        raise ModelError(
            f"model {model.contract.name!r} has {'' if has else 'no '}dropout layers; {passes} passes at rate {rate}",
            "give two passes or more, and a rate between 0 and 1 only to models without dropout layers",
        )
    base = json.dumps(model.contract.to_mlm(), separators=(",", ":"), sort_keys=True)
    contract = replace(
        model.contract,
        name=f"{model.contract.name}-dropout",
        architecture="mc-dropout",
        parameters={"base": base, "passes": passes, "seed": seed, "rate": rate or 0.0},
        references=("https://arxiv.org/abs/1506.02142", *model.contract.references),
    )
    module = build_module(contract)
    module.base.load_state_dict(model.module.state_dict())  # type: ignore[union-attr]
    return Model.from_module(contract, module)


@contextmanager
def _passing(seed: int, number: int) -> Iterator[None]:
    token = _PASS.set((seed, number))
    try:
        yield
    finally:
        _PASS.reset(token)


def _prepare(module: nn.Module, rate: float) -> None:
    """Let layers leave channels out; threads share the hooks, which know only their layer's number and rate."""
    for number, layer in enumerate(module.modules()):
        if isinstance(layer, _DROPOUTS) and layer.p > 0:
            tokens = type(layer) is nn.Dropout
            layer.register_forward_hook(partial(_leave_out, number, layer.p, tokens=tokens))
        elif isinstance(layer, _NORMS) and rate > 0:
            layer.register_forward_hook(partial(_leave_out, number, rate, tokens=False))


def _leave_out(number: int, rate: float, _layer: nn.Module, _given: Any, found: Tensor, *, tokens: bool) -> Tensor:
    """Channels of a layer's output that this pass keeps, raised so that their mean stays."""
    here = _PASS.get()
    if here is None:
        return found
    # Features of tokens stand last, channels of images second.
    axis = -1 if tokens and found.ndim != 4 else 1
    drawn = np.random.default_rng([*here, number]).random(found.shape[axis]) >= rate
    kept = torch.from_numpy(drawn).to(found.dtype) / (1.0 - rate)
    shape = [1] * found.ndim
    shape[axis] = -1
    return found * kept.view(shape).to(found.device)
