"""Layers that several architectures use."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DoubleConv", "ResidualBlock", "conv_norm", "enlarge"]

#: Slope of Keras' leaky ReLU, which GlaViTU and ICEmapper use.
LEAK = 0.3


def conv_norm(
    inputs: int,
    outputs: int,
    size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    relu: bool = True,
    leak: float = 0.0,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution that keeps the size (divided by the stride), batch normalisation, and a (leaky) ReLU."""
    padding = dilation * (size // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.LeakyReLU(leak) if leak else nn.ReLU())
    return nn.Sequential(*layers)


class DoubleConv(nn.Sequential):
    """Two convolutions of 3 by 3 pixels with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, middle: int | None = None, bias: bool = False) -> None:
        middle = middle or outputs
        super().__init__(conv_norm(inputs, middle, bias=bias), conv_norm(middle, outputs, bias=bias))


class ResidualBlock(nn.Module):
    """Two convolutions of 3 by 3 with batch normalisation and leaky ReLU, added to a projection of the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, leak=LEAK, bias=True)
        self.second = conv_norm(outputs, outputs, leak=LEAK, bias=True)
        self.project = nn.Conv2d(inputs, outputs, 1)

    def forward(self, values: Tensor) -> Tensor:
        """Return (sample, outputs, y, x)."""
        found: Tensor = self.second(self.first(values)) + self.project(values)
        return found


def enlarge(values: Tensor, factor: int, *, mode: str = "bilinear") -> Tensor:
    """Enlarge (sample, channel, y, x) by a whole factor, pixels as areas."""
    if factor == 1:
        return values
    corners = None if mode == "nearest" else False
    return functional.interpolate(values, scale_factor=factor, mode=mode, align_corners=corners)
