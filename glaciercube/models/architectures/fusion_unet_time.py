"""``fusion-unet-time``: `fusion-unet` whose dates look at their neighbours in time.

One encoder serves every date; the terrain is encoded once. At the coarsest scale each pixel of a date attends to the
same pixel of its neighbours, by what they show and by how many days lie between. The weights found there mix the
neighbours' features at every scale (as Garnot and Landrieu 2021, doi:10.1109/ICCV48922.2021.00483, mix a series into
one map), and what is mixed is added to the date's own, through layers that begin at 0: with the weights of a trained
`fusion-unet` it begins as that model. A pixel that a neighbour does not show weighs nothing there, and a place for
nothing takes the weight that no neighbour deserves. Attention looks along time alone, so that the receptive field in
space is that of `fusion-unet`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.errors import ModelError
from glaciercube.models.architectures.layers import enlarge
from glaciercube.models.architectures.segmenter import integer, integers
from glaciercube.models.base import Masked, Neighbours
from glaciercube.models.contract import Contract
from glaciercube.models.fusion_unet import Encoded, FusionUNet

__all__ = ["FusionUNetTime"]

#: Periods in days of the waves that tell how far apart two dates are: weeks, a season, a year, four years.
_PERIODS = (24.0, 96.0, 365.25, 1461.0)


class FusionUNetTime(FusionUNet):
    """`FusionUNet` with attention over neighbouring dates.

    Parameters
    ----------
    contract : Contract
        With ``widths`` and ``attention_heads``, of which every width is a multiple; and a time context.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths, self.attention_heads = integers(contract, "widths"), integer(contract, "attention_heads")
        if contract.time_context is None or any(width % self.attention_heads for width in widths):
            raise ModelError(
                f"model {contract.name!r} has no time context, or widths {widths} and {self.attention_heads} heads",
                "make its contract with architecture_contract('fusion-unet-time'), widths being multiples of the heads",
            )
        self.query, self.key = (nn.Conv2d(widths[-1], widths[-1], 1) for _ in range(2))
        self.lag = nn.Linear(2 * len(_PERIODS), widths[-1])
        self.nothing = nn.Parameter(torch.zeros(self.attention_heads))
        self.mixes = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for width in widths)
        self.ratio_mix = nn.Parameter(torch.zeros(()))
        for mix in self.mixes:
            nn.init.zeros_(next(mix.parameters()))

    def forward(
        self, dynamic: Mapping[str, Masked], static_features: Any, neighbours: Neighbours | None = None
    ) -> Tensor:
        """Return calibrated probabilities of the dates that `neighbours` are given for."""
        return self.calibrated(self.series(dynamic, static_features, neighbours))

    def series(self, dynamic: Mapping[str, Masked], static_features: Any, neighbours: Neighbours | None) -> Tensor:
        """Return logits of the dates that `neighbours` are given for, of each for itself where there are none."""
        encoded = self.encode(dynamic, static_features)
        if neighbours is not None:
            encoded = self._joined(encoded, neighbours)
        return self.decode(encoded, static_features)

    def _joined(self, encoded: Encoded, neighbours: Neighbours) -> Encoded:
        """The dates to be predicted, each with what it takes from its neighbours."""
        context = self.contract.time_context
        own = neighbours.which[:, 0 if context is None else context.earlier]
        weights = self._attention(encoded, neighbours, own)
        skips: list[Tensor] = []
        ratio = encoded.ratio[own]
        seen = encoded.seen
        for level, (found, mix) in enumerate(zip(encoded.skips, self.mixes, strict=True)):
            large = enlarge(weights.flatten(1, 2), 2 ** (len(self.mixes) - 1 - level))
            here = torch.unflatten(large, 1, weights.shape[1:3])
            taken = self._taken(here, found, seen, neighbours)
            skips.append(found[own] + mix(taken))
            if level == 0:
                # The band ratio of the neighbours, by the mean of the heads.
                mean = here.mean(dim=1, keepdim=True)
                ratio = ratio + self.ratio_mix * self._taken(mean, encoded.ratio, seen, neighbours)
            if level + 1 < len(self.mixes):
                seen = functional.max_pool2d(seen, 2)
        return Encoded(skips, ratio, encoded.seen[own])

    def _attention(self, encoded: Encoded, neighbours: Neighbours, own: Tensor) -> Tensor:
        """Weights (date, head, place + 1, y, x) at the coarsest scale; the last place is nothing."""
        deep = encoded.skips[-1]
        scale = 2 ** (len(encoded.skips) - 1)
        seen = functional.max_pool2d(encoded.seen, scale) > 0
        heads = (self.attention_heads, -1)
        query = torch.unflatten(self.query(deep)[own], 1, heads)
        key = self.key(deep)
        lag = self.lag(_waves(neighbours.days))
        scores = []
        for place in range(neighbours.which.shape[1]):
            index = neighbours.which[:, place]
            keys = torch.unflatten(key[index] + lag[:, place, :, None, None], 1, heads)
            score = (query * keys).sum(dim=2) / math.sqrt(query.shape[2])
            shown = seen[index] & neighbours.present[:, place, None, None, None]
            scores.append(score.masked_fill(~shown, -torch.inf))
        nothing = self.nothing.view(1, -1, 1, 1).expand_as(scores[0])
        return torch.softmax(torch.stack([*scores, nothing], dim=2), dim=2)

    @staticmethod
    def _taken(weights: Tensor, values: Tensor, seen: Tensor, neighbours: Neighbours) -> Tensor:
        """Weighted mean (date, channel, y, x) over the neighbours that show the pixel, nothing among them."""
        heads = weights.shape[1]
        # One neighbour after the other: all at once would hold a copy of the features for each.
        total = weights[:, :, -1]
        taken = torch.zeros_like(values[neighbours.which[:, 0]])
        for place in range(neighbours.which.shape[1]):
            index = neighbours.which[:, place]
            weight = weights[:, :, place] * seen[index]
            total = total + weight
            shares = torch.unflatten(values[index], 1, (heads, -1)) * weight[:, :, None]
            taken = taken + shares.flatten(1, 2)
        mean = torch.unflatten(taken, 1, (heads, -1)) / total.clamp(min=1e-6)[:, :, None]
        return mean.flatten(1, 2)


def _waves(days: Tensor) -> Tensor:
    """Sines and cosines (date, place, 8) of lags (date, place) in days."""
    angle = days[..., None] * (2 * math.pi / days.new_tensor(_PERIODS))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
