"""``icemapper``: a residual U-Net over a series of dates, whose skips are pooled in time by learned weights.

After Maslov et al. (2025), EarthArXiv X5472T (ICEmapper), which maps a year of 15 Sentinel-1 acquisitions at once. Here
the acquisitions are those nearest to the date that is mapped, and dates that are not there have no weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.errors import ModelError
from glaciercube.models.architectures.layers import LEAK
from glaciercube.models.architectures.resunet import ResUNetDecoder
from glaciercube.models.architectures.segmenter import Segmenter, integers
from glaciercube.models.base import Masked, Neighbours
from glaciercube.models.contract import Contract

__all__ = ["IceMapper"]


class IceMapper(Segmenter):
    """Convolutions in space and time, and a decoder in space.

    Parameters
    ----------
    contract : Contract
        With ``widths`` (of each scale) and ``pooling``, ``weighted`` or ``maximum``; and a time context.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        if contract.time_context is None or any(m.static for m in contract.modalities):
            raise ModelError(
                f"the contract of {contract.name!r} has no time context, or static inputs",
                "make it with architecture_contract('icemapper')",
            )
        widths = integers(contract, "widths")
        self.blocks = nn.ModuleList(_Block(a, b) for a, b in pairwise((self.channels, *widths)))
        pool = _Weighted if contract.parameters["pooling"] == "weighted" else _Maximum
        self.flatten = nn.ModuleList(pool(width) for width in widths)
        self.halve = nn.ModuleList(pool(width, 2) for width in widths[:-1])
        self.decoder = ResUNetDecoder(widths)
        self.head = nn.Conv2d(widths[0], self.heads, 1)

    def forward(
        self, dynamic: Mapping[str, Masked], static_features: Any, neighbours: Neighbours | None = None
    ) -> Tensor:
        """Return calibrated probabilities of the dates that `neighbours` are given for."""
        return self.calibrated(self.series(dynamic, static_features, neighbours))

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return the logits of dates without neighbours."""
        return self.series(dynamic, static_features, None)

    def series(self, dynamic: Mapping[str, Masked], static_features: Any, neighbours: Neighbours | None) -> Tensor:  # noqa: ARG002
        """Return logits of the dates that `neighbours` are given for, of all without any where there are none."""
        stack = self.stacked(dynamic, {})
        if neighbours is None:
            index = torch.arange(len(stack), device=stack.device)[:, None]
            present = torch.ones_like(index, dtype=torch.bool)
        else:
            index, present = neighbours.which, neighbours.present
        # (date, place, channel, y, x) -> (date, channel, place, y, x)
        values = stack[index].transpose(1, 2)
        there = present[:, None, :, None, None].to(values.dtype)
        features: list[Tensor] = []
        for number, (block, flatten) in enumerate(zip(self.blocks, self.flatten, strict=True)):
            if number:
                values, there = self.halve[number - 1](values, there)
            # A date that is not there must not speak to those beside it through the next convolution.
            values = block(values * there) * there
            features.append(flatten(values, there)[0][:, :, 0])
        return self.squeezed(self.head(self.decoder(features)))


class _Block(nn.Module):
    """Two convolutions in time and space, added to a projection of the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((inputs, outputs), (outputs, outputs)):
            layers += [nn.Conv3d(a, b, 3, padding=1), nn.BatchNorm3d(b), nn.LeakyReLU(LEAK)]
        self.layers = nn.Sequential(*layers)
        self.project = nn.Conv3d(inputs, outputs, 1)

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.layers(values) + self.project(values)
        return found


class _Pool(nn.Module):
    """Halves space and time, or gathers all of time.

    Parameters
    ----------
    width : int
        Channels.
    factor : int
        Of space and time; 1 for all of time in full resolution.
    """

    def __init__(self, width: int, factor: int = 1) -> None:  # noqa: ARG002 - as its children
        super().__init__()
        self.factor = factor

    def pairs(self, values: Tensor) -> Tensor:
        """Places that become one, along a dimension of their own after that of the places."""
        count = values.shape[2] if self.factor == 1 else min(self.factor, values.shape[2])
        # An odd one out at the end stands alone.
        grown = functional.pad(values, (0, 0, 0, 0, 0, -values.shape[2] % count))
        return torch.unflatten(grown, 2, (-1, count))

    def smaller(self, values: Tensor) -> Tensor:
        """Space by its maxima."""
        return values if self.factor == 1 else functional.max_pool3d(values, (1, self.factor, self.factor))


class _Weighted(_Pool):
    """Mean in time, each date and channel weighted by what the image of that date is like as a whole."""

    def __init__(self, width: int, factor: int = 1) -> None:
        super().__init__(width, factor)
        half = max(1, width // 2)
        self.first = nn.Conv1d(width, half, 3, padding=1)
        self.second = nn.Conv1d(half, width, 3, padding=1)

    def forward(self, values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return both smaller, from (date, channel, place, y, x) and which places there are (date, 1, place, 1, 1)."""
        values = self.smaller(values)
        weight = torch.sigmoid(self.second(functional.silu(self.first(values.mean(dim=(3, 4))))))
        kept, count = self.pairs(values * weight[..., None, None] * there), self.pairs(there)
        return kept.sum(dim=3) / count.sum(dim=3).clamp(min=1.0), count.amax(dim=3)


class _Maximum(_Pool):
    """Maximum in time."""

    def forward(self, values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return both smaller, as the weighted mean does."""
        lowest = torch.finfo(values.dtype).min
        count = self.pairs(there)
        found = self.pairs(self.smaller(values)).masked_fill(count == 0, lowest).amax(dim=3)
        return found * count.amax(dim=3), count.amax(dim=3)
