"""Settings of a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from glaciercube.errors import ConfigError

__all__ = ["FitOptions", "Jitter", "Sensors"]


@dataclass(frozen=True)
class _Range:
    """What a number may be: from `least`, or above it, to `most`."""

    said: str
    least: float
    most: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.above and value == self.least)


_COUNT: Final = _Range("1 or more", 1)
_NOT_LESS: Final = _Range("0 or more", 0)
_ABOVE: Final = _Range("a number above 0", 0, above=True)
_SHARE: Final = _Range("a number from 0 to 1", 0, 1)
_FIT: Final[Mapping[str, _Range]] = {
    **dict.fromkeys(("steps", "batch", "size", "dates", "targets", "every", "validate", "patience"), _COUNT),
    **dict.fromkeys(("rate", "clip", "seconds"), _ABOVE),
    **dict.fromkeys(("decay", "gamma", "workers"), _NOT_LESS),
    **dict.fromkeys(("rise", "average", "dice"), _SHARE),
    # torch takes no larger ones.
    "seed": _Range("a whole number from 0 to 9223372036854775807", 0, 2**63 - 1),
}
_OPTIONAL: Final = ("targets", "patience", "seconds")
_JITTER_SHARES: Final = ("unflattened", "one_swir")


def _check(what: str, given: Any, ranges: Mapping[str, _Range]) -> None:
    """Refuse numbers out of their range, by name."""
    for name, allowed in ranges.items():
        value = getattr(given, name)
        left_out = value is None and name in _OPTIONAL
        if not left_out and not allowed.holds(value):
            remedy = f"give {allowed.said}{', or leave it out' if name in _OPTIONAL else ''}"
            raise ConfigError(f"{what} with {name} {value}", remedy)


@dataclass(frozen=True)
class Jitter:
    """How far photometric augmentation goes; standard deviations.

    Attributes
    ----------
    gain, band_gain : float
        Of the natural logarithm of reflectance, common to all bands and band by band: calibration, atmosphere,
        and the spread of sun angles beyond those of the training images.
    offset : float
        Reflectance added band by band (haze).
    gamma : float
        Of the logarithm of the exponent on reflectance.
    noise : float
        Reflectance, pixel by pixel; of each image a share of it, evenly drawn.
    decibel : float
        Of backscatter, common and by polarisation: sigma nought, gamma nought and calibration.
    unflattened : float
        Share of images, 0 to 1, whose backscatter is given the slopes' brightness back, as in products that are
        not corrected for terrain (GRD).
    days : float
        Of the day of each date of a series.
    rough : float
        Of the logarithm of the factor on curvature: elevation models differ in how smooth they are.
    one_swir : float
        Share of images, 0 to 1, whose `swir22` is a copy of `swir16`: a sensor with one band of shortwave infrared can
        then be given it twice.
    """

    gain: float = 0.12
    band_gain: float = 0.06
    offset: float = 0.005
    gamma: float = 0.06
    noise: float = 0.003
    decibel: float = 1.2
    unflattened: float = 0.33
    days: float = 3.0
    rough: float = 0.7
    one_swir: float = 0.0

    def __post_init__(self) -> None:
        _check("jitter", self, {f.name: _SHARE if f.name in _JITTER_SHARES else _NOT_LESS for f in fields(self)})


@dataclass(frozen=True)
class Sensors:
    """How often training shows each modality, so that a model does with any subset of them.

    Attributes
    ----------
    whole : float
        Share of samples, 0 to 1, of which nothing is taken away. 1 switches modality dropout off.
    kept : dict of str to float
        Share of the others that keep a modality, by its name; what is required is always kept.
    others : float
        The same of modalities that `kept` does not name.
    date : float
        Share of the dates of a series that show what its sample keeps, modality by modality.
    foreign : float
        Share of samples, 0 to 1, whose static modalities are those of another chip: what lies still is then a hint and
        no proof, and cannot keep ice on the map that the images no longer show.
    """

    whole: float = 0.25
    kept: dict[str, float] = field(default_factory=lambda: {"optical": 0.75, "radar": 0.4})
    others: float = 0.5
    date: float = 0.9
    foreign: float = 0.0

    def __post_init__(self) -> None:
        shares = {"whole": self.whole, "others": self.others, "date": self.date, "foreign": self.foreign}
        shares |= self.kept
        for name, share in shares.items():
            if not 0.0 <= share <= 1.0:
                raise ConfigError(f"the share of samples {name!r} is {share}", "give a number from 0 to 1")


@dataclass(frozen=True)
class FitOptions:
    """Settings of one fit.

    Attributes
    ----------
    steps : int
        Optimiser steps; with `seconds`, at most.
    seconds : float or None
        Seconds of processor time (`time.process_time`, all threads together) after which the fit ends: an equal budget
        for different models on one machine. The learning rate falls with whichever of both is nearer to its end. Such a
        fit cannot be repeated bit for bit.
    batch : int
        Samples per step, over all processes.
    size : int
        Side of a crop in pixels, a multiple of the model's stride; a model of fixed windows takes theirs.
    dates : int
        Most dates of a sample, for models that look at several: 1 to this many are drawn, so that single dates stay
        good.
    targets : int or None
        Dates that are predicted of them; all by default. Models whose every date is computed anew want 1.
    rate, decay : float
        AdamW's peak learning rate, and weight decay.
    rise : float
        Share of the fit, 0 to 1, over which the learning rate rises; it then falls to nothing. Both are half a cosine.
    clip : float
        Largest norm of the gradient.
    average : float
        Decay of the exponential moving average of the weights, which is what the fit returns.
    gamma, dice : float
        Of `glaciercube.training.losses.label_loss`. Small: with 1.0 and 0.5 the expected area of unseen scenes was
        9 to 30% too large, since neither loss is a proper score.
    precision : {"auto", "float32", "bfloat16", "float16"}
        In which convolutions run. By default bfloat16 where the processor or GPU multiplies it in hardware, else
        float16 on a GPU and float32 on a processor.
    seed : int
        Of the order of samples and of the augmentation.
    every : int
        Steps between checkpoints.
    validate : int
        Steps between looks at the validation chips.
    patience : int or None
        Looks without a better score after which the fit ends; None never ends it. The best weights are kept.
    workers : int
        Threads that make batches ahead; 0 makes them between steps.
    tensorboard : bool
        Whether the log holds TensorBoard's events, too.
    jitter : Jitter
        Photometric augmentation.
    sensors : Sensors
        Modality dropout.
    """

    steps: int = 2000
    seconds: float | None = None
    batch: int = 16
    size: int = 128
    dates: int = 4
    targets: int | None = None
    rate: float = 2e-3
    decay: float = 1e-2
    rise: float = 0.05
    clip: float = 1.0
    average: float = 0.995
    gamma: float = 0.5
    dice: float = 0.1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0
    every: int = 200
    validate: int = 200
    patience: int | None = 5
    workers: int = 0
    tensorboard: bool = False
    jitter: Jitter = field(default_factory=Jitter)
    sensors: Sensors = field(default_factory=Sensors)

    def __post_init__(self) -> None:
        _check("a fit", self, _FIT)

    def learning_rate(self, progress: float) -> float:
        """AdamW's rate after a share of the fit: from a 25th of the peak up to it, and down to next to nothing."""
        if progress < self.rise:
            return self._between(self.rate / 25.0, self.rate, progress / self.rise)
        return self._between(self.rate, self.rate / 2.5e5, (progress - self.rise) / max(1e-9, 1.0 - self.rise))

    @staticmethod
    def _between(first: float, last: float, share: float) -> float:
        return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
