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
        weighted = contract.parameters["pooling"] == "weighted"
        self.pools = nn.ModuleList(_Weighted(width) if weighted else _Maximum() for width in widths)
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
            index, present = neighbours.index, neighbours.present
        # (date, place, channel, y, x) -> (date, channel, place, y, x)
        values = stack[index].transpose(1, 2)
        there = present[:, None, :, None, None].to(values.dtype)
        values, features = values * there, []
        for number, (block, pool) in enumerate(zip(self.blocks, self.pools, strict=True)):
            if number:
                short = 2 if values.shape[2] > 1 else 1
                values = functional.max_pool3d(values, (short, 2, 2))
                there = functional.max_pool3d(there, (short, 1, 1))
            values = block(values)
            features.append(pool(values, there))
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


class _Weighted(nn.Module):
    """Mean in time, each date and channel weighted by what the image of that date is like as a whole."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.first = nn.Conv1d(width, half, 3, padding=1)
        self.second = nn.Conv1d(half, width, 3, padding=1)

    def forward(self, values: Tensor, there: Tensor) -> Tensor:
        """Return (date, channel, y, x) from (date, channel, place, y, x) and which places there are."""
        peaks = functional.max_pool3d(values, (1, 2, 2)) if min(values.shape[3:]) > 1 else values
        weight = torch.sigmoid(self.second(functional.silu(self.first(peaks.mean(dim=(3, 4))))))
        kept = weight[..., None, None] * there
        return (values * kept).sum(dim=2) / there.sum(dim=2).clamp(min=1.0)


class _Maximum(nn.Module):
    """Maximum in time."""

    def forward(self, values: Tensor, there: Tensor) -> Tensor:
        """Return (date, channel, y, x) from (date, channel, place, y, x) and which places there are."""
        lowest = torch.finfo(values.dtype).min
        return values.masked_fill(there == 0, lowest).amax(dim=2)
