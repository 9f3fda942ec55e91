"""Transformer layers over the pixels or patches of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Attention", "Layer"]


class Attention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, arXiv:1706.03762).

    Parameters
    ----------
    width, heads : int
        Channels of the tokens, and how many heads share them.
    reduction : int
        Keys and values are of one token per square of so many pixels (SegFormer); 1 for all tokens.
    """

    def __init__(self, width: int, heads: int, reduction: int = 1) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        if reduction > 1:
            self.shrink = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (sample, token, width) for tokens in rows of an image of that size."""
        source = tokens
        if self.reduction > 1:
            image = torch.unflatten(tokens.transpose(1, 2), 2, size)
            source = self.norm(self.shrink(image).flatten(2).transpose(1, 2))
        query = self._split(self.query(tokens))
        key, value = (self._split(part) for part in self.key_value(source).chunk(2, dim=-1))
        found = functional.scaled_dot_product_attention(query, key, value)
        joined: Tensor = self.project(found.transpose(1, 2).flatten(2))
        return joined

    def _split(self, tokens: Tensor) -> Tensor:
        return torch.unflatten(tokens, 2, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """Attention and a perceptron, each added to its normalised input.

    Parameters
    ----------
    width, heads, hidden : int
        Channels of tokens, heads of the attention, channels within the perceptron.
    reduction : int
        Of the attention.
    mixed : bool
        Whether a depth-wise convolution within the perceptron tells tokens their neighbours (SegFormer's Mix-FFN).
    dropout : float
        Share of channels dropped in training.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, reduction: int = 1, mixed: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, reduction)
        self.rise, self.fall = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if mixed else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Return (sample, token, width)."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens), size))
        hidden = self.rise(self.norm2(tokens))
        if self.mix is not None:
            hidden = self.mix(torch.unflatten(hidden.transpose(1, 2), 2, size)).flatten(2).transpose(1, 2)
        found: Tensor = tokens + self.dropout(self.fall(torch.nn.functional.gelu(hidden)))
        return found
