"""``front-unet``: a small U-Net for calving fronts in single-band images, with the two sides of the front as classes.

A front is a line of a few pixels, and what tells it from crevasses and floes is what lies on either side: so the sea's
side and the glacier's are classes of their own, and the line is where they meet. Images are seen as they are and
normalised over their surroundings, since sun and season shift their brightness. Four neighbouring pixels go through
the first and the last layer together (Shi et al. 2016, arXiv:1609.05158), which quarters the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.models.architectures.layers import DoubleConv, enlarge
from glaciercube.models.architectures.segmenter import Segmenter, integers, number
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract

__all__ = ["FrontUNet"]

#: Of cells of four pixels a side: local means are over 36 pixels.
_CELL, _AROUND = 4, 9
#: Added to local variances, in squared deviations of the contract's normalisation: noise on even ground stays small.
_FLOOR = 0.005


class FrontUNet(Segmenter):
    """U-Net over images and their locally normalised copies.

    Parameters
    ----------
    contract : Contract
        With ``widths`` of the scales, from half the resolution down, and ``dropout``, the share of the deepest
        channels that training leaves out.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths = integers(contract, "widths")
        inputs = 4 * (2 * self.channels + len(contract.modalities))
        self._counts = [len(modality.variables) for modality in contract.modalities]
        self.downs = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise((inputs, *widths)))
        self.narrows = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.joins = nn.ModuleList(DoubleConv(2 * width, width) for width in widths[:-1])
        self.dropout = nn.Dropout2d(number(contract, "dropout"))
        self.head = nn.Conv2d(widths[0], 4 * self.heads, 1)

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits, as `Segmenter.logits`."""
        stack = self.stacked(dynamic, static_features)
        given = {**dynamic, **static_features}
        parts = []
        for modality, values in zip(self.contract.modalities, torch.split(stack, self._counts, dim=1), strict=True):
            valid = torch.zeros_like(values[:, :1])
            if modality.name in given:
                valid = given[modality.name].valid.to(values.dtype).expand_as(valid)
            parts += [values, _local(values, valid), valid]
        found = functional.pixel_unshuffle(torch.cat(parts, dim=1), 2)
        features = [self.downs[0](found)]
        for down in list(self.downs)[1:]:
            features.append(down(functional.max_pool2d(features[-1], 2)))
        found = self.dropout(features.pop())
        for narrow, join in zip(reversed(self.narrows), reversed(self.joins), strict=True):
            found = join(torch.cat([enlarge(narrow(found), 2, mode="nearest"), features.pop()], dim=1))
        return self.squeezed(functional.pixel_shuffle(self.head(found), 2))


def _local(values: Tensor, valid: Tensor) -> Tensor:
    """Values less the mean and over twice the deviation of what is there around them; 0 where missing."""
    share = _around(valid).clamp(min=1e-6)
    mean = _around(values * valid) / share
    variance = (_around(values.square() * valid) / share - mean.square()).clamp(min=0.0)
    return valid * (values - mean) / (2.0 * (variance + _FLOOR).sqrt())


def _around(values: Tensor) -> Tensor:
    """Means over cells and their neighbours; what is beyond the edge counts as 0."""
    cells = functional.avg_pool2d(values, _CELL)
    return enlarge(functional.avg_pool2d(cells, _AROUND, stride=1, padding=_AROUND // 2), _CELL)
