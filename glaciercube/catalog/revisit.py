"""How often Sentinel-1 and -2 pass over a place."""

from __future__ import annotations

import math
from typing import Final

import pandas as pd

__all__ = ["CYCLE_DAYS", "expected_passes"]

# Days after which a satellite passes along one relative orbit again (mission guides of Sentinel-1 and -2).
CYCLE_DAYS: Final = {"sentinel-1": 12, "sentinel-2": 10}
# When each satellite images all land that it passes, to the month. Sentinel-2C took Sentinel-2A's place in January
# 2025; since then 2A images chosen places only, so that it is counted and not expected. Sentinel-1B failed in 2021.
_SERVICE: Final = {
    "sentinel-1a": ("2014-10", "2100"),
    "sentinel-1b": ("2016-09", "2021-12-23"),
    "sentinel-1c": ("2025-05", "2100"),
    "sentinel-2a": ("2015-07", "2025-01-21"),
    "sentinel-2b": ("2017-04", "2100"),
    "sentinel-2c": ("2025-01-21", "2100"),
}


def expected_passes(sensor: str, seen: pd.DataFrame, begin: pd.Timestamp, end: pd.Timestamp) -> float:
    """How often the satellites pass in an interval along the relative orbits that occur among the observations.

    A relative orbit is passed every 10 days by each Sentinel-2 and every 12 days by each Sentinel-1 in service. Where a
    satellite was seen on an orbit its passes are counted from there; where not, the length of the interval divided by
    10 or 12 stands in, since all satellites of a pair share their orbits. Sentinel-2 images all land; Sentinel-1
    follows a plan that leaves passes out, so that its number is what could be and not what must be. Orbits of which
    nothing was found are not known of, and not expected. Orbit manoeuvres and outages are not known either.

    Parameters
    ----------
    sensor : str
        ``"sentinel-1"`` or ``"sentinel-2"``.
    seen : DataFrame
        Its observations: ``time``, ``platform``, ``relative_orbit``.
    begin, end : Timestamp
        The interval, UTC without a zone.

    Returns
    -------
    float
        NaN for other sensors, or where orbits are not stated.
    """
    known = seen[seen["relative_orbit"].notna()]
    if sensor not in CYCLE_DAYS or not len(known):
        return math.nan
    cycle, total = pd.Timedelta(days=CYCLE_DAYS[sensor]), 0.0
    for orbit in known["relative_orbit"].unique():
        on_orbit = known[known["relative_orbit"] == orbit]
        for platform, service in _SERVICE.items():
            if not platform.startswith(sensor):
                continue
            first, last = (
                max(pd.Timestamp(service[0]), begin),
                min(pd.Timestamp(service[1]), end),
            )
            if last <= first:
                continue
            anchors = on_orbit.loc[on_orbit["platform"] == platform, "time"]
            if len(anchors):
                # Passes at anchor + n cycles with first <= pass <= last; repeats differ by seconds.
                anchor = anchors.iloc[0]
                total += math.floor((last - anchor) / cycle) - math.ceil((first - anchor) / cycle) + 1
            else:
                total += (last - first) / cycle
    return total
