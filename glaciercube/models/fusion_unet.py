"""``fusion-unet``: a small U-Net with a branch per modality, for any subset of its sensors.

Each dynamic modality has a stem; what is valid of them is averaged pixel by pixel and goes through one encoder. Static
modalities are averaged likewise into an encoder of their own, run once per block, whose features join the decoder at
every level: one pass over the terrain serves every date. No layer looks further than its kernel, so that the receptive
field is finite and a block with that halo gives the same pixels wherever it is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.errors import ModelError
from glaciercube.models.architectures.segmenter import Segmenter, integers
from glaciercube.models.base import Masked
from glaciercube.models.classes import GROUND, Output
from glaciercube.models.contract import Contract, Modality

__all__ = [
    "MODALITIES",
    "OUTPUTS",
    "Encoded",
    "FusionUNet",
    "OpticalFeatures",
    "StaticPyramid",
    "fusion_contract",
    "receptive_field",
]

StaticPyramid: TypeAlias = list[Tensor] | None

OPTICAL_BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
#: Pairs whose ratio does not change with illumination: snow and ice (red, green, NIR over SWIR), water, plants,
#: rock and debris (SWIR over SWIR, blue over red).
_RATIOS: tuple[tuple[str, str], ...] = (
    ("red", "swir16"),
    ("green", "swir16"),
    ("nir", "swir16"),
    ("green", "nir"),
    ("nir", "red"),
    ("swir16", "swir22"),
    ("blue", "red"),
)
_DARKEST, _BRIGHTEST = 2e-3, 1.6
#: Threshold of red over SWIR whose logit the optical branch starts from (Diaconu et al. 2024, arXiv:2409.12034).
_BAND_RATIO = 2.8
_RATIO_REACH = 1.5
#: Classes that a high band ratio speaks for.
_BRIGHT = ("glacier", "clean_ice", "seasonal_snow")


# Reflectance stays as it is: its logarithms and ratios are taken in the module.
_OPTICAL = Modality("optical", OPTICAL_BANDS)
_ILLUMINATION = Modality("illumination", ("hillshade",), mean=(0.5,), std=(0.3,), clip=(-3.0, 3.0), evidence=False)
_RADAR = Modality("radar", ("vv_db", "vh_db"), mean=(-11.0, -18.0), std=(5.0, 5.0), clip=(-4.0, 4.0))
_COHERENCE = Modality("coherence", ("coherence",), mean=(0.5,), std=(0.25,), clip=(-3.0, 3.0), evidence=False)
_TERRAIN = Modality(
    "terrain",
    ("slope", "aspect_sin", "aspect_cos", "curvature"),
    static=True,
    mean=(20.0, 0.0, 0.0, 0.0),
    std=(14.0, 0.7, 0.7, 0.02),
    clip=(-4.0, 4.0),
)
_RELIEF = Modality("relief", ("topographic_position",), static=True, clip=(-3.0, 3.0), evidence=False)
_CHANGE = Modality("elevation_change", ("elevation_change",), static=True, std=(1.0,), clip=(-5.0, 5.0), evidence=False)
_VELOCITY = Modality("velocity", ("velocity",), static=True, std=(20.0,), clip=(-5.0, 5.0), evidence=False)

#: What the fusion models may be given. No absolute elevation: it does not carry over to an unseen range.
MODALITIES = (_OPTICAL, _ILLUMINATION, _RADAR, _COHERENCE, _TERRAIN, _RELIEF, _CHANGE, _VELOCITY)
#: Sums of classes that the fusion models give.
OUTPUTS = (Output(classes=("clean_ice", "debris_covered_ice")),)


def fusion_contract(
    *,
    widths: tuple[int, ...] = (16, 32, 64, 96),
    temperature: float = 1.0,
    shift: float = 0.0,
    modalities: tuple[Modality, ...] = MODALITIES,
    classes: tuple[str, ...] = GROUND,
    outputs: tuple[Output, ...] = OUTPUTS,
) -> Contract:
    """Contract of ``fusion-unet``.

    Parameters
    ----------
    widths : tuple of int
        Channels at full resolution and after each halving.
    temperature : float
        What the logit is divided by, fitted on held-out scenes (Guo et al. 2017, arXiv:1706.04599).
    shift : float
        What is then added to that of the glacier classes, fitted with the temperature.
    modalities : tuple of Modality
        Inputs, any of them of names and variables of one's own; ``optical`` must hold the six bands.
    classes : tuple of str
        What to tell apart.
    outputs : tuple of Output
        Sums of classes.
    """
    return Contract(
        name="fusion-unet",
        version="3",
        architecture="fusion-unet",
        modalities=modalities,
        parameters={"widths": tuple(widths), "temperature": float(temperature), "shift": float(shift)},
        reflectance="either",
        receptive_field=receptive_field(len(widths) - 1),
        stride=2 ** (len(widths) - 1),
        resolution=(10.0, 30.0),
        classes=classes,
        outputs=outputs,
        description=(
            "Clean and debris-covered glacier ice, seasonal snow and water from any subset of Sentinel-2, Sentinel-1, "
            "coherence, terrain, elevation change and velocity; small U-Net trained on a simulated world."
        ),
        references=("https://doi.org/10.1007/978-3-319-24574-4_28", "https://arxiv.org/abs/2409.12034"),
    )


def receptive_field(halvings: int) -> int:
    """Pixels on each side that an output pixel of `FusionUNet` can see, for its worst place in a block.

    Parameters
    ----------
    halvings : int
        Number of 2 by 2 poolings; two 3 by 3 convolutions stand at each level on the way down and up.

    Raises
    ------
    ModelError
        If there are less than none: of no widths.
    """
    if halvings < 0:
        raise ModelError("fusion-unet has no widths", "give a whole number for each resolution")
    reach = 0
    for place in range(2**halvings):
        first, last = place, place
        for _ in range(halvings):  # two convolutions, then the bilinear doubling
            first, last = (first - 3) // 2, (last + 3) // 2
        first, last = first - 2, last + 2
        for _ in range(halvings):  # the pooling, then two convolutions
            first, last = 2 * first - 2, 2 * last + 3
        reach = max(reach, place - first, last - place)
    return reach


class OpticalFeatures(nn.Module):
    """Log reflectance, saturating log ratios, and their excess over the band ratio's threshold; no weights."""

    channels = len(OPTICAL_BANDS) + len(_RATIOS)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (time, 13, y, x) and the clamped ln(ratio / 2.8) (time, 1, y, x) of reflectance."""
        log = values.clamp(_DARKEST, _BRIGHTEST).log()
        band = {name: log[:, i : i + 1] for i, name in enumerate(OPTICAL_BANDS)}
        ratios = {pair: band[pair[0]] - band[pair[1]] for pair in _RATIOS}
        # (a - b) / (a + b) = tanh(ln(a / b) / 2): the normalised difference index of each pair.
        indices = [torch.tanh(0.5 * ratio) for ratio in ratios.values()]
        excess = (ratios["red", "swir16"] - torch.log(values.new_tensor(_BAND_RATIO))).clamp(
            -_RATIO_REACH, _RATIO_REACH
        )
        return torch.cat([0.7 * (log + 1.8), *indices], dim=1), excess


class Encoded(NamedTuple):
    """What the encoder makes of some dates.

    Attributes
    ----------
    skips : list of (time, width, y, x)
        Features at every scale, without the static modality, the finest first.
    ratio : (time, 1, y, x)
        Logit of the band ratio, 0 where missing.
    seen : (time, 1, y, x)
        1 where any dynamic modality is valid, else 0.
    """

    skips: list[Tensor]
    ratio: Tensor
    seen: Tensor


class FusionUNet(Segmenter):
    """Small U-Net whose inputs may be any subset of its contract's modalities.

    The logits of bright classes are residuals on that of the band ratio, unless the contract's parameter ``residual``
    is False; it is named only there.

    Parameters
    ----------
    contract : Contract
        As from `fusion_contract`.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths = integers(contract, "widths")
        self.optical = OpticalFeatures()
        self.stems = nn.ModuleDict(
            {m.name: _Stem(self._channels(m), widths[0]) for m in contract.modalities if not m.static}
        )
        narrow = [max(8, width // 2) for width in widths]
        self.static_stems = nn.ModuleDict(
            {m.name: _Stem(len(m.variables), narrow[0]) for m in contract.modalities if m.static}
        )
        self.static_levels = nn.ModuleList(_two(a, b) for a, b in pairwise(narrow))
        self.static_joins = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in zip(narrow, widths, strict=True))
        self.levels = nn.ModuleList(_two(a, b) for a, b in pairwise(widths))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decoders = nn.ModuleList(_two(a, a) for a in widths[:-1])
        self.presence = nn.Conv2d(len(self.stems), widths[0], 1)
        self.head = nn.Conv2d(widths[0], self.heads, 1)
        bright = torch.tensor([2.0 * float(name in _BRIGHT) for name in contract.classes])
        self.ratio_weight: nn.Parameter | None = None
        if contract.parameters.get("residual", True):
            self.ratio_weight = nn.Parameter(torch.tensor(2.0) if self.heads == 1 else bright)

    @staticmethod
    def _channels(modality: Modality) -> int:
        return OpticalFeatures.channels if modality.name == "optical" else len(modality.variables)

    def encode_static(self, static: Mapping[str, Masked]) -> StaticPyramid:
        """Features of what does not change at every level, each (1, width, y, x); None without any of it."""
        given = [name for name in self.static_stems if name in static]
        if not given:
            return None
        valid = [static[name].valid.to(static[name].values.dtype) for name in given]
        found = [self.static_stems[name](*static[name]) for name in given]
        count = torch.stack(valid).sum(dim=0)
        features, mask = torch.stack(found).sum(dim=0) / count.clamp(min=1.0), count.clamp(max=1.0)
        pyramid = [features]
        for level in self.static_levels:
            # Masked again at every level: terrain that is missing must add what absent terrain adds, nothing.
            mask = functional.max_pool2d(mask, 2)
            features = level(functional.max_pool2d(features, 2)) * mask
            pyramid.append(features)
        return [join(level) for join, level in zip(self.static_joins, pyramid, strict=True)]

    def logits(self, dynamic: Mapping[str, Masked], static_features: StaticPyramid) -> Tensor:
        """Return logits before temperature and shift, as `Segmenter.logits`."""
        return self.decode(self.encode(dynamic, static_features), static_features)

    def encode(self, dynamic: Mapping[str, Masked], static_features: StaticPyramid) -> Encoded:
        """Features of every date for itself; of a date that shows nothing, where there is no dynamic modality."""
        features, ratio, seen = self._fuse(dynamic, static_features)
        skips = [features]
        for level in self.levels:
            skips.append(level(functional.max_pool2d(skips[-1], 2)))
        return Encoded(skips, ratio, seen)

    def decode(self, encoded: Encoded, static_features: StaticPyramid) -> Tensor:
        """Logits of encoded dates, joined with the terrain."""
        skips = [_plus(found, static_features, level) for level, found in enumerate(encoded.skips)]
        features = skips.pop()
        for up, decoder in zip(reversed(self.ups), reversed(self.decoders), strict=True):
            raised = functional.interpolate(up(features), scale_factor=2, mode="bilinear", align_corners=False)
            features = decoder(raised + skips.pop())
        logits = self.head(features)
        if self.ratio_weight is not None:
            weight = self.ratio_weight if self.heads == 1 else self.ratio_weight.view(1, -1, 1, 1)
            logits = logits + weight * encoded.ratio
        return self.squeezed(logits)

    def _fuse(self, dynamic: Mapping[str, Masked], static_features: StaticPyramid) -> tuple[Tensor, Tensor, Tensor]:
        """Mean over the valid modalities' stems, the band ratio's logit, and where any is valid."""
        if not dynamic and static_features is None:
            raise ModelError("fusion-unet got no input", "give it at least one modality")
        like = next(iter(dynamic.values())).values if dynamic else _first(static_features)
        zero = like.new_zeros(like.shape[0], 1, *like.shape[2:])
        total, count, ratio = zero, zero, zero
        presence: list[Tensor] = []
        for name, stem in self.stems.items():
            if name not in dynamic:
                presence.append(zero)
                continue
            values, valid = dynamic[name].values, dynamic[name].valid.to(zero.dtype)
            if name == "optical":
                values, excess = self.optical(values)
                ratio = excess * valid
            total = total + stem(values, valid)
            count = count + valid
            presence.append(valid)
        fused = total / count.clamp(min=1.0) + self.presence(torch.cat(presence, dim=1))
        return fused, ratio, count.clamp(max=1.0)


class _Stem(nn.Module):
    """Two convolutions over one modality and its mask; 0 where the modality is missing."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = _two(channels + 1, width)

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        mask = valid.to(values.dtype)
        features: Tensor = self.layers(torch.cat([values * mask, mask], dim=1))
        return features * mask


def _two(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _plus(features: Tensor, static: StaticPyramid, level: int) -> Tensor:
    return features if static is None else features + static[level]


def _first(static: StaticPyramid) -> Tensor:
    if static is None:
        raise ModelError("fusion-unet got no terrain", "give it at least one modality")
    return static[0]
