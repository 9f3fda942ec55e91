"""Test-time adaptation of batch normalisation: part of the statistics from the scenes at hand.

A network that was trained elsewhere normalises its features by means and variances of its training scenes; under
another sun, on other snow, these are not those of the scene. Mixed with the scene's own they often fit better
(Schneider et al. 2020, arXiv:2006.16971; Nado et al. 2020, arXiv:2006.10963), and where the scene holds only ice, or no
ice at all, worse.

Statistics are gathered once, from blocks that are given, and the result is a model with fixed statistics and a hash of
its own. Its pixels do not depend on how the grid is cut, but they do depend on what it was adapted to: adapted to
another region, or to more dates, it is another model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError, require
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip, inputs_for

__all__ = ["Block", "adapt", "block_of"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Block(NamedTuple):
    """Inputs of one place, as `Model.predict` takes them.

    Attributes
    ----------
    dynamic : mapping of str to (time, channel, y, x) float32 tensor
        By modality, raw physical units, NaN where missing.
    static : mapping of str to (channel, y, x) float32 tensor
        Likewise.
    days : sequence of float or None
        Of the times, for models with a time context.
    """

    dynamic: Mapping[str, Tensor]
    static: Mapping[str, Tensor]
    days: Sequence[float] | None = None


def adapt(model: Model, blocks: Iterable[Block], *, share: float = 0.3) -> Model:
    """Mix the statistics of batch normalisation with those of some blocks.

    Parameters
    ----------
    model : Model
        Of an architecture with batch normalisation.
    blocks : iterable of Block
        Of the scenes that will be predicted, with the modalities that they will have, and large enough to hold ice and
        ground. Blocks weigh the same.
    share : float
        Weight of the blocks' statistics, 0 to 1; the training's have the rest. Schneider et al. state it as
        n / (N + n), with n scenes at hand and the training worth N of them.

    Returns
    -------
    Model
        With fixed statistics, to be saved and run as any other. Layers that the blocks do not reach, such as those of
        an absent sensor, stay as they were.

    Raises
    ------
    ModelError
        If the model has no batch normalisation, or no block is given.
    """
    require(0.0 <= share <= 1.0, f"a share of {share}", "give 0 to 1")
    module = copy.deepcopy(model.module)
    norms = [layer for layer in module.modules() if isinstance(layer, _NORMS) and layer.track_running_stats]
    if not norms:
        raise ModelError(
            f"model {model.contract.name!r} has no batch normalisation to adapt", "predict with it as it is"
        )
    trained = [copy.deepcopy(layer.state_dict()) for layer in norms]
    gathering = Model.from_module(model.contract, module)
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all blocks
        layer.train()
    count = 0
    for block in blocks:
        gathering.predict(block.dynamic, block.static, days=block.days)
        count += 1
    require(count > 0, "no block to adapt to", "give some of the scenes")
    for layer, old in zip(norms, trained, strict=True):
        _mix(layer, old, share)
    return Model.from_module(model.contract, module)


def block_of(model: Model, chip: Chip, without: Iterable[str] = ()) -> Block:
    """A chip as a block, with all of a model's modalities that it has but those named."""
    gone = set(without)
    given = {n: torch.from_numpy(v.copy()) for n, v in inputs_for(chip, model.contract).items() if n not in gone}
    static = {name: values for name, values in given.items() if model.contract.modality(name).static}
    dynamic = {name: values for name, values in given.items() if name not in static}
    days = [float(day) for day in chip.days] if model.contract.time_context is not None and dynamic else None
    return Block(dynamic, static, days)


def _mix(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, trained: Mapping[str, Tensor], share: float) -> None:
    reached = layer.num_batches_tracked is not None and int(layer.num_batches_tracked) > 0
    for name in ("running_mean", "running_var"):
        own = getattr(layer, name)
        own.copy_((1.0 - share) * trained[name] + share * own if reached else trained[name])
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.copy_(trained["num_batches_tracked"])
    layer.momentum = 0.1
    layer.eval()
