"""Residual networks as encoders, with the parameter names that published weights have.

He et al. (2016), doi:10.1109/CVPR.2016.90. Written here and not taken from a library: segmentation-models-pytorch needs
timm and torchvision, whose only builds beside torch for CPUs bring 3 GB of CUDA and do not import without a patch of
torch's operators. With the names of torchvision, its safetensors weights fit; a test holds both against each other
where the library is at hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["ResNet"]

_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class ResNet(nn.Module):
    """Features at five scales of a residual network.

    Parameters
    ----------
    name : str
        ``resnet18``, ``resnet34`` (basic blocks) or ``resnet50`` (bottlenecks).
    channels : int
        Of the input.
    output_stride : int
        32, or 16: the last stage then keeps its resolution and is dilated.
    widths : sequence of int
        Of the four stages.
    """

    def __init__(self, name: str, channels: int, *, output_stride: int = 32, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        deep = name == "resnet50"
        grow = 4 if deep else 1
        self.conv1 = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = widths[0]
        for number, (width, depth) in enumerate(zip(widths, _DEPTHS[name], strict=True), start=1):
            last = number == len(widths) and output_stride < 32
            stride = 1 if number == 1 or last else 2
            dilation = 2 if last else 1
            blocks: list[nn.Module] = []
            for place in range(depth):
                make = _Bottleneck if deep else _Basic
                blocks.append(make(inputs, width, stride if place == 0 else 1, dilation))
                inputs = width * grow
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.widths = (widths[0], *(width * grow for width in widths))

    def forward(self, values: Tensor) -> list[Tensor]:
        """Return features at 1/2, 1/4, 1/8, 1/16 and 1/32 (or 1/16) of the resolution."""
        features = self.relu(self.bn1(self.conv1(values)))
        found = [features]
        features = self.maxpool(features)
        for number in range(1, 5):
            features = getattr(self, f"layer{number}")(features)
            found.append(features)
        return found


class _Basic(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, values: Tensor) -> Tensor:
        found = self.relu(self.bn1(self.conv1(values)))
        found = self.bn2(self.conv2(found))
        short = values if self.downsample is None else self.downsample(values)
        added: Tensor = self.relu(found + short)
        return added


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, values: Tensor) -> Tensor:
        found = self.relu(self.bn1(self.conv1(values)))
        found = self.relu(self.bn2(self.conv2(found)))
        found = self.bn3(self.conv3(found))
        short = values if self.downsample is None else self.downsample(values)
        added: Tensor = self.relu(found + short)
        return added


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
