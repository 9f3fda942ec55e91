"""Rules on single pixels: the band ratio, the snow index, and the identity that tests use.

Each gives a probability whose 0.5 is exactly the published rule, so that a rule and a network are handled alike.
The softness is stated, not calibrated: it says how far from the threshold a pixel is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from glaciercube.models.base import GlacierModule, Masked
from glaciercube.models.contract import Contract

__all__ = ["BandRatio", "Identity", "SnowIndex"]

#: One digital number of Sentinel-2: what a reflectance is at least, before it is divided by.
TINY = 1e-4


class BandRatio(GlacierModule):
    """Red over shortwave infrared above a threshold, and blue above a threshold against shadow.

    Parameters
    ----------
    contract : Contract
        Its modality ``optical`` holds blue, red, swir16 (top-of-atmosphere reflectance, 1); its parameters
        ``threshold`` (ratio), ``blue`` (reflectance), ``softness`` (of the ratio's natural logarithm) and
        ``blue_softness`` (reflectance).

    Notes
    -----
    Paul et al. (2013), Annals of Glaciology 54(63), doi:10.3189/2013AoG63A296; threshold 2.8 as in
    Diaconu et al. (2024), arXiv:2409.12034, Figure 1.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.values = _numbers(contract)

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:  # noqa: ARG002
        """Return the smaller of two logistics, (time, y, x): of the ratio and of blue."""
        blue, red, swir = dynamic["optical"].values.unbind(dim=1)
        ratio = red.clamp(min=TINY) / swir.clamp(min=TINY)
        threshold, least = self.values["threshold"], self.values["blue"]
        bright = (ratio / threshold).log() / self.values["softness"]
        lit = (blue - least) / self.values["blue_softness"]
        return _decided(torch.minimum(bright, lit), (ratio > threshold) & (blue > least))


class SnowIndex(GlacierModule):
    """Normalised difference snow index above a threshold, optionally with a lower limit on near infrared.

    Parameters
    ----------
    contract : Contract
        Its modality ``optical`` holds green, swir16 and, where the parameter ``nir`` is a number, nir.

    Notes
    -----
    Index after Dozier (1989), doi:10.1016/0034-4257(89)90101-6; thresholds 0.4 and, against water, near infrared
    0.11 after Hall et al. (1995), doi:10.1016/0034-4257(95)00137-P.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.values = _numbers(contract)

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:  # noqa: ARG002
        """Return the logistic of the index, (time, y, x), or the smaller of it and that of near infrared."""
        green, swir, *others = dynamic["optical"].values.clamp(min=TINY).unbind(dim=1)
        index = (green - swir) / (green + swir)
        rule = index > self.values["threshold"]
        score = (index - self.values["threshold"]) / self.values["softness"]
        for nir in others:
            rule = rule & (nir > self.values["nir"])
            score = torch.minimum(score, (nir - self.values["nir"]) / self.values["nir_softness"])
        return _decided(score, rule)


class Identity(GlacierModule):
    """Return its one input variable unchanged: what shows a seam, a shift or a lost pixel."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.modality = contract.modalities[0].name

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:  # noqa: ARG002
        """Return the input, (time, y, x)."""
        return dynamic[self.modality].values[:, 0]


def _numbers(contract: Contract) -> dict[str, float]:
    return {name: float(v) for name, v in contract.parameters.items() if isinstance(v, int | float)}


def _decided(score: Tensor, rule: Tensor) -> Tensor:
    """Logistic of the score, held to the side of 0.5 that the rule names: rounding must not move a pixel across."""
    probability = torch.sigmoid(score)
    half = torch.full_like(probability, 0.5)
    above = torch.nextafter(half, torch.ones_like(half))
    return torch.where(rule, torch.maximum(probability, above), torch.minimum(probability, half))
