"""What intervals keep in reserve for places unlike those of the calibration, measured among its own scenes.

Parts of the scenes that differ from the whole (little ice, high sun, much snow, small glaciers) are held against
intervals of all scenes together. The worst part says how large a shift must be allowed for: where a level b leaves it
at c, a chi-square ball of radius ``(b - c)**2 / (b (1 - b))`` holds such a shift (`glaciercube.change.raised_level`;
worst directions: Cauchois, Gupta, Ali and Duchi 2020, arXiv:2008.04267, section 4). Of many parts the worst lies low by
chance, too, so that the reserve is on the wide side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.change import Calibration
from glaciercube.change.conformal import SHARE_EDGES
from glaciercube.errors import ModelError
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import ICE_PARTS
from glaciercube.training.area_errors import AreaError

__all__ = ["LEVELS", "shortfalls", "traits_of", "worst"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Levels at which parts are looked at: more than one, since a single quantile is rough.
LEVELS = (0.8, 0.9)
_FOLDS = 5
# Of the weight: smaller parts say little, larger ones are the whole.
_LEAST_PART, _LARGEST_PART = 0.2, 0.6
# One share of ice of each of the groups that `Calibration.quantiles` tells apart.
_SHARES = (0.2, 0.7, 0.95)
_SAID = {"sun": "sun", "cloud": "cloud", "latitude": "latitude", "age": "dem_age", "loss": "loss"}


def traits_of(chip: Chip) -> dict[str, float]:
    """What tells a scene from others.

    Returns
    -------
    dict of str to float
        Means over its dates: sun (degrees), cloud (share), snow, water and ice (shares of the ground), debris (share of
        the ice); latitude (degrees, without sign), age (years of the elevation model), loss (share of the ice), toa (1:
        top of atmosphere), resolution (m). What a chip does not say is left out.
    """
    names, known = list(chip.labels), chip.label != UNKNOWN
    share = {n: float((chip.label[known] == i).mean()) if known.any() else 0.0 for i, n in enumerate(names)}
    ice = sum(share.get(name, 0.0) for name in ICE_PARTS)
    found = {
        "snow": share.get("seasonal_snow", 0.0),
        "water": share.get("water", 0.0),
        "ice": ice,
        "debris": share.get(ICE_PARTS[1], 0.0) / max(ice, 1e-9),
        "resolution": float(chip.resolution),
    }
    said = chip.attributes
    for name, key in _SAID.items():
        if key in said:
            found[name] = float(np.abs(np.mean(said[key])))
    if "level" in said:
        found["toa"] = float(said["level"] == "toa")
    return found


def shortfalls(
    errors: Sequence[AreaError], traits: Mapping[str, Mapping[str, float]], *, seed: int = 0
) -> dict[str, float]:
    """How much less often intervals hold on parts of the scenes than they say, in standard deviations of a coin.

    Intervals are of other scenes than those that they are held against, in five parts.

    Parameters
    ----------
    errors : sequence of AreaError
        Of one quantity and kind.
    traits : mapping
        Name of a scene -> as of `traits_of`.
    seed : int
        Of the five parts.

    Returns
    -------
    dict of str to float
        Name of a part, such as ``snow, most`` -> mean over `LEVELS` of (level - coverage) / sqrt(level (1 - level)).
        Empty where there are too few scenes.
    """
    scenes = np.unique([error.scene for error in errors], return_inverse=True)[1]
    if not len(errors):
        return {}
    weight: FloatArray = 1.0 / np.bincount(scenes)[scenes]
    fold = np.random.default_rng(seed).integers(0, _FOLDS, scenes.max() + 1)[scenes]
    try:
        held = {level: _held(errors, scenes, fold, level) for level in LEVELS}
    except ModelError:
        return {}
    found: dict[str, float] = {}
    for name, part in _parts(errors, traits):
        if _LEAST_PART < weight[part].sum() / weight.sum() < _LARGEST_PART:
            lacks = [(b - np.average(held[b][part], weights=weight[part])) / np.sqrt(b * (1 - b)) for b in LEVELS]
            found[name] = float(np.mean(lacks))
    return found


def worst(found: Iterable[Mapping[str, float]]) -> tuple[float, str]:
    """Radius of the shift that the worst part shows, and its name, of shortfalls of several kinds of area."""
    each: dict[str, list[float]] = {}
    for one in found:
        for name, value in one.items():
            each.setdefault(name, []).append(value)
    means = {name: float(np.mean(values)) for name, values in each.items()}
    name = max(means, key=means.__getitem__, default="")
    return (max(means[name], 0.0) ** 2, name) if name else (0.0, "")


def _parts(errors: Sequence[AreaError], traits: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, BoolArray]]:
    """The third that has least of a trait, and the third that has most."""
    names = sorted(set.intersection(*(set(traits[error.scene]) for error in errors)))
    columns = {name: np.array([traits[error.scene][name] for error in errors]) for name in names}
    columns["outline"] = np.array([error.outline for error in errors])
    for name, values in columns.items():
        low, high = np.quantile(values, [1 / 3, 2 / 3])
        yield f"{name}, least", values <= low
        yield f"{name}, most", values >= high


def _held(
    errors: Sequence[AreaError], scenes: npt.NDArray[np.int64], fold: npt.NDArray[np.int64], level: float
) -> BoolArray:
    score, share = (np.array([getattr(error, name) for error in errors]) for name in ("score", "share"))
    held = np.zeros(len(errors), bool)
    for number in np.unique(fold):
        mine = fold == number
        others = Calibration(
            model="",
            model_hash="",
            modalities=(),
            every="",
            scores=tuple(score[~mine]),
            shares=tuple(share[~mine]),
            scenes=tuple(scenes[~mine]),
        )
        low, high = np.array([others.quantiles(level, each) for each in _SHARES]).T[
            :, np.digitize(share[mine], SHARE_EDGES)
        ]
        held[mine] = (score[mine] >= np.minimum(low, 0.0)) & (score[mine] <= np.maximum(high, 0.0))
    return held
