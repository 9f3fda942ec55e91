"""Series of probabilities, smoothed: a hidden Markov model of two states per pixel, ice and none."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.change.rows import check_flags
from glaciercube.cube import nan_median
from glaciercube.errors import require

__all__ = [
    "FAR",
    "GAINED",
    "LOST",
    "STEEP",
    "UNCONFIRMED",
    "PriorOptions",
    "forward_backward",
    "smooth_series",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Bits of ``overruled``: the date alone says no ice and the series ice; the reverse; and the same among the last dates,
#: where a change that is real looks like an error until later dates agree with it.
GAINED: Final = 1
LOST: Final = 2
UNCONFIRMED: Final = 4
#: The date says ice, on ground that is steeper than ice is taken to lie on.
STEEP: Final = 8

# Metres from the margin beyond which the chance of change falls no further, and its least value.
FAR: Final = 1000.0
_LEAST: Final = 1e-4
# Chance of a change between two dates where it is allowed for, and right at the margin.
_FREE: Final = 0.5


@dataclass(frozen=True)
class PriorOptions:
    """How fast extents may change.

    Attributes
    ----------
    retreat, advance : float
        Metres a year by which margins move on average: on land some 10 to 100 back, and less forth.
    blur : float
        Metres by which dates lie apart for no reason of the ice: their registration, mixed pixels.
    trust : float
        Largest log-odds that one date may claim: the errors of a date (snow, shadow, cloud that was missed) are shared
        by neighbouring pixels, so that a network's confidence is no evidence of its own. 3 is 95 %.
    agree : int
        Dates in a row before a change, and as many after it, that allow for it wherever it is: surges, calving and
        tongues that fall apart. 0 allows for none but those that are marked.
    threshold : float
        Probability from which a date says ice.
    steepest : float or None
        Slope in degrees above which there is no ice. None by default: real and simulated glaciers lose 0.6 and 4 % of
        their area to a limit of 50 degrees, and more to a lower one (docs/priors.md).
    hidden_by : tuple of str
        Flags of `quality` under which a pixel does not count as seen.
    """

    retreat: float = 50.0
    advance: float = 10.0
    blur: float = 20.0
    trust: float = 3.0
    agree: int = 2
    threshold: float = 0.5
    steepest: float | None = None
    hidden_by: tuple[str, ...] = ("cloud", "cloud_shadow")

    def __post_init__(self) -> None:
        lengths = self.retreat >= 0 and self.advance >= 0 and self.blur > 0
        require(lengths, "retreat, advance and blur are metres", "give numbers above 0")
        require(self.trust > 0, f"trust {self.trust} believes no date", "give log-odds above 0, such as 3")
        require(self.agree >= 0, f"{self.agree} dates cannot agree", "give 0 or more")
        require(0 < self.threshold < 1, f"threshold {self.threshold} is no probability", "give one between 0 and 1")
        check_flags(self.hidden_by)


def smooth_series(
    probability: npt.NDArray[np.floating],
    years: FloatArray,
    resolution: float,
    options: PriorOptions | None = None,
    allowed: BoolArray | None = None,
) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """Probability of ice given all dates: a hidden Markov model of two states per pixel.

    Each date's probability is evidence, with log-odds of at most ``trust``. Between dates, dt years apart, ice goes
    with probability ``0.5 exp(-d / (retreat dt + blur))``, and comes likewise with ``advance``: a pixel d metres from
    the margin turns if the margin comes by, whose way is taken as exponentially distributed. The margin is that of the
    median of each date and its neighbours, the nearer of the two dates'. Forward-backward (Rabiner 1989, Proc. IEEE
    77:257-286).

    Parameters
    ----------
    probability : (time, y, x) floating
        0 to 1, NaN where the date shows nothing.
    years : (time,) float64
        Times in years, ascending.
    resolution : float
        Pixel size in metres.
    options : PriorOptions or None
        How fast ice may change.
    allowed : (y, x) bool or None
        Where any change is as likely as none.

    Returns
    -------
    probability : (time, y, x) float64
        NaN where it was.
    overruled : (time, y, x) uint8
        Bits `GAINED`, `LOST` and `UNCONFIRMED`.
    """
    options = options or PriorOptions()
    seen = np.isfinite(probability)
    filled = np.where(seen, probability, 0.5).astype(np.float64)
    says = filled >= options.threshold
    distance = _step_distances(np.where(seen, filled, np.nan), resolution, options.threshold)
    change = _settled(says, seen, options.agree)
    if allowed is not None:
        change |= np.asarray(allowed, bool)[None]
    steps = np.diff(years)[:, None, None]
    lost, gained = (
        np.where(change, _FREE, np.maximum(_FREE * np.exp(-distance / (speed * steps + options.blur)), _LEAST))
        for speed in (options.retreat, options.advance)
    )
    odds = np.log(np.clip(filled, 1e-6, 1 - 1e-6) / (1 - np.clip(filled, 1e-6, 1 - 1e-6)))
    ice = 1 / (1 + np.exp(-np.where(seen, np.clip(odds, -options.trust, options.trust), 0.0)))
    made = forward_backward(ice, lost, gained)
    turned = seen & ((made >= options.threshold) != says)
    flags = np.where(turned, np.where(says, LOST, GAINED), 0).astype(np.uint8)
    late = _after(seen) < max(options.agree, 1)
    flags |= np.where(turned & late, UNCONFIRMED, 0).astype(np.uint8)
    return np.where(seen, made, np.nan), flags


def _step_distances(shown: FloatArray, resolution: float, threshold: float) -> FloatArray:
    """Metres from the margin between one date and the next: (time - 1, y, x), `FAR` at most."""
    count = len(shown)
    always = _median(shown, np.full(shown.shape[1:], 0.0))
    reach = [slice(max(min(n - 1, count - 3), 0), max(min(n - 1, count - 3), 0) + 3) for n in range(count)]
    margins = [_margin_distance(_median(shown[part], always) >= threshold, resolution) for part in reach]
    return np.stack([np.minimum(one, other) for one, other in pairwise(margins)])


def _median(shown: FloatArray, otherwise: FloatArray) -> FloatArray:
    """Median of what is seen: (y, x)."""
    some = np.isfinite(shown).any(axis=0)
    found = otherwise.copy()
    found[some] = nan_median(shown[:, some], axis=0)
    return found


def _margin_distance(ice: BoolArray, resolution: float) -> FloatArray:
    if ice.all() or not ice.any():
        return np.full(ice.shape, FAR)
    # From the pixel's centre to the line between the two sides.
    found = np.where(ice, ndimage.distance_transform_edt(ice), ndimage.distance_transform_edt(~ice)) - 0.5
    return np.asarray(np.minimum(found * resolution, FAR), np.float64)


def _settled(says: BoolArray, seen: BoolArray, agree: int) -> BoolArray:
    """Steps between dates at which a pixel changes for good: (time - 1, y, x).

    That many dates that show the pixel say one thing before, and as many the other thing after.
    """
    count = len(says)
    change = np.zeros((count - 1, *says.shape[1:]), bool)
    if agree < 1:
        return change
    # Length of the run of equal dates that ends at each date, unseen ones passed over, and what it says.
    ending, told = _runs(says, seen)
    starting, meant = (part[::-1] for part in _runs(says[::-1], seen[::-1]))
    for step in range(count - 1):
        different = told[step] != meant[step + 1]
        change[step] = different & (ending[step] >= agree) & (starting[step + 1] >= agree)
    return change


def _runs(says: BoolArray, seen: BoolArray) -> tuple[npt.NDArray[np.int64], BoolArray]:
    length = np.zeros(says.shape, np.int64)
    told = np.zeros(says.shape, bool)
    run, last = np.zeros(says.shape[1:], np.int64), np.zeros(says.shape[1:], bool)
    for number in range(len(says)):
        same = (run > 0) & (says[number] == last)
        run = np.where(seen[number], np.where(same, run + 1, 1), run)
        last = np.where(seen[number], says[number], last)
        length[number], told[number] = run, last
    return length, told


def _after(seen: BoolArray) -> npt.NDArray[np.int64]:
    """How many later dates show each pixel."""
    found: npt.NDArray[np.int64] = np.cumsum(seen[::-1], axis=0)[::-1] - seen
    return found


def forward_backward(ice: FloatArray, lost: FloatArray, gained: FloatArray) -> FloatArray:
    """Posterior of a hidden Markov model of two states.

    Parameters
    ----------
    ice : (time, y, x) float64
        Likelihood of ice, whose part beside it, of none, is 1 - ice.
    lost, gained : (time - 1, y, x) float64
        Chances between dates that ice goes, and that it comes.

    Returns
    -------
    (time, y, x) float64
        Probability of ice given all dates.
    """
    count = len(ice)
    ahead = np.empty_like(ice)
    ahead[0] = ice[0]
    for n in range(1, count):
        before = ahead[n - 1] * (1 - lost[n - 1]) + (1 - ahead[n - 1]) * gained[n - 1]
        ahead[n] = before * ice[n] / (before * ice[n] + (1 - before) * (1 - ice[n]))
    made = np.empty_like(ice)
    made[-1] = ahead[-1]
    back_ice, back_none = np.ones_like(ice[0]), np.ones_like(ice[0])
    for n in range(count - 2, -1, -1):
        on, off = ice[n + 1] * back_ice, (1 - ice[n + 1]) * back_none
        back_ice, back_none = (1 - lost[n]) * on + lost[n] * off, gained[n] * on + (1 - gained[n]) * off
        total = back_ice + back_none
        back_ice, back_none = back_ice / total, back_none / total
        made[n] = ahead[n] * back_ice / (ahead[n] * back_ice + (1 - ahead[n]) * back_none)
    return made
