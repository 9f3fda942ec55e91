"""``glaciernet``: an encoder and decoder that remember where each maximum stood (SegNet), as GlacierNet.

Xie et al. (2020), doi:10.1109/ACCESS.2020.2991187, chose the type, number and size of layers by trial on Landsat bands
and land-surface parameters; SegNet: Badrinarayanan et al. (2017), doi:10.1109/TPAMI.2016.2644615. GlacierNet's own
sizes are not at hand: the default widths are SegNet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.models.architectures.layers import conv_norm
from glaciercube.models.architectures.segmenter import Segmenter, integers
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract

__all__ = ["GlacierNet"]


class GlacierNet(Segmenter):
    """SegNet over one stack of inputs.

    Parameters
    ----------
    contract : Contract
        With ``widths`` and ``depths``: channels, and convolutions, of each resolution.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths, depths = integers(contract, "widths"), integers(contract, "depths")
        inputs = (self.channels, *widths[:-1])
        self.encoder = nn.ModuleList(_stage(a, b, b, depth) for a, b, depth in zip(inputs, widths, depths, strict=True))
        outputs = (widths[0], *widths[:-1])
        self.decoder = nn.ModuleList(
            _stage(b, b, a, depth) for a, b, depth in zip(outputs, widths, depths, strict=True)
        )
        # SegNet's last convolution gives the classes; the one before it is the last of its first stage.
        self.decoder[0] = _stage(widths[0], widths[0], widths[0], depths[0] - 1)
        self.head = nn.Conv2d(widths[0], self.heads, 3, padding=1)

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits, as `Segmenter.logits`."""
        features, places = self.stacked(dynamic, static_features), []
        for stage in self.encoder:
            features, place = functional.max_pool2d(stage(features), 2, return_indices=True)
            places.append(place)
        for stage, place in zip(reversed(self.decoder), reversed(places), strict=True):
            features = stage(_unpooled(features, place))
        return self.squeezed(self.head(features))


def _unpooled(values: Tensor, places: Tensor) -> Tensor:
    """Each maximum where it stood, (…, 2 y, 2 x), and 0 elsewhere.

    Written with `scatter`, since `max_unpool2d` cannot be exported for any size.
    """
    size = (2 * values.shape[-2], 2 * values.shape[-1])
    flat = values.new_zeros(*values.shape[:2], size[0] * size[1])
    filled = flat.scatter(2, places.flatten(2), values.flatten(2))
    return torch.unflatten(filled, 2, size)


def _stage(inputs: int, middle: int, outputs: int, depth: int) -> nn.Sequential:
    widths = [inputs, *(middle,) * (depth - 1), outputs]
    return nn.Sequential(*(conv_norm(a, b, bias=True) for a, b in pairwise(widths)))
