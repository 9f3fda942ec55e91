"""``hed-unet``: segmentation and edges from every scale at once, merged by attention, for calving fronts.

Heidler et al. (2022), doi:10.1109/TGRS.2021.3064606. Maps of coarse scales are enlarged with pixels as areas and not
corner to corner as in the published code, where a pixel's value depends on the size of the image: so the receptive
field is finite, and no weight is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.models.architectures.layers import enlarge
from glaciercube.models.architectures.segmenter import Segmenter, Supervised, integers
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract

__all__ = ["HEDUNet"]


class HEDUNet(Segmenter):
    """U-Net whose every scale predicts classes and edges.

    Parameters
    ----------
    contract : Contract
        With ``widths`` of the scales, each twice the one before.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths = integers(contract, "widths")
        self.stem = nn.Conv2d(self.channels, widths[0], 1)
        self.downs = nn.ModuleList(_Down(a, b) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(_Up(b, a) for a, b in pairwise(widths))
        self.sides = nn.ModuleList(nn.Conv2d(width, self.heads + 1, 1) for width in widths)
        self.queries = nn.ModuleList(nn.Conv2d(width, self.heads + 1, 1) for width in widths)

    def supervised(self, dynamic: Mapping[str, Masked], static_features: Any) -> list[Supervised]:
        """Return the merged classes and edges, then those of each scale at its own resolution, the finest first."""
        features = [self.stem(self.stacked(dynamic, static_features))]
        for down in self.downs:
            features.append(down(features[-1]))
        for place in reversed(range(len(self.ups))):
            features[place] = self.ups[place](features[place + 1], features[place])
        sides = [side(found) for side, found in zip(self.sides, features, strict=True)]
        weights = [query(found) for query, found in zip(self.queries, features, strict=True)]
        share = torch.softmax(_even(weights), dim=1)
        maps = [(share * _even(sides)).sum(dim=1), *sides]
        classes = [Supervised(self.squeezed(found[:, :-1]), 1.0) for found in maps]
        edges = [Supervised(found[:, -1], 1.0, "edges") for found in maps]
        return [*classes[:1], *edges[:1], *classes[1:], *edges[1:]]


def _even(scales: list[Tensor]) -> Tensor:
    """All scales at full resolution, (sample, scale, channel, y, x)."""
    return torch.stack([enlarge(found, 2**place) for place, found in enumerate(scales)], dim=1)


class _Double(nn.Sequential):
    """Two convolutions that repeat the edge beyond the edge."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for a, b in ((inputs, outputs), (outputs, outputs)):
            layers += [
                nn.Conv2d(a, b, 3, padding=1, padding_mode="replicate", bias=False),
                nn.BatchNorm2d(b),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        halve = nn.Conv2d(inputs, inputs, 2, stride=2, bias=False)
        self.halve = nn.Sequential(halve, nn.BatchNorm2d(inputs), nn.ReLU())
        self.layers = _Double(inputs, outputs)

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.layers(self.halve(values))
        return found


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        rise = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2, bias=False)
        self.rise = nn.Sequential(rise, nn.BatchNorm2d(inputs // 2), nn.ReLU())
        self.layers = _Double(inputs, outputs)

    def forward(self, values: Tensor, skip: Tensor) -> Tensor:
        found: Tensor = self.layers(torch.cat([self.rise(values), skip], dim=1))
        return found
