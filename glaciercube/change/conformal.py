"""Intervals of areas and of their changes: what glaciers of known area say of the error (split-conformal calibration).

Pixels are never taken as independent, and neither are glaciers of one scene. The unit is the glacier, drawn from a
scene that is new: on each of many calibration glaciers the error is measured; in a scene of n glaciers each weighs
1 / n, in a range of several scenes each scene the same, and one more range, of infinite error, stands for the one to
come. The weighted quantiles are the interval of a new glacier of a new range, if ranges are exchangeable with one
another (hierarchical conformal prediction: Lee, Barber and Willett 2023, arXiv:2306.06342; Dunn, Wasserman and Ramdas
2023, JASA 118:2491; with one glacier per scene it is that of Vovk et al. 2005 and Lei et al. 2018, JASA 113:1094): real
glaciers are so only as far as the simulation resembles them. The simulated world draws every scene from mountains of
its own, so that there a scene is a range.

New ranges are not drawn as calibration ranges were. The level of the quantiles is therefore raised until coverage
holds in the worst case over all shifts within a chi-square ball (Cauchois, Gupta, Ali and Duchi 2020,
arXiv:2008.04267), whose radius, `Calibration.reserve`, is measured on parts of the scenes that differ from the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from glaciercube.change.correlation import ErrorCorrelation
from glaciercube.errors import ModelError, require

__all__ = [
    "Calibration",
    "Quantity",
    "error_scale",
    "raised_level",
    "scene_correlation",
]

Quantity: TypeAlias = Literal["area", "change"]

# Glaciers are compared with those of which a like share of the outline was called ice, below, between and above these
# (Mondrian conformal prediction; Vovk et al. 2005, chapter 4.5): half-missed glaciers say nothing of nearly full ones.
SHARE_EDGES = (0.5, 0.8)

# Sums of weights are compared with a level to this.
_ROUNDING = 1e-9

# Share of the clear area that counts as doubtful whatever the model says: a model that is sure may still be wrong.
LEAST_DOUBT = 0.02


def error_scale(doubt: Any, clear: Any) -> Any:
    """What errors of area are measured in: the area that the model itself is in doubt about.

    A glacier with dirty edges or debris then gets a wider interval than a clean one of the same size (normalised
    non-conformity scores; Papadopoulos et al. 2002, ECML, LNCS 2430).

    Parameters
    ----------
    doubt : number or array
        Sum over clear pixels of the smaller of p and 1 - p, as area.
    clear : number or array
        Area of the clear pixels, in the same unit.

    Returns
    -------
    number or array
        In that unit, above zero wherever ``clear`` is.
    """
    return doubt + LEAST_DOUBT * clear


@dataclass(frozen=True)
class Calibration:
    """Errors of area, or of its change, on calibration glaciers.

    Attributes
    ----------
    model, model_hash : str
        Which model; the hash decides.
    modalities : tuple of str
        What it was given, sorted.
    every : str
        ``"observation"`` or ``"year"``: which areas.
    scores : tuple of float
        One per glacier: (true - estimated area) / `error_scale`, dimensionless. Of a change: the same of the difference
        of two areas, which is not the difference of two errors' bounds.
    shares : tuple of float
        One per glacier: share of the outline's clear area that was called ice; of a change, at the first time.
    source : str
        How they came about.
    reflectance : str
        Level of the optical data: ``"surface"``, ``"toa"``, or ``"either"`` where it was both.
    resolution : (float, float)
        Pixel sizes, in metres, of the calibration places.
    scenes, ranges : tuple of int
        One per glacier: which scene it is of, and which mountain range; glaciers of one scene are not independent.
        Without scenes each glacier is one; without ranges each scene is one.
    quantity : {"area", "change"}
        What the errors are of.
    correlation : float
        Of the errors of two glaciers of one scene, 0 to 1; 1 where it was not measured.
    reserve : float
        Radius of the chi-square ball of shifts in which the level holds, from `glaciercube.training.reserve`; 0: none.
    variogram : tuple of (range, sill)
        Ranges in metres and sills of the errors of pixels (`glaciercube.change.correlation.ErrorCorrelation`); empty
        where they were not measured. A range of -1 stands for infinity, which JSON has not.
    """

    model: str
    model_hash: str
    modalities: tuple[str, ...]
    every: str
    scores: tuple[float, ...]
    shares: tuple[float, ...]
    source: str = ""
    reflectance: str = "surface"
    resolution: tuple[float, float] = (10.0, 30.0)
    scenes: tuple[int, ...] = ()
    ranges: tuple[int, ...] = ()
    quantity: Quantity = "area"
    correlation: float = 1.0
    reserve: float = 0.0
    variogram: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        require(
            len(self.scores) == len(self.shares),
            f"{len(self.scores)} scores and {len(self.shares)} shares",
            "give one of each per glacier",
        )
        count = len(self.scores)
        fine = len(self.scenes) in (0, count) and len(self.ranges) in (0, count) and (self.scenes or not self.ranges)
        require(
            bool(fine),
            f"{count} scores, {len(self.scenes)} scenes and {len(self.ranges)} ranges",
            "give a scene per glacier or none, and ranges only beside scenes",
        )

    @property
    def pixel_correlation(self) -> ErrorCorrelation | None:
        """Correlation of the errors of pixels; None where it was not measured."""
        if not self.variogram:
            return None
        ranges, sills = zip(*self.variogram, strict=True)
        return ErrorCorrelation(tuple(math.inf if r < 0 else r for r in ranges), tuple(sills))

    def quantiles(self, level: float, share: float) -> tuple[float, float]:
        """Lower and upper score of an interval that holds with probability ``level`` or more.

        Parameters
        ----------
        level : float
            Coverage, such as 0.9; each tail gets half of the rest.
        share : float
            Share of the clear area that was called ice; glaciers of a like share are compared with, or all of them
            where too few are like it.

        Raises
        ------
        ModelError
            If there are too few such glaciers for that level.
        """
        alike = np.digitize(self.shares, SHARE_EDGES) == np.digitize(share, SHARE_EDGES)
        # Rounded, since 1 - 0.9 is not quite 0.1.
        wanted = round((1 + raised_level(level, self.reserve)) / 2, 9)
        weights, groups = self._weights(alike)
        if weights.sum() < wanted - _ROUNDING:
            # Too few are like it: all glaciers speak.
            alike = np.ones(len(self.shares), bool)
            weights, groups = self._weights(alike)
        if weights.sum() < wanted - _ROUNDING:
            least = math.ceil(round(1 / (1 - wanted), 9)) - 1
            raise ModelError(
                f"{len(self.scores)} calibration glaciers of {groups} scenes do not carry a {level:.0%} interval",
                f"calibrate on at least {least} such scenes, or ask for a lower level",
            )
        scores = np.asarray(self.scores, np.float64)[alike]
        order = np.argsort(scores, kind="stable")
        rising, falling = weights[order].cumsum(), weights[order][::-1].cumsum()
        high = scores[order][np.searchsorted(rising, wanted - _ROUNDING)]
        low = scores[order][::-1][np.searchsorted(falling, wanted - _ROUNDING)]
        return float(low), float(high)

    def _weights(self, alike: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], int]:
        """Weight of each of some glaciers, whose sum leaves one range's for the glacier to come; number of ranges."""
        count = int(alike.sum())
        scene = np.asarray(self.scenes)[alike] if self.scenes else np.arange(count)
        range_ = np.asarray(self.ranges)[alike] if self.ranges else scene
        pairs, of_scene = np.unique(np.stack([range_, scene]), axis=1, return_inverse=True)
        of_scene = of_scene.ravel()
        names, of_range = np.unique(pairs[0], return_inverse=True)
        per_scene = np.bincount(of_scene, minlength=pairs.shape[1])
        per_range = np.bincount(of_range.ravel(), minlength=len(names))
        weights = 1.0 / (per_scene * per_range[of_range.ravel()])[of_scene] if count else np.empty(0)
        return weights / (len(names) + 1), len(names)

    def interval(self, series: pd.DataFrame, level: float = 0.9) -> pd.DataFrame:
        """Add ``lower_km2`` and ``upper_km2`` to an area series.

        Ground of the grid that no clear pixel shows may hold no ice or be all ice: the bounds allow for both.

        Parameters
        ----------
        series : DataFrame
            From `area_series`.
        level : float
            Coverage.

        Raises
        ------
        ModelError
            If there are too few calibration glaciers for that level.
        """
        clear, hidden, low, high = self._errors(series, series["area_km2"], level)
        lower = (series["area_km2"] + low).clip(lower=0)
        upper = np.minimum(series["area_km2"] + high, clear) + hidden
        # The estimate itself stays inside, also where the calibration glaciers all erred to one side.
        return series.assign(
            lower_km2=np.minimum(lower, series["area_km2"]), upper_km2=np.maximum(upper, series["area_km2"])
        )

    def change_interval(self, table: pd.DataFrame, level: float = 0.9) -> pd.DataFrame:
        """Add ``lower_km2`` and ``upper_km2`` to changes of area, as `interval` does to areas.

        Parameters
        ----------
        table : DataFrame
            As of `glaciercube.change.difference.area_change`.
        level : float
            Coverage.

        Raises
        ------
        ModelError
            If there are too few calibration glaciers for that level.
        """
        clear, hidden, low, high = self._errors(table, table["first_area_km2"], level)
        change = table["change_km2"]
        # Ice cannot change by more than all of the clear ground.
        lower = np.maximum(change + low, -clear) - hidden
        upper = np.minimum(change + high, clear) + hidden
        return table.assign(lower_km2=np.minimum(lower, change), upper_km2=np.maximum(upper, change))

    def _errors(
        self, table: pd.DataFrame, called: pd.Series[float], level: float
    ) -> tuple[pd.Series[float], pd.Series[float], pd.Series[float], pd.Series[float]]:
        """Clear and hidden ground of each row, and the least and the largest error, in km2, where so much is ice."""
        clear = table["coverage"] * table["outline_area_km2"]
        hidden = (table["outline_area_km2"] * table["in_grid"] - clear).clip(lower=0)
        low, high = np.array([self.quantiles(level, one) for one in (called / clear).fillna(0.0)]).T
        scale = error_scale(table["doubt_km2"], clear)
        return clear, hidden, low * scale, high * scale


def scene_correlation(scores: npt.ArrayLike, scenes: npt.ArrayLike) -> float:
    """Correlation of the errors of two glaciers of one scene.

    That of their normal scores (ranks put on a normal distribution, since errors have long tails), by the intraclass
    correlation of one-way analysis of variance, with scenes of different size (Donner 1986, Int. Stat. Rev. 54:67).

    Parameters
    ----------
    scores : (glacier,) float
        Errors.
    scenes : (glacier,) int
        Which scene each is of.

    Returns
    -------
    float
        0 to 1; 1 where no scene has two glaciers.
    """
    from scipy.stats import norm, rankdata

    values, _, inverse = np.asarray(scores, np.float64), *np.unique(scenes, return_inverse=True)
    counts = np.bincount(inverse)
    n, k = values.size, counts.size
    if n <= k or k < 2:
        return 1.0
    values = norm.ppf(rankdata(values) / (n + 1))
    means = np.bincount(inverse, values) / counts
    between = float((counts * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means[inverse]) ** 2).sum()) / (n - k)
    size = (n - float((counts**2).sum()) / n) / (k - 1)
    total = between + (size - 1) * within
    return float(np.clip((between - within) / total, 0.0, 1.0)) if total > 0 else 1.0


def raised_level(level: float, reserve: float) -> float:
    """Level whose coverage is still `level` after the worst shift within a chi-square ball.

    Of a set that holds a share b of the calibration's distribution, every distribution Q with
    ``sum (dQ - dP)**2 / dP <= reserve`` holds ``b - sqrt(reserve * b * (1 - b))`` or more (Cauchois et al. 2020,
    arXiv:2008.04267, their g for this divergence); solved for b.

    Parameters
    ----------
    level : float
        Wanted coverage, 0 to 1.
    reserve : float
        Radius, 0 or more.

    Returns
    -------
    float
        `level` where the radius is 0, else more.
    """
    # (b - level)**2 = reserve * b * (1 - b), the root above the level.
    a, b, c = 1 + reserve, 2 * level + reserve, level**2
    return (b + math.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a)
