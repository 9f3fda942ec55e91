"""``deeplab``: DeepLabv3+, as GlacierNet2 and studies of rock glaciers and fronts use it.

Chen et al. (2018), doi:10.1007/978-3-030-01234-2_49: a dilated encoder, atrous pyramid pooling with separable
convolutions and a pooled image, and a decoder that joins features at a quarter of the resolution. The studies differ in
the encoder (ResNet, Xception, ResNeSt); here it is a residual network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.models.architectures.layers import conv_norm, enlarge
from glaciercube.models.architectures.resnet import ResNet
from glaciercube.models.architectures.segmenter import Segmenter, integers
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract

__all__ = ["DeepLab"]


class DeepLab(Segmenter):
    """DeepLabv3+ over one stack of inputs, at output stride 16.

    Parameters
    ----------
    contract : Contract
        With ``encoder``, ``widths`` (of the encoder), ``pyramid`` (channels of the pyramid), ``low`` (channels of the
        early features) and ``rates`` (of the dilations).
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        name = str(contract.parameters["encoder"])
        self.encoder = ResNet(name, self.channels, output_stride=16, widths=integers(contract, "widths"))
        (pyramid,), (low,) = integers(contract, "pyramid"), integers(contract, "low")
        self.pyramid = _Pyramid(self.encoder.widths[-1], pyramid, integers(contract, "rates"))
        self.low = conv_norm(self.encoder.widths[1], low, 1)
        self.join = _separable(pyramid + low, pyramid)
        self.head = nn.Conv2d(pyramid, self.heads, 1)

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits, as `Segmenter.logits`."""
        features = self.encoder(self.stacked(dynamic, static_features))
        deep = enlarge(self.pyramid(features[-1]), 4)
        found = self.head(self.join(torch.cat([deep, self.low(features[1])], dim=1)))
        return self.squeezed(enlarge(found, 4))


class _Pyramid(nn.Module):
    def __init__(self, inputs: int, width: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm(inputs, width, 1)])
        self.branches.extend(_separable(inputs, width, dilation=rate) for rate in rates)
        # No normalisation of the pooled image: over a single pixel a batch of one has no spread.
        self.pooled = nn.Sequential(nn.Conv2d(inputs, width, 1), nn.ReLU())
        self.project = nn.Sequential(conv_norm((2 + len(rates)) * width, width, 1), nn.Dropout(0.5))
        self.last = _separable(width, width)

    def forward(self, values: Tensor) -> Tensor:
        image = self.pooled(values.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *values.shape[2:])
        joined = torch.cat([*(branch(values) for branch in self.branches), image], dim=1)
        found: Tensor = self.last(self.project(joined))
        return found


def _separable(inputs: int, outputs: int, *, dilation: int = 1) -> nn.Sequential:
    """Convolution of each channel alone, then of all channels at each pixel."""
    each = nn.Conv2d(inputs, inputs, 3, padding=dilation, dilation=dilation, groups=inputs, bias=False)
    return nn.Sequential(each, conv_norm(inputs, outputs, 1))
