"""``unet-resnet``: a U-Net with a ResNet-34 encoder, as DL4GAM uses it.

Diaconu et al. (2025), Earth and Space Science, e2025EA004197: bands and normalised difference indices beside terrain
and elevation change in one stack, a decoder without batch normalisation, one logit. U-Net: Ronneberger et al. (2015),
doi:10.1007/978-3-319-24574-4_28. Parameters carry the names of segmentation-models-pytorch's ``Unet``, so that such
weights fit, once they are safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.models.architectures.layers import enlarge
from glaciercube.models.architectures.resnet import ResNet
from glaciercube.models.architectures.segmenter import Segmenter, integers
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract, Modality

__all__ = ["Indices", "UNetResNet"]


class Indices(nn.Module):
    """Normalised difference indices of the optical bands: vegetation, water and snow; no weights.

    Parameters
    ----------
    modality : Modality
        With red, green, nir and swir16, whose normalisation is undone.
    """

    pairs = (("nir", "red"), ("green", "nir"), ("green", "swir16"))

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self._index = {name: i for i, name in enumerate(modality.variables)}
        self._scale = tuple(zip(modality.mean, modality.std, strict=True))

    def forward(self, entry: Masked) -> Tensor:
        """Return (time, 3, y, x) in -1..1, 0 where missing."""
        band = {
            name: (entry.values[:, i] * self._scale[i][1] + self._scale[i][0]).clamp(min=1e-4)
            for name, i in self._index.items()
        }
        found = [(band[a] - band[b]) / (band[a] + band[b]) for a, b in self.pairs]
        return torch.stack(found, dim=1) * entry.valid.to(entry.values.dtype)


class UNetResNet(Segmenter):
    """U-Net over one stack of inputs.

    Parameters
    ----------
    contract : Contract
        With ``encoder``, ``widths`` (of the encoder), ``decoder`` (widths from the deepest up), ``norm`` (whether the
        decoder normalises) and ``indices`` (whether indices join the bands).
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        self.indices = Indices(contract.modality("optical")) if contract.parameters["indices"] else None
        channels = self.channels + (len(Indices.pairs) if self.indices is not None else 0)
        self.encoder = ResNet(str(contract.parameters["encoder"]), channels, widths=integers(contract, "widths"))
        norm = bool(contract.parameters["norm"])
        widths = integers(contract, "decoder")
        self.decoder = _Decoder(self.encoder.widths, widths, norm=norm)
        self.segmentation_head = nn.Sequential(nn.Conv2d(widths[-1], self.heads, 3, padding=1))

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits, as `Segmenter.logits`."""
        stack = self.stacked(dynamic, static_features)
        if self.indices is not None:
            given = dynamic.get("optical")
            shape = (stack.shape[0], len(Indices.pairs), *stack.shape[2:])
            more = stack.new_zeros(shape) if given is None else self.indices(given)
            stack = torch.cat([stack, more], dim=1)
        return self.squeezed(self.segmentation_head(self.decoder(self.encoder(stack))))


class _Decoder(nn.Module):
    def __init__(self, encoder: tuple[int, ...], widths: tuple[int, ...], *, norm: bool) -> None:
        super().__init__()
        deep = list(reversed(encoder))
        inputs = [deep[0], *widths[:-1]]
        skips = [*deep[1:], 0]
        self.blocks = nn.ModuleList(_Block(a + b, c, norm=norm) for a, b, c in zip(inputs, skips, widths, strict=True))

    def forward(self, features: list[Tensor]) -> Tensor:
        found, *skips = reversed(features)
        for place, block in enumerate(self.blocks):
            found = enlarge(found, 2, mode="nearest")
            if place < len(skips):
                found = torch.cat([found, skips[place]], dim=1)
            found = block(found)
        return found


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, norm: bool) -> None:
        super().__init__()
        pairs = pairwise((inputs, outputs, outputs))
        self.conv1, self.conv2 = (self._layer(a, b, norm=norm) for a, b in pairs)

    @staticmethod
    def _layer(inputs: int, outputs: int, *, norm: bool) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)
        return nn.Sequential(conv, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU())

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.conv2(self.conv1(values))
        return found
