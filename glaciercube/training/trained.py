"""A module as it is trained: all its maps of many places at once, on one device or several, and their loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models.architectures.segmenter import Supervised
from glaciercube.models.base import GlacierModule, Masked
from glaciercube.models.contract import Contract
from glaciercube.training.batches import Inputs
from glaciercube.training.losses import Truth, edge_loss, label_loss
from glaciercube.training.options import FitOptions
from glaciercube.training.parallel import Crew

__all__ = ["Trained", "channels_last", "supervised_loss", "wrapped"]


class Trained(nn.Module):
    """A module as it is trained: static and dynamic inputs of many places at once."""

    def __init__(self, module: GlacierModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Inputs) -> list[Supervised]:
        """Maps of the targets, in the order of their loss."""
        # Typed loosely: what can be trained is told by what it has.
        module: Any = self.module
        features = module.encode_static(inputs.static)
        if inputs.neighbours is None:
            found: list[Supervised] = module.supervised(inputs.dynamic, features)
            return found
        features = _spread(features, inputs.owner)
        return [Supervised(module.series(inputs.dynamic, features, inputs.neighbours), 1.0)]


def _spread(features: Any, owner: Tensor | None) -> Any:
    """Static features of each place, as features of each of its dates."""
    if isinstance(features, Tensor):
        return features if owner is None else features[owner]
    if isinstance(features, Masked):
        return Masked(*(_spread(each, owner) for each in features))
    if isinstance(features, dict):
        return {name: _spread(each, owner) for name, each in features.items()}
    if isinstance(features, list | tuple):
        return type(features)(_spread(each, owner) for each in features)
    return features


def wrapped(trained: Trained, crew: Crew) -> nn.Module:
    """The same for every process of a crew, with one gradient."""
    if crew.size == 1:
        return trained
    if next(trained.parameters()).is_cuda:
        trained = nn.SyncBatchNorm.convert_sync_batchnorm(trained)  # type: ignore[no-untyped-call]
    # Branches for sensors that a contract leaves out are never used.
    return nn.parallel.DistributedDataParallel(trained, find_unused_parameters=True)


def channels_last(module: nn.Module, layout: torch.memory_format = torch.channels_last) -> None:
    """Put images' weights with the channels last, which convolutions on processors and GPUs are faster with."""
    for parameter in module.parameters():
        # With one channel each, the layout is not told from the other.
        if parameter.ndim == 4 and parameter.shape[1] > 1:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def supervised_loss(
    maps: Sequence[Supervised], truth: Truth, contract: Contract, options: FitOptions, crew: Crew
) -> Tensor:
    """Weighted mean of the losses of some maps, each in its own resolution.

    Parameters
    ----------
    maps : sequence of Supervised
        Each of the truth's pixels or of blocks of them; the first is the prediction itself, whose margin a contract
        with windows leaves out.
    truth : Truth
        Of the batch: label and weight (sample, y, x), in full resolution.
    contract : Contract
        Of the model, for its windows.
    options : FitOptions
        Focusing of the focal loss, and the share of Dice.
    crew : Crew
        Processes over whose samples the losses are summed.

    Returns
    -------
    () float32 Tensor
        With a gradient.

    Raises
    ------
    ModelError
        If there is no map.
    """
    total: Tensor | None = None
    side = truth.label.shape[-1]
    for number, found in enumerate(maps):
        factor = (side // 2 if found.middle else side) // found.logit.shape[-1]
        logit = found.logit.float()
        part = truth.part(1 if found.target == "edges" else factor, middle=found.middle)
        if number == 0 and contract.windows is not None and contract.windows.margin:
            part = replace(part, weight=_inner(part.weight, contract.windows.margin))
        if found.target == "edges":
            loss = edge_loss(logit, part, factor, crew.total)
        else:
            loss = label_loss(logit, part, gamma=options.gamma, dice=options.dice, total=crew.total)
        total = found.weight * loss if total is None else total + found.weight * loss
    if total is None:
        raise ModelError(f"{contract.architecture} gives no map to train", "return at least one from supervised")
    return total / sum(found.weight for found in maps)


def _inner(weight: Tensor, margin: int) -> Tensor:
    """Weights without those of the edges that a window sees and does not predict."""
    found = torch.zeros_like(weight)
    inside = slice(margin, -margin)
    found[:, inside, inside] = weight[:, inside, inside]
    return found
