"""Losses of labels that are sets of a model's classes, weighted pixel by pixel.

The probability of a label is the sum of those of its classes: a coarse label teaches what it says and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Truth", "all_sets", "edge_loss", "edges_of", "label_log_probability", "label_loss"]


@dataclass(frozen=True)
class Truth:
    """What the maps of one batch are held against.

    Attributes
    ----------
    label : (sample, y, x) int64
        The set of classes that the pixel may be, as the sum of 2 to the power of each class's place: a row of `member`.
        0 where nothing is known.
    weight : (sample, y, x) float32
        0 leaves a pixel out (missing data, unknown truth), less than 1 trusts it less (cloud).
    member : (row, class) bool
        The sets, as `all_sets` gives them.
    asked : (sample, row) bool
        Which labels each sample could have had.
    rows : tuple of int
        Which of them the batch, over all processes, could have had, but for those that say nothing.
    """

    label: Tensor
    weight: Tensor
    member: Tensor
    asked: Tensor
    rows: tuple[int, ...]

    def to(self, device: torch.device) -> Truth:
        """On another device."""
        label, weight, member, asked = (
            each.to(device, non_blocking=True) for each in (self.label, self.weight, self.member, self.asked)
        )
        return Truth(label, weight, member, asked, self.rows)

    @property
    def teaches(self) -> Tensor:
        """Whether any pixel weighs something and has a label that says something, () bool."""
        says = ~self.member.all(dim=1)  # nor does the empty set, which stands there as every class
        return (self.weight * says[self.label] > 0).any()

    def part(self, factor: int, *, middle: bool) -> Truth:
        """Of every `factor`-th pixel, of the middle half alone if so."""
        label, weight = self.label, self.weight
        if middle:
            height, width = label.shape[1:]
            y, x = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
            label, weight = label[:, y, x], weight[:, y, x]
        if factor > 1:
            first = factor // 2
            label, weight = label[:, first::factor, first::factor], weight[:, first::factor, first::factor]
        return replace(self, label=label, weight=weight)


def all_sets(classes: int) -> Tensor:
    """Every set of some classes, (2 ** class, class) bool, by its number; the empty one as every class.

    What is not known may be any class, and has the probability 1.
    """
    numbers = torch.arange(2**classes)
    numbers[0] = 2**classes - 1
    return (numbers[:, None] >> torch.arange(classes)) % 2 == 1


def label_log_probability(logit: Tensor, label: Tensor, member: Tensor) -> Tensor:
    """Logarithm of the probability of each pixel's label, (sample, y, x) float32.

    Parameters
    ----------
    logit : (sample, y, x) or (sample, class, y, x) float32
        Of the second of two classes, or of every class.
    label : (sample, y, x) int64
        Row of `member`.
    member : (row, class) bool
        Which classes each label may be.
    """
    if logit.ndim == 3:
        first, second = member[:, 0][label], member[:, 1][label]
        entropy = functional.softplus(torch.where(second, -logit, logit))
        return torch.where(first & second, torch.zeros_like(entropy), -entropy)
    wanted = member.t()[:, label].transpose(0, 1)
    chosen = torch.logsumexp(logit.masked_fill(~wanted, -torch.inf), dim=1)
    return chosen - torch.logsumexp(logit, dim=1)


def label_loss(
    logit: Tensor,
    truth: Truth,
    *,
    gamma: float = 1.0,
    dice: float = 0.5,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Focal loss plus Dice loss on the probabilities of labels.

    Parameters
    ----------
    logit : (sample, y, x) or (sample, class, y, x) float32
        Of the second of two classes, or of every class.
    truth : Truth
        Labels that may be any class say nothing and weigh nothing.
    gamma : float
        Focusing of the focal loss (Lin et al. 2017, arXiv:1708.02002); 0 gives cross-entropy.
    dice : float
        Share of the Dice loss (Milletari et al. 2016, arXiv:1606.04797), taken over the batch, so that a sample
        without ice does not divide by nothing: of the second of two classes, or the mean over the labels.
    total : callable, optional
        Makes sums over this process's samples those over all processes'.

    Returns
    -------
    () float32
        The loss.
    """
    total = total or _same
    says = ~truth.member.all(dim=1)  # nor does the empty set, which stands there as every class
    weight = truth.weight * says[truth.label]
    log = label_log_probability(logit, truth.label, truth.member)
    # Not quite 0, where the slope of a root has no end.
    focal = (-torch.expm1(log)).clamp(min=1e-6) ** gamma * -log if gamma else -log
    sums = [(weight * focal).sum(), weight.sum()]
    rows = _dice_sums(logit, truth, weight)
    found = total(torch.stack([*sums, *rows]))
    common, sizes = found[2::2], found[3::2]
    overlap = (1.0 - (2.0 * common + 1.0) / (sizes + 1.0)).mean()
    return (1.0 - dice) * found[0] / found[1].clamp(min=1.0) + dice * overlap


def _dice_sums(logit: Tensor, truth: Truth, weight: Tensor) -> list[Tensor]:
    """Overlap and size of each label that counts, in turn."""
    if logit.ndim == 3:
        probability = torch.sigmoid(logit)
        target = truth.member[:, 1][truth.label].to(weight.dtype)
        return [(weight * probability * target).sum(), (weight * (probability + target)).sum()]
    probabilities = torch.softmax(logit, dim=1)
    sums: list[Tensor] = []
    for row in truth.rows:
        places = [place for place in range(logit.shape[1]) if row >> place & 1]
        probability = probabilities[:, places].sum(dim=1)
        asked = weight * truth.asked[:, row, None, None]
        target = (truth.label == row).to(weight.dtype)
        sums += [(asked * probability * target).sum(), (asked * (probability + target)).sum()]
    return sums or [weight.new_zeros(()), weight.new_zeros(())]


def edges_of(truth: Truth) -> tuple[Tensor, Tensor]:
    """Where classes meet, and how far that is known, both (sample, y, x) float32.

    A pixel is an edge if one of its four neighbours has another known label: edges are two pixels wide.
    """
    known = truth.weight > 0
    edge = torch.zeros_like(known)
    for dim in (1, 2):
        length = truth.label.shape[dim] - 1
        here, there = truth.label.narrow(dim, 0, length), truth.label.narrow(dim, 1, length)
        meets = (here != there) & known.narrow(dim, 0, length) & known.narrow(dim, 1, length)
        edge.narrow(dim, 0, length).logical_or_(meets)
        edge.narrow(dim, 1, length).logical_or_(meets)
    return edge.float(), truth.weight


def edge_loss(logit: Tensor, truth: Truth, factor: int = 1, total: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Cross-entropy of edges, in which edges and the rest weigh the same.

    As Xie and Tu (2015), arXiv:1504.06375, balance them.

    Parameters
    ----------
    logit : (sample, y, x) float32
        Of edges, of every `factor`-th pixel.
    truth : Truth
        In full resolution: an edge anywhere within a coarse pixel makes it one.
    factor : int
        How many times coarser the logit is.
    total : callable, optional
        As in `label_loss`.
    """
    edge, weight = edges_of(truth)
    if factor > 1:
        edge = functional.max_pool2d(edge[:, None], factor)[:, 0]
        weight = functional.avg_pool2d(weight[:, None], factor)[:, 0]
    entropy = functional.binary_cross_entropy_with_logits(logit, edge, reduction="none")
    inside, outside = weight * edge, weight * (1.0 - edge)
    sums = [(inside * entropy).sum(), inside.sum(), (outside * entropy).sum(), outside.sum()]
    found = (total or _same)(torch.stack(sums))
    one = torch.ones_like(found[1])
    return 0.5 * (found[0] / torch.maximum(found[1], one) + found[2] / torch.maximum(found[3], one))


def _same(sums: Tensor) -> Tensor:
    return sums
