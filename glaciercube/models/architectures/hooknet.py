"""``hooknet``: a target in full resolution and its context in half, in two U-Nets that meet in the decoder.

Wu et al. (2023), doi:10.1109/TGRS.2023.3245419 (AMD-HookNet), for calving fronts in radar images. The window is the
context; its middle is the target, and the only part that is predicted. Attention is scaled before the softmax, as
usual, and not after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.models.architectures.layers import DoubleConv
from glaciercube.models.architectures.segmenter import Segmenter, Supervised, integers
from glaciercube.models.base import Masked
from glaciercube.models.contract import Contract

__all__ = ["HookNet"]

_SCALES = 5


class HookNet(Segmenter):
    """Two U-Nets of four halvings, hooked together at three scales of the decoder by self-attention.

    Parameters
    ----------
    contract : Contract
        With the five ``widths``. Sides of windows are multiples of 64.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths = integers(contract, "widths")
        self.context = _Encoder(self.channels, widths)
        self.target = _Encoder(self.channels, widths)
        self.context_ups = nn.ModuleList(_Up(b, a) for a, b in pairwise(widths))
        # The context's features are hooked in at the three deepest of four steps.
        self.hooks = nn.ModuleList(_Hook(a + b, a) for a, b in list(pairwise(widths))[1:])
        self.target_up = _Up(widths[1], widths[0])
        self.context_head = nn.Conv2d(widths[0], self.heads, 1)
        self.head = nn.Conv2d(widths[0], self.heads, 1)
        self.sides = nn.ModuleList(nn.Conv2d(width, self.heads, 1) for width in widths[1:-1])

    def supervised(self, dynamic: Mapping[str, Masked], static_features: Any) -> list[Supervised]:
        """Return the map, 0 outside the target; that of the context at half resolution; and the hooks', coarser yet.

        The hooks' maps show the target alone.
        """
        stack = self.stacked(dynamic, static_features)
        wide = self.context(functional.avg_pool2d(stack, 2))
        decoded = [wide[-1]]
        for place in reversed(range(_SCALES - 1)):
            decoded.insert(0, self.context_ups[place](decoded[0], wide[place]))
        near = self.target(_middle(stack))
        found, sides = near[-1], []
        for place in reversed(range(len(self.hooks))):
            # The context's step up has the ground of a pixel of the target's step below.
            found = self.hooks[place](found, _middle(decoded[place + 1]), near[place + 1])
            sides.append(Supervised(self.squeezed(self.sides[place](found)), 1.0, middle=True))
        found = self.head(self.target_up(found, near[0]))
        edge = [(length - inner) // 2 for length, inner in zip(stack.shape[2:], found.shape[2:], strict=True)]
        whole = functional.pad(found, (edge[1], edge[1], edge[0], edge[0]))
        context = self.squeezed(self.context_head(decoded[0]))
        return [Supervised(self.squeezed(whole), 1.0), Supervised(context, 1.0), *sides]


def _middle(values: Tensor) -> Tensor:
    """The middle half of rows and columns."""
    height, width = values.shape[-2:]
    return values[..., height // 4 : height - height // 4, width // 4 : width - width // 4]


class _Encoder(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DoubleConv(a, b, bias=True) for a, b in pairwise((channels, *widths)))

    def forward(self, values: Tensor) -> list[Tensor]:
        found = [self.blocks[0](values)]
        for block in list(self.blocks)[1:]:
            found.append(block(functional.max_pool2d(found[-1], 2)))
        return found


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.rise = nn.ConvTranspose2d(inputs, inputs, 2, stride=2)
        self.narrow = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.join = DoubleConv(2 * outputs, outputs, middle=max(1, outputs // 2), bias=True)

    def forward(self, values: Tensor, skip: Tensor) -> Tensor:
        found: Tensor = self.join(torch.cat([self.narrow(self.rise(values)), skip], dim=1))
        return found


class _Hook(nn.Module):
    """Target and context side by side, attention among all pixels of both, and a step up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = max(1, outputs // 2)
        self.query, self.key, self.value = (nn.Conv2d(inputs, inputs, 1) for _ in range(3))
        self.share = nn.Parameter(torch.zeros(1))
        self.rise = nn.ConvTranspose2d(inputs, inputs, 2, stride=2)
        self.narrow = DoubleConv(inputs, outputs, middle=half, bias=True)
        self.join = DoubleConv(2 * outputs, outputs, middle=half, bias=True)

    def forward(self, target: Tensor, context: Tensor, skip: Tensor) -> Tensor:
        both = torch.cat([target, context], dim=1)
        query, key, value = (layer(both).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        tokens = functional.scaled_dot_product_attention(query, key, value)
        seen = torch.unflatten(tokens.transpose(1, 2), 2, both.shape[2:])
        found: Tensor = self.join(torch.cat([self.narrow(self.rise(both + self.share * seen)), skip], dim=1))
        return found
