"""Losses over glacier and other, weighted pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["focal_dice"]


def focal_dice(logit: Tensor, target: Tensor, weight: Tensor, *, gamma: float = 1.0, dice: float = 0.5) -> Tensor:
    """Focal loss plus Dice loss.

    Parameters
    ----------
    logit : (sample, y, x) float32
        Of glacier.
    target : (sample, y, x) float32
        1 glacier, 0 other.
    weight : (sample, y, x) float32
        Weight of each pixel; 0 leaves it out (missing data), less than 1 trusts it less (cloud).
    gamma : float
        Focusing of the focal loss (Lin et al. 2017, arXiv:1708.02002); 0 gives cross-entropy.
    dice : float
        Share of the Dice loss (Milletari et al. 2016, arXiv:1606.04797), taken over the batch, so that a sample
        without ice does not divide by nothing.

    Returns
    -------
    () float32
        The loss.
    """
    entropy = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    focal = (1.0 - torch.exp(-entropy)) ** gamma * entropy
    total = weight.sum().clamp(min=1.0)
    probability = torch.sigmoid(logit)
    common = (weight * probability * target).sum()
    sizes = (weight * (probability + target)).sum()
    overlap = 1.0 - (2.0 * common + 1.0) / (sizes + 1.0)
    return (1.0 - dice) * (weight * focal).sum() / total + dice * overlap
