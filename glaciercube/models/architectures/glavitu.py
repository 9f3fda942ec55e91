"""``glavitu``: modalities fused, then a vision transformer, then a residual U-Net.

Maslov et al. (2025), doi:10.1038/s41467-024-54956-x, and IGARSS 2023, doi:10.1109/IGARSS52108.2023.10281828. Without
the optional encodings of region and coordinates. The static modality is fused once for all dates, which changes
nothing: fusion is a sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models.architectures.layers import LEAK, conv_norm, enlarge
from glaciercube.models.architectures.resunet import ResUNet
from glaciercube.models.architectures.segmenter import Segmenter, Supervised, integer, integers, number
from glaciercube.models.architectures.transformer import Layer
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract

__all__ = ["GlaViTU"]

_HALVINGS = 4
_PATCH = 2**_HALVINGS
_AUXILIARY = 0.5


class GlaViTU(Segmenter):
    """Fusion, transformer and residual U-Net over windows of one size.

    Parameters
    ----------
    contract : Contract
        With ``widths`` (of the U-Net; the first is that of fusion and transformer), ``layers``, ``attention_heads`` and
        ``hidden`` of the transformer, and ``dropout``. The size of its windows is that of the learned positions.
    """

    absent_is_missing = False  # a modality of zeros still adds its biases to the sum

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths = integers(contract, "widths")
        if contract.windows is None or contract.windows.size % _PATCH:
            raise ModelError(
                f"model {contract.name!r} learns the places of patches of {_PATCH} pixels and its contract has windows "
                f"{contract.windows}",
                f"give windows whose size is a multiple of {_PATCH}",
            )
        self.fusions = nn.ModuleDict({m.name: _Fusion(len(m.variables), widths[0]) for m in contract.modalities})
        self.transformer = _Transformer(contract, widths[0], (contract.windows.size // _PATCH) ** 2)
        self.refine = ResUNet(widths[0], widths)
        self.early = nn.Conv2d(widths[0], self.heads, 1)
        self.head = nn.Conv2d(widths[0], self.heads, 1)

    def encode_static(self, static: Mapping[str, Masked]) -> Tensor | None:
        """Sum of the fused static modalities, (1, width, y, x); None without any."""
        return _sum([self.fusions[name](entry.values) for name, entry in static.items()])

    def supervised(self, dynamic: Mapping[str, Masked], static_features: Any) -> list[Supervised]:
        """Return the map and that of the transformer alone, which is trained at half the weight."""
        moving = _sum([self.fusions[name](entry.values) for name, entry in dynamic.items()])
        fused = _sum([part for part in (moving, static_features) if part is not None])
        if fused is None:
            raise ModelError("glavitu got no input", "give it at least one modality")
        seen = fused + self.transformer(fused)
        refined = seen + self.refine(seen)
        main, early = self.squeezed(self.head(refined)), self.squeezed(self.early(seen))
        return [Supervised(main, 1.0), Supervised(early, _AUXILIARY)]


def _sum(parts: list[Tensor]) -> Tensor | None:
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class _Fusion(nn.Module):
    """Two convolutions of one modality, and a gate by channel from the window's mean."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm(channels, width, leak=LEAK, bias=True), conv_norm(width, width, leak=LEAK, bias=True)
        )
        self.gate = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(LEAK), nn.Linear(width, width), nn.Sigmoid())

    def forward(self, values: Tensor) -> Tensor:
        features = self.layers(values)
        gated: Tensor = features * self.gate(features.mean(dim=(2, 3)))[:, :, None, None]
        return gated


class _Transformer(nn.Module):
    """Patches, layers before which tokens are normalised, and a progressive decoder (Zheng et al. 2021, SETR-PUP)."""

    def __init__(self, contract: Contract, width: int, patches: int) -> None:
        super().__init__()
        dropout = number(contract, "dropout")
        depth, heads, hidden = (integer(contract, name) for name in ("layers", "attention_heads", "hidden"))
        self.embed = nn.Conv2d(width, width, _PATCH, stride=_PATCH)
        self.places = nn.Parameter(torch.zeros(1, patches, width))
        nn.init.normal_(self.places, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(width, heads, hidden, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.rises = nn.ModuleList(conv_norm(width, width, bias=True) for _ in range(_HALVINGS))
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.embed(image)
        size = (patches.shape[2], patches.shape[3])
        tokens = self.dropout(patches.flatten(2).transpose(1, 2) + self.places)
        for layer in self.layers:
            tokens = layer(tokens, size)
        found = torch.unflatten(self.norm(tokens).transpose(1, 2), 2, size)
        for rise in self.rises:
            found = enlarge(rise(found), 2)
        last: Tensor = self.last(found)
        return last
