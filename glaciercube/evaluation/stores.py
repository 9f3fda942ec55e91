"""A finished store beside a label, with the dates of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from glaciercube.change.maps import grid_of
from glaciercube.change.rows import check_flags, hidden, middles
from glaciercube.errors import StoreError
from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.references import Reference

__all__ = ["StoreCaseOptions", "day_of", "pairs_of", "store_cases"]


@dataclass(frozen=True)
class StoreCaseOptions:
    """Which rows of a store are compared with a label, and which pixels.

    Attributes
    ----------
    dates : tuple of str
        Days whose rows are compared, such as ``("2021-08-14",)``; empty for all within `within` days of the label.
    within : float
        Days between image and label at most, where no dates are named.
    hidden_by : tuple of str
        Flags of `quality` under which a pixel is not compared.
    """

    dates: tuple[str, ...] = ()
    within: float = 45.0
    hidden_by: tuple[str, ...] = ("cloud", "cloud_shadow")

    def __post_init__(self) -> None:
        check_flags(self.hidden_by)
        for date in self.dates:
            day_of(date)


def pairs_of(
    cube: xr.Dataset, label_date: str, options: StoreCaseOptions | None = None
) -> list[tuple[int, np.datetime64, float]]:
    """The rows of a store that are compared with a label of a date.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    label_date : str
        Day that the label shows.
    options : StoreCaseOptions or None
        Which rows.

    Returns
    -------
    list of (int, datetime64[s], float)
        Row, its time (of a window, its middle), and days from the label's date to it.

    Raises
    ------
    StoreError
        If the store has no such row; it names the nearest.
    """
    options = options or StoreCaseOptions()
    day, times = day_of(label_date), middles(cube).astype("datetime64[s]")
    apart = (times - day).astype(np.float64) / 86400.0
    wanted = np.array([day_of(date) for date in options.dates], "datetime64[D]")
    days = times.astype("datetime64[D]")
    chosen = np.isin(days, wanted) if options.dates else np.abs(apart) <= options.within
    lacking = [str(date) for date in wanted if date not in days]
    if lacking or not chosen.any():
        near = ", ".join(str(day) for day in days[np.argsort(np.abs(apart), kind="stable")[:3]])
        what = f"on {', '.join(lacking)}" if lacking else f"within {options.within:g} days of {label_date}"
        raise StoreError(
            f"the store has no image {what}",
            f"the nearest to the label are of {near or 'no date'}; name dates, or more days",
        )
    return [(int(i), times[i], float(apart[i])) for i in np.flatnonzero(chosen)]


def store_cases(
    cube: xr.Dataset, reference: Reference, label_date: str, options: StoreCaseOptions | None = None
) -> Iterator[Case]:
    """Set rows of a store beside a label.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    reference : Reference
        From `glaciercube.evaluation.references`.
    label_date : str
        Day that the label shows.
    options : StoreCaseOptions or None
        Which rows and pixels.

    Yields
    ------
    Case
        One per row, all of the name of the store's region.

    Raises
    ------
    StoreError
        If the store has no such row, or is not on a grid.
    """
    options = options or StoreCaseOptions()
    resolution = abs(float(grid_of(cube).resolution.x))
    for row, time, _ in pairs_of(cube, label_date, options):
        loaded = cube[["glacier_probability", "quality"]].isel(time=row).compute()
        unseen = hidden(loaded["quality"].to_numpy(), options.hidden_by)
        yield Case(
            name=str(cube.attrs.get("region", "store")),
            time=time,
            probability=loaded["glacier_probability"].to_numpy().astype(np.float32),
            truth=reference.truth,
            known=reference.known,
            counted=reference.known & ~unseen,
            resolution=resolution,
            glaciers=reference.glaciers,
            names=reference.names,
        )


def day_of(date: str) -> np.datetime64:
    """The day that a text names.

    Raises
    ------
    StoreError
        If it names none.
    """
    try:
        return np.datetime64(pd.Timestamp(date).date(), "D")
    except ValueError as error:
        raise StoreError(f"{date!r} is no date", "write it as 2021-08-14") from error
