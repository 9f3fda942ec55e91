"""Intervals of time, as STAC writes them."""

from __future__ import annotations

import datetime as dt
from typing import TypeAlias

import pandas as pd

from glaciercube.errors import ConfigError

__all__ = ["Interval", "parse_interval", "written"]

# Both ends included, UTC; an end that is None is open.
Interval: TypeAlias = tuple[dt.datetime | None, dt.datetime | None]


def parse_interval(time: str) -> Interval:
    """Read a STAC interval.

    Parameters
    ----------
    time : str
        ``"start/end"`` or a single date, each ``YYYY``, ``YYYY-MM``, ``YYYY-MM-DD`` or a full ISO time; an end stands
        for the last moment of what it names. ``..`` leaves an end open.

    Returns
    -------
    (datetime, datetime)
        UTC; None where it is open.

    Raises
    ------
    ConfigError
        If it cannot be read or ends before it starts.
    """
    first, slash, last = (part.strip() for part in str(time).partition("/"))
    try:
        start, end = _period(first, slash), _period(last if slash else first, slash)
        begin = start.start_time.to_pydatetime().replace(tzinfo=dt.UTC) if start else None
        finish = end.end_time.floor("us").to_pydatetime().replace(tzinfo=dt.UTC) if end else None
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"time {time!r} is not an interval", "write it as 2024-01-01/2024-12-31") from error
    if begin and finish and finish < begin:
        raise ConfigError(f"time {time!r} ends before it starts", "write the earlier date first")
    return begin, finish


def _period(text: str, open_ended: str) -> pd.Period | None:
    return None if open_ended and text in ("", "..") else pd.Period(text)


def written(interval: Interval) -> str:
    """An interval in STAC's own words: ``start/end``, ``..`` where it is open."""
    return "/".join(end.isoformat().removesuffix("+00:00") + "Z" if end else ".." for end in interval)
