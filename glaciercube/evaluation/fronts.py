"""How far found calving fronts lie from drawn ones, and how many are missing.

The mean distance error is that of the CaFFe benchmark (Gourmelon et al. 2022, doi:10.5194/essd-14-4287-2022): over
all images with a found front, from every pixel of either line to the nearest of the other, and the mean of all these
distances; images without a front are counted beside it. `paired_distances` is the error of Mohajerani et al. (2019,
doi:10.3390/rs11010074), who walk both lines at the same pace: at no point is it less than the way to the nearest. They
give the sides of the fjord, seek the line from one to the other, and leave out what is near them: `FrontCase.between`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from glaciercube.errors import ModelError

__all__ = ["FrontCase", "FrontScore", "nearest_distances", "paired_distances", "score_fronts", "season_of"]

Line = npt.NDArray[np.floating] | npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FrontCase:
    """One image: the front that was found and the one that was drawn.

    Attributes
    ----------
    name : str
        Of the image.
    found : (point, 2) or empty
        Rows and columns of the pixels of the found front, in order; empty if none was found.
    drawn : (point, 2)
        Those of the drawn front.
    resolution : float
        Pixel size in metres.
    groups : mapping of str to str
        By what the error is broken down, such as glacier, season, sensor and resolution.
    between : (point, 2) or empty, optional
        The front that was found from side to side of the fjord, with the sides given.
    sides : (point, 2), optional
        Rows and columns of these sides.
    """

    name: str
    found: Line
    drawn: Line
    resolution: float
    groups: Mapping[str, str] = field(default_factory=dict)
    between: Line | None = None
    sides: Line | None = None

    def __post_init__(self) -> None:
        if not len(self.drawn):
            raise ModelError(f"image {self.name!r} has no drawn front", "score images whose front is known")
        if (self.between is None) != (self.sides is None):
            raise ModelError(f"image {self.name!r} has a front from side to side, or sides, alone", "give both")


@dataclass(frozen=True)
class FrontScore:
    """Errors over a set of images.

    Attributes
    ----------
    images, missing : int
        Images, and those among them without a found front.
    distance_m, distance_px : float
        Mean distance error; NaN if all are missing.
    interval_m, interval_px : (float, float)
        Bootstrap interval of it: images are drawn with replacement.
    paired_m, paired_px : float
        Mean of `paired_distances`, each image with the same weight.
    paired_interval_px : (float, float)
        Bootstrap interval of it.
    crossed : int
        Images with a line from side to side of the fjord.
    between_m, between_px : float
        The same of lines from side to side of the fjord, over the images that have one; NaN where none has.
    between_interval_px : (float, float)
        Bootstrap interval of it.
    level : float
        Of the intervals.
    groups : mapping of str to mapping of str to FrontScore
        The same for each value of each property; without further groups.
    """

    images: int
    missing: int
    distance_m: float
    distance_px: float
    interval_m: tuple[float, float]
    interval_px: tuple[float, float]
    paired_m: float
    paired_px: float
    paired_interval_px: tuple[float, float]
    crossed: int
    between_m: float
    between_px: float
    between_interval_px: tuple[float, float]
    level: float
    groups: Mapping[str, Mapping[str, FrontScore]] = field(default_factory=dict)


def nearest_distances(found: Line, drawn: Line) -> FloatArray:
    """From each point of either line to the nearest of the other, in the unit of the points.

    Parameters
    ----------
    found, drawn : (point, 2)
        Neither empty.

    Returns
    -------
    (found + drawn points,) float64
        Those of the found line first.
    """
    a, b = np.asarray(found, np.float64), np.asarray(drawn, np.float64)
    return np.concatenate([cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]])


def paired_distances(
    found: Line, drawn: Line, *, cut: float = 0.0, points: int = 1000, sides: Line | None = None
) -> FloatArray:
    """Between points at the same share of the length of two lines.

    Parameters
    ----------
    found, drawn : (point, 2)
        In order, from either end.
    cut : float
        Parts of both lines nearer than this to the sides are left out beforehand; of what is left, the longest part
        counts.
    points : int
        Of each line.
    sides : (point, 2), optional
        Of the fjord; without them the ends of the drawn line stand for them.

    Returns
    -------
    (points,) float64
        In the unit of the points.
    """
    a, b = _spaced(found, points), _spaced(drawn, points)
    along, against = (np.hypot(*(a[[0, -1]] - b[order]).T).sum() for order in ([0, -1], [-1, 0]))
    if against < along:
        a = a[::-1]
    if cut > 0:
        near = b[[0, -1]] if sides is None else np.asarray(sides, np.float64)
        a, b = (_without_ends(line, near, cut) for line in (a, b))
    return np.asarray(np.hypot(*(a - b).T), np.float64)


def _spaced(line: Line, points: int) -> FloatArray:
    line = np.asarray(line, np.float64)
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0.0, way[-1], points)
    return np.stack([np.interp(at, way, line[:, axis]) for axis in (0, 1)], axis=1)


def _without_ends(line: FloatArray, near: FloatArray, cut: float) -> FloatArray:
    """The longest part of evenly spaced points that lies away from some others; all of it if no point does."""
    away = np.asarray(cKDTree(near).query(line)[0] > cut)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], away.astype(np.int8), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts) or int((stops - starts).max()) == 1:
        return line
    best = int((stops - starts).argmax())
    return _spaced(line[starts[best] : stops[best]], len(line))


def score_fronts(
    cases: Sequence[FrontCase],
    *,
    cut: float = 500.0,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> FrontScore:
    """Mean distance error over images, with its interval, overall and by group.

    Parameters
    ----------
    cases : sequence of FrontCase
        At least one.
    cut : float
        Metres left out at the ends for the paired error, see `paired_distances`.
    level : float
        Of the bootstrap intervals, whose unit is the image: fronts of one glacier are alike, so that an interval over
        images of one glacier says little of others.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    FrontScore
        Distances in pixels weigh every pixel the same, whatever its size.

    Raises
    ------
    ModelError
        If there is no case.
    """
    if not cases:
        raise ModelError("no fronts to score", "give at least one image with a drawn front")
    sums = np.array([_sums(case, cut) for case in cases], np.float64).reshape(len(cases), -1)
    groups: dict[str, dict[str, FrontScore]] = {}
    for key in sorted({key for case in cases for key in case.groups}):
        values = [case.groups.get(key, "") for case in cases]
        groups[key] = {
            value: _score(sums[[found == value for found in values]], level, resamples, seed)
            for value in sorted(set(values))
        }
    return _score(sums, level, resamples, seed, groups)


def _sums(case: FrontCase, cut: float) -> tuple[float, ...]:
    """Points; summed nearest distances in metres and in pixels; mean paired ones; whether and how far side to side.

    All of them 0 where no front was found.
    """
    away = cut / case.resolution
    across = (0.0,) * 3
    if case.between is not None and len(case.between):
        pair = float(paired_distances(case.between, case.drawn, cut=away, sides=case.sides).mean())
        across = (1.0, pair * case.resolution, pair)
    if not len(case.found):
        return (*(0.0,) * 5, *across)
    near = nearest_distances(case.found, case.drawn)
    pair = float(paired_distances(case.found, case.drawn, cut=away).mean())
    total = float(near.sum())
    return (float(len(near)), total * case.resolution, total, pair * case.resolution, pair, *across)


def _score(
    sums: FloatArray,
    level: float,
    resamples: int,
    seed: int,
    groups: Mapping[str, Mapping[str, FrontScore]] | None = None,
) -> FrontScore:
    images = len(sums)
    # How often each image is drawn.
    times = np.random.default_rng(seed).multinomial(images, np.full(images, 1.0 / images), size=resamples)
    found = sums[:, 0] > 0
    chosen = times @ sums
    there = (times @ found).astype(np.float64)
    total = sums.sum(axis=0)

    def mean(column: int, over: float) -> float:
        return float(total[column] / over) if over else float("nan")

    def interval(column: int, over: FloatArray) -> tuple[float, float]:
        kept = over > 0
        if not kept.any():
            return float("nan"), float("nan")
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(chosen[kept, column] / over[kept], tails)
        return float(low), float(high)

    count = float(found.sum())
    return FrontScore(
        images=images,
        missing=images - int(count),
        distance_m=mean(1, total[0]),
        distance_px=mean(2, total[0]),
        interval_m=interval(1, chosen[:, 0]),
        interval_px=interval(2, chosen[:, 0]),
        paired_m=mean(3, count),
        paired_px=mean(4, count),
        paired_interval_px=interval(4, there),
        crossed=int(total[5]),
        between_m=mean(6, total[5]),
        between_px=mean(7, total[5]),
        between_interval_px=interval(7, chosen[:, 5].astype(np.float64)),
        level=level,
        groups=groups or {},
    )


def season_of(time: np.datetime64, *, north: bool = True) -> str:
    """``winter``, ``spring``, ``summer`` or ``autumn`` of a date, by months from December on."""
    month = int(time.astype("datetime64[M]").astype(np.int64)) % 12
    names = ("winter", "spring", "summer", "autumn")
    return names[((month + 1) % 12 // 3 + (0 if north else 2)) % 4]
