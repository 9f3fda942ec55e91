"""Intervals of time, as STAC writes them."""

from __future__ import annotations

import datetime as dt
from typing import Final, TypeAlias

import pandas as pd

from glaciercube.errors import ConfigError

__all__ = ["Interval", "hull", "parse_interval", "written"]

# Both ends included, UTC; an end that is None is open.
Interval: TypeAlias = tuple[dt.datetime | None, dt.datetime | None]
_ANY: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


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


def hull(first: str, second: str) -> str:
    """The shortest interval that holds two others, in their own words; empty if either is."""
    if not first or not second:
        return ""
    both = [(parse_interval(time), *_ends(time)) for time in (first, second)]
    begin = min(both, key=lambda one: (one[0][0] is not None, one[0][0] or _ANY))[1]
    end = max(both, key=lambda one: (one[0][1] is None, one[0][1] or _ANY))[2]
    return begin if begin == end else f"{begin}/{end}"


def _ends(time: str) -> tuple[str, str]:
    first, slash, last = (part.strip() for part in time.partition("/"))
    return first or "..", (last if slash else first) or ".."


def _period(text: str, open_ended: str) -> pd.Period | None:
    return None if open_ended and text in ("", "..") else pd.Period(text)


def written(interval: Interval) -> str:
    """An interval in STAC's own words: ``start/end``, ``..`` where it is open."""
    return "/".join(end.isoformat().removesuffix("+00:00") + "Z" if end else ".." for end in interval)
