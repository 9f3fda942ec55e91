"""Which models find calving fronts in the benchmark: a row of its table each, and how it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.bench.front_training import RARITY
from glaciercube.errors import require
from glaciercube.models.architectures.contracts import BRIGHTNESS, architecture_contract
from glaciercube.models.architectures.layers import DoubleConv
from glaciercube.models.architectures.segmenter import Segmenter, integers, number
from glaciercube.models.base import Masked
from glaciercube.models.classes import SIDES, Output
from glaciercube.models.contract import Contract
from glaciercube.models.reach import Windows
from glaciercube.models.registry import build_module

__all__ = ["ENTRANTS", "Entrant", "PlainUNet", "entrants_of"]

_FRONT = (Output("front_probability", ("front",)),)


class PlainUNet(Segmenter):
    """U-Net of four scales from full resolution down and dropout, as Mohajerani et al. (2019) use it.

    Parameters
    ----------
    contract : Contract
        With ``widths`` and ``dropout``.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths = integers(contract, "widths")
        self.downs = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise((self.channels, *widths)))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.joins = nn.ModuleList(DoubleConv(2 * width, width) for width in widths[:-1])
        self.dropout = nn.Dropout(number(contract, "dropout"))
        self.head = nn.Conv2d(widths[0], self.heads, 1)

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits, as `Segmenter.logits`."""
        found = self.stacked(dynamic, static_features)
        features: list[Tensor] = []
        for down in self.downs:
            features.append(self.dropout(down(functional.max_pool2d(features[-1], 2) if features else found)))
        found = features.pop()
        for up, join in zip(reversed(self.ups), reversed(self.joins), strict=True):
            found = join(torch.cat([up(found), features.pop()], dim=1))
        return self.squeezed(self.head(found))


@dataclass(frozen=True)
class Entrant:
    """A row of the table.

    Attributes
    ----------
    title : str
        As it is called there.
    name : str
        As files and ``--models`` have it.
    size : (int, int)
        Rows and columns of its crops.
    """

    title: str
    name: str
    size: tuple[int, int] = (256, 192)

    def contract(self) -> Contract:
        """Contract over one grey band, with the sides of the front as classes, or the front alone for the U-Net."""
        if self.name == "plain-unet":
            # The loss weighs the front by its rarity; the shift takes that out of the probabilities again.
            shift = -math.log(RARITY)
            usual = architecture_contract("front-unet", widths=(32, 64, 128, 256), dropout=0.2, shift=shift)
            # Five convolutions at each of three scales, two at the deepest, and the pixels that pooling joins.
            return replace(
                usual, name=self.name, classes=("other", "front"), outputs=_FRONT, stride=8, receptive_field=64
            )
        if self.name == "front-unet":
            return architecture_contract(self.name)
        windows = Windows(256, 128, margin=64) if self.name == "hooknet" else None
        return architecture_contract(
            self.name, modalities=(BRIGHTNESS,), classes=SIDES, outputs=_FRONT, windows=windows
        )

    def module(self) -> Segmenter:
        """Untrained."""
        contract = self.contract()
        if self.name == "plain-unet":
            return PlainUNet(contract)
        module = build_module(contract)
        if not isinstance(module, Segmenter):
            raise TypeError(f"{self.name} is no segmenter")
        return module


ENTRANTS: Final = (
    Entrant("front-unet", "front-unet"),
    Entrant("U-Net, front alone (as Mohajerani et al.)", "plain-unet"),
    Entrant("HED-UNet", "hed-unet"),
    Entrant("AMD-HookNet", "hooknet", (256, 256)),
)


def entrants_of(names: Sequence[str] = ()) -> list[Entrant]:
    """Those of some names; without any, all.

    Raises
    ------
    ConfigError
        If there is none of a name.
    """
    known = [entrant.name for entrant in ENTRANTS]
    for name in names:
        require(name in known, f"the benchmark has no front model {name!r}", f"choose among {', '.join(known)}")
    return [entrant for entrant in ENTRANTS if not names or entrant.name in names]
