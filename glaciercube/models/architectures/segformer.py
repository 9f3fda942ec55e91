"""``segformer``: a hierarchical transformer with a decoder of perceptrons.

Xie et al. (2021), arXiv:2105.15203; compared with on debris-covered glaciers by Barzegar and Bolch (2026),
arXiv:2605.21527. It needs no extra: plain torch has all that it is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.models.architectures.layers import conv_norm, enlarge
from glaciercube.models.architectures.segmenter import Segmenter, integers
from glaciercube.models.architectures.transformer import Layer
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract

__all__ = ["SegFormer"]

_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_HIDDEN = 4


class SegFormer(Segmenter):
    """SegFormer over one stack of inputs.

    Parameters
    ----------
    contract : Contract
        With ``widths`` and ``depths`` of the four stages and ``decoder`` (channels of the decoder).
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths, depths = integers(contract, "widths"), integers(contract, "depths")
        (decoder,) = integers(contract, "decoder")
        inputs = pairwise((self.channels, *widths))
        self.stages = nn.ModuleList(
            _Stage(a, b, depth, heads, reduction, first=place == 0)
            for place, ((a, b), depth, heads, reduction) in enumerate(
                zip(inputs, depths, _HEADS, _REDUCTIONS, strict=True)
            )
        )
        self.project = nn.ModuleList(nn.Linear(width, decoder) for width in widths)
        self.fuse = conv_norm(len(widths) * decoder, decoder, 1)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(decoder, self.heads, 1))

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits, as `Segmenter.logits`."""
        features, found = self.stacked(dynamic, static_features), []
        for place, (stage, project) in enumerate(zip(self.stages, self.project, strict=True)):
            features = stage(features)
            even = project(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            found.append(enlarge(even, 2**place))
        # The deepest first, as in the published weights.
        return self.squeezed(enlarge(self.head(self.fuse(torch.cat(found[::-1], dim=1))), 4))


class _Stage(nn.Module):
    def __init__(self, inputs: int, width: int, depth: int, heads: int, reduction: int, *, first: bool) -> None:
        super().__init__()
        size, stride = (7, 4) if first else (3, 2)
        self.embed = nn.Conv2d(inputs, width, size, stride=stride, padding=size // 2)
        self.begin, self.end = nn.LayerNorm(width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            Layer(width, heads, _HIDDEN * width, reduction=reduction, mixed=True) for _ in range(depth)
        )

    def forward(self, image: Tensor) -> Tensor:
        embedded = self.embed(image)
        size = (embedded.shape[2], embedded.shape[3])
        tokens = self.begin(embedded.flatten(2).transpose(1, 2))
        for layer in self.layers:
            tokens = layer(tokens, size)
        return torch.unflatten(self.end(tokens).transpose(1, 2), 2, size)
