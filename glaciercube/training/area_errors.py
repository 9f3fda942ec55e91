"""Errors of glacier areas, and of their changes, on chips whose glaciers are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.change import error_scale
from glaciercube.change.conformal import Quantity
from glaciercube.cube import nan_median
from glaciercube.errors import ModelError
from glaciercube.evaluation.predict import ice_labels, ice_of, predict_chip
from glaciercube.models.base import Model
from glaciercube.models.chips import UNKNOWN, Chip

__all__ = ["AreaError", "Maps", "area_errors", "maps_of", "modalities_of", "without"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]

#: Smaller glaciers are left out, km2: a pixel of 30 m is a twentieth of them.
LEAST_AREA = 0.02
#: Share of a glacier that must be clear, as of one that is worth measuring.
LEAST_CLEAR = 0.3
#: Probability above which a pixel counts as ice, as in `glaciercube.change.AreaOptions`.
THRESHOLD = 0.5
#: Variables that a user without that sensor, without known sun angles or without layers of one's own does not have.
_VARIABLES = {
    "sentinel-1": ("vv_db", "vh_db"),
    "sentinel-2": ("blue", "green", "red", "nir", "swir16", "swir22", "hillshade"),
    "sun": ("hillshade",),
    "dem": ("elevation", "slope", "aspect_sin", "aspect_cos", "curvature", "topographic_position", "hillshade"),
    "layers": ("coherence", "elevation_change", "velocity"),
}


@dataclass(frozen=True)
class AreaError:
    """One glacier's error.

    Attributes
    ----------
    scene, glacier : str and int
        Which one.
    every : str
        ``"observation"`` or ``"year"``.
    quantity : {"area", "change"}
        Of what.
    score : float
        (True less estimated) / `glaciercube.change.error_scale`.
    share : float
        Share of the clear pixels that was called ice; of a change, at the first time.
    true, said, scale : float
        True and estimated value, and the scale, km2.
    outline : float
        Area of the glacier's outline, km2.
    """

    scene: str
    glacier: int
    every: str
    quantity: Quantity
    score: float
    share: float
    true: float
    said: float
    scale: float
    outline: float


@dataclass(frozen=True, eq=False)
class Maps:
    """A chip as areas see it.

    Attributes
    ----------
    probability : (time, y, x) float64
        NaN where hidden by cloud or missing.
    ice : (time, y, x) bool
        Truth.
    year : (time,) int64
        Of each date.
    """

    probability: FloatArray
    ice: BoolArray
    year: npt.NDArray[np.int64]


def without(chip: Chip, missing: Iterable[str]) -> Chip:
    """A chip as a user sees it who lacks some of ``sentinel-1, sentinel-2, sun, dem, layers``."""
    gone = {name for sensor in missing for name in _VARIABLES[sensor]}
    return dataclasses.replace(chip, variables={n: v for n, v in chip.variables.items() if n not in gone})


def modalities_of(model: Model, chip: Chip) -> tuple[str, ...] | None:
    """The modalities that a model takes of a chip, sorted; None where they do not do."""
    try:
        return tuple(sorted(modality.name for modality in model.contract.select(chip.variables)))
    except ModelError:
        return None


def maps_of(model: Model, chip: Chip) -> Maps:
    """Predict a chip, and hide what a user's masks would hide: cloud, wherever the optical sensor is used."""
    classes = [each for name in ice_labels(chip.labels, of=chip.name) for each in chip.labels[name]]
    found = predict_chip(model, chip, classes=classes).astype(np.float64)
    hidden = chip.label == UNKNOWN
    if "red" in chip.variables:
        hidden |= ~chip.clear
    year = chip.time.astype("datetime64[Y]").astype(np.int64) + 1970
    return Maps(np.where(hidden, np.nan, found), ice_of(chip), year)


def area_errors(chip: Chip, maps: Maps, rng: np.random.Generator) -> Iterator[AreaError]:
    """Errors of every glacier of a chip: at one date, in one year, and between two of each that are drawn.

    Parameters
    ----------
    chip : Chip
        With `glaciers`, (y, x).
    maps : Maps
        Of the chip, from `maps_of`: (time, y, x).
    rng : numpy.random.Generator
        Draws dates and years of every glacier, whether or not it is measured.

    Yields
    ------
    AreaError
        None for glaciers that are too small, or too little of which is clear.

    Raises
    ------
    ModelError
        If the chip has no glaciers.
    """
    if chip.glaciers is None:
        raise ModelError(f"chip {chip.name!r} has no glaciers", "give chips that number them")
    years = np.unique(maps.year)
    for number in np.unique(chip.glaciers[chip.glaciers > 0]):
        glacier = _Glacier(chip, maps, chip.glaciers == number, int(number))
        # Drawn before anything is left out: every model is measured on the same dates.
        dates = rng.permutation(len(maps.year))
        year = int(rng.choice(years))
        if glacier.outline < LEAST_AREA:
            continue
        yield from glacier.area("observation", dates[:1])
        yield from glacier.area("year", np.flatnonzero(maps.year == year))
        first, last = int(dates[:2].min()), int(dates[:2].max())
        if maps.year[first] != maps.year[last]:
            yield from glacier.change("observation", np.array([first]), np.array([last]))
        if len(years) > 1:
            yield from glacier.change("year", *(np.flatnonzero(maps.year == each) for each in (years[0], years[-1])))


@dataclass(frozen=True, eq=False)
class _Glacier:
    """A glacier of a chip, and what a model says of it."""

    chip: Chip
    maps: Maps
    inside: BoolArray
    number: int

    @property
    def pixel(self) -> float:
        return self.chip.resolution**2 / 1e6

    @property
    def outline(self) -> float:
        return float(self.inside.sum() * self.pixel)

    def area(self, every: str, rows: IntArray) -> Iterator[AreaError]:
        probability, ice = self._at(rows)
        clear = np.isfinite(probability)
        if clear.mean() >= LEAST_CLEAR:
            p = probability[clear]
            said, true = float((p > THRESHOLD).sum()), float(ice[clear].sum())
            yield self._error(every, "area", (said, true), float(np.minimum(p, 1 - p).sum()), p)

    def change(self, every: str, first: IntArray, last: IntArray) -> Iterator[AreaError]:
        (before, ice_before), (after, ice_after) = self._at(first), self._at(last)
        clear = np.isfinite(before) & np.isfinite(after)
        if clear.mean() >= LEAST_CLEAR:
            p, later = before[clear], after[clear]
            said = float((later > THRESHOLD).sum()) - float((p > THRESHOLD).sum())
            true = float(ice_after[clear].sum()) - float(ice_before[clear].sum())
            doubt = float(np.minimum(p, 1 - p).sum() + np.minimum(later, 1 - later).sum())
            yield self._error(every, "change", (said, true), doubt, p)

    def _error(
        self, every: str, quantity: Quantity, found: tuple[float, float], doubt: float, first: FloatArray
    ) -> AreaError:
        said, true = found[0] * self.pixel, found[1] * self.pixel
        scale = float(error_scale(doubt * self.pixel, first.size * self.pixel))
        return AreaError(
            scene=self.chip.place or self.chip.name,
            glacier=self.number,
            every=every,
            quantity=quantity,
            score=(true - said) / scale,
            share=float((first > THRESHOLD).mean()),
            true=true,
            said=said,
            scale=scale,
            outline=self.outline,
        )

    def _at(self, rows: IntArray) -> tuple[FloatArray, BoolArray]:
        """Median probability of some dates within the glacier, and whether it is ice at the middle one of them."""
        shown = self.maps.probability[rows][:, self.inside]
        # In a year ice does not change in the simulated world.
        ice: BoolArray = self.maps.ice[rows[len(rows) // 2]][self.inside]
        return shown[0] if len(rows) == 1 else np.asarray(nan_median(shown, axis=0), np.float64), ice
