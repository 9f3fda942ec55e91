"""Extents change no faster than ice can: a prior on each pixel's series, which says where it overruled the data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from odc.geo.xr import xr_coords  # noqa: F401 - registers the .odc accessor
from scipy import ndimage

from glaciercube.change.rows import check_flags, hidden
from glaciercube.change.terrain import MADE
from glaciercube.cube import nan_median
from glaciercube.errors import CubeError, require
from glaciercube.region.sun import DAYS_PER_YEAR
from glaciercube.store import provenance_of

__all__ = ["GAINED", "LOST", "STEEP", "UNCONFIRMED", "PriorOptions", "prior_report", "smooth_series", "with_prior"]

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
_FAR: Final = 1000.0
_LEAST: Final = 1e-4
# Chance of a change between two dates where it is allowed for, and right at the margin.
_FREE: Final = 0.5
_OBSERVED_WITH: Final = ("model", "model_hash", "modalities", "variables")


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


def with_prior(
    cube: xr.Dataset,
    options: PriorOptions | None = None,
    *,
    allow: xr.DataArray | None = None,
    slope: xr.DataArray | None = None,
) -> xr.Dataset:
    """Lay the prior on a probability cube; the observation stays beside it.

    Parameters
    ----------
    cube : Dataset
        As from `glaciercube.store.open_store`: ``glacier_probability`` and, if it has them, ``quality`` (time, y, x),
        on a grid in metres. Lazy cubes stay lazy, and need all dates of a block at once.
    options : PriorOptions or None
        How fast ice may change.
    allow : (y, x) bool DataArray or None
        Where any change is as likely as none: known surges, calving fronts, tongues that fall apart.
    slope : (y, x) DataArray or None
        Degrees, if the options name a steepest one.

    Returns
    -------
    Dataset
        ``glacier_probability`` (time, y, x) float32: given all dates, NaN where the date shows nothing;
        ``glacier_probability_observed``: as it was; ``overruled`` uint8: bits `GAINED`, `LOST`, `UNCONFIRMED`, `STEEP`
        where both lie on different sides of the threshold; ``quality``. Attribute ``prior``: the options. It has no
        provenance of a model any more, so that no interval that was calibrated without the prior is given to its areas;
        ``observed_with`` says what the observation was made with.

    Raises
    ------
    CubeError
        If dates are not in order, or there is one alone; or if no slope was given and the options name a steepest.
    """
    options = options or PriorOptions()
    if options.steepest is not None and slope is None:
        raise CubeError("the prior's options name a steepest slope", "give slope, as in the cube's terrain")
    observed = cube["glacier_probability"].transpose("time", "y", "x")
    times = pd.DatetimeIndex(observed["time"].to_numpy())
    if len(times) < 2 or not times.is_monotonic_increasing:
        raise CubeError(
            f"a prior on change needs two dates or more in order, not {len(times)}", "sort the cube by time"
        )
    seen = observed
    if "quality" in cube:
        seen = observed.where(~hidden(cube["quality"].transpose("time", "y", "x"), options.hidden_by))
    years = (times - times[0]).days.to_numpy() / DAYS_PER_YEAR
    resolution = float(abs(observed["x"][1] - observed["x"][0]))
    free = xr.zeros_like(observed.isel(time=0), dtype=bool) if allow is None else allow.transpose("y", "x")
    stack = _apply(seen.data, free.data, years, resolution, options)
    count = len(times)
    made = observed.copy(data=stack[:count]).assign_attrs(long_name="glacier probability given all dates and the prior")
    flags = observed.copy(data=stack[count:].astype("uint8"))
    if slope is not None and options.steepest is not None:
        steep = made.notnull() & (slope > options.steepest)
        flags = flags.where(~steep, (seen >= options.threshold).astype("uint8") * np.uint8(STEEP))
        made = made.where(~steep, 0.0)
    flags.attrs = {
        "long_name": "where the prior overruled the date",
        "flag_masks": np.array([GAINED, LOST, UNCONFIRMED, STEEP], "uint8"),
        "flag_meanings": "date_says_no_ice date_says_ice among_the_last_dates date_says_ice_on_steep_ground",
    }
    found = {"glacier_probability": made, "glacier_probability_observed": observed, "overruled": flags}
    if "quality" in cube:
        found["quality"] = cube["quality"]
    attrs = {"region": cube.attrs["region"]} if "region" in cube.attrs else {}
    told = {name: value for name, value in provenance_of(cube).items() if name in _OBSERVED_WITH}
    if told:
        attrs[MADE] = json.dumps(told, sort_keys=True)
    return xr.Dataset(found, attrs={**attrs, "prior": json.dumps(asdict(options), sort_keys=True)})


def _apply(seen: Any, free: Any, years: FloatArray, resolution: float, options: PriorOptions) -> Any:
    """Probability of all dates, and then the flags of all: (2 time, y, x) float32, lazy if the input is."""
    count = len(years)

    def block(stack: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        made, flags = smooth_series(stack[:count], years, resolution, options, stack[count] > 0)
        return np.concatenate([made, flags]).astype(np.float32)

    if not isinstance(seen, da.Array):
        return block(np.concatenate([seen, np.asarray(free)[None]], dtype=np.float32))
    stack = da.concatenate([seen.astype("float32"), da.asarray(free)[None].astype("float32")])
    stack = stack.rechunk({0: -1, 1: seen.chunks[1], 2: seen.chunks[2]})
    # Beyond `_FAR` the distance from the margin does not count: with that much around it, each block is as the whole.
    depth = {0: 0, 1: int(np.ceil(_FAR / resolution)) + 1, 2: int(np.ceil(_FAR / resolution)) + 1}
    grown = da.overlap.overlap(stack, depth=depth, boundary="none", allow_rechunk=True)
    chunks = ((2 * count,), *grown.chunks[1:])
    made = grown.map_blocks(block, chunks=chunks, dtype="float32", meta=np.empty((0, 0, 0), "float32"))
    return da.overlap.trim_internal(made, depth, boundary="none")


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
        See `with_prior`.
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
    made = _forward_backward(ice, lost, gained)
    turned = seen & ((made >= options.threshold) != says)
    flags = np.where(turned, np.where(says, LOST, GAINED), 0).astype(np.uint8)
    late = _after(seen) < max(options.agree, 1)
    flags |= np.where(turned & late, UNCONFIRMED, 0).astype(np.uint8)
    return np.where(seen, made, np.nan), flags


def _step_distances(shown: FloatArray, resolution: float, threshold: float) -> FloatArray:
    """Metres from the margin between one date and the next: (time - 1, y, x), `_FAR` at most."""
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
        return np.full(ice.shape, _FAR)
    # From the pixel's centre to the line between the two sides.
    found = np.where(ice, ndimage.distance_transform_edt(ice), ndimage.distance_transform_edt(~ice)) - 0.5
    return np.asarray(np.minimum(found * resolution, _FAR), np.float64)


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


def _forward_backward(ice: FloatArray, lost: FloatArray, gained: FloatArray) -> FloatArray:
    """Posterior of ice: `ice` is its likelihood beside 1 - ice, `lost` and `gained` the chances of change between."""
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


def prior_report(cube: xr.Dataset) -> pd.DataFrame:
    """Where and how much the prior overruled the data, date by date.

    Parameters
    ----------
    cube : Dataset
        From `with_prior`.

    Returns
    -------
    DataFrame
        Per time: ``seen_km2`` (what the date shows), ``observed_km2`` and ``corrected_km2`` (pixels from the threshold
        on, before and after), ``gained_km2`` and ``lost_km2`` (where the prior made ice of none, and none of ice),
        ``unconfirmed_km2`` (of both: what later dates may still confirm), ``steep_km2`` (where the date says ice on
        ground that is too steep) and ``share`` (of what is seen that was turned).
    """
    threshold = float(json.loads(cube.attrs["prior"])["threshold"])
    pixel = float(abs((cube["x"][1] - cube["x"][0]) * (cube["y"][1] - cube["y"][0]))) / 1e6
    flags, made = cube["overruled"], cube["glacier_probability"]
    observed = cube["glacier_probability_observed"].where(made.notnull())
    counts = {
        "seen_km2": made.notnull(),
        "observed_km2": observed >= threshold,
        "corrected_km2": made >= threshold,
        "gained_km2": (flags & GAINED) > 0,
        "lost_km2": (flags & LOST) > 0,
        "unconfirmed_km2": (flags & UNCONFIRMED) > 0,
        "steep_km2": (flags & STEEP) > 0,
    }
    sums = xr.Dataset({name: found.sum(("y", "x")) * pixel for name, found in counts.items()}).compute()
    table = pd.DataFrame({name: sums[name].to_numpy() for name in counts})
    table.insert(0, "time", pd.DatetimeIndex(cube["time"].to_numpy()))
    turned = table["gained_km2"] + table["lost_km2"] + table["steep_km2"]
    return table.assign(share=(turned / table["seen_km2"]).where(table["seen_km2"] > 0))
