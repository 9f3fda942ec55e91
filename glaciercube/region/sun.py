"""Where the sun stands over a place."""

from __future__ import annotations

import datetime as dt
from typing import Final

import numpy as np

__all__ = ["DAYS_PER_YEAR", "sun_position"]

#: Of the Julian calendar, as years of rates and ages are counted.
DAYS_PER_YEAR: Final = 365.25


def sun_position(when: dt.datetime, longitude: float, latitude: float) -> tuple[float, float]:
    """Where the sun stands, to about 1.3 degrees.

    Declination after Cooper (1969), equation of time after Spencer (1971), as given by Duffie & Beckman, Solar
    Engineering of Thermal Processes (2013), section 1.5 and 1.6.

    Parameters
    ----------
    when : datetime.datetime
        UTC.
    longitude, latitude : float
        Degrees.

    Returns
    -------
    azimuth, elevation : float
        Degrees clockwise from north, and above the horizon.
    """
    day = when.timetuple().tm_yday
    hours = when.hour + when.minute / 60 + when.second / 3600
    turn = 2 * np.pi * (day - 81) / 364
    minutes = 9.87 * np.sin(2 * turn) - 7.53 * np.cos(turn) - 1.5 * np.sin(turn)
    angle = np.radians(15 * (hours + minutes / 60 - 12) + longitude)
    declination = np.radians(23.45 * np.sin(2 * np.pi * (284 + day) / 365))
    high = np.radians(latitude)
    up = np.sin(high) * np.sin(declination) + np.cos(high) * np.cos(declination) * np.cos(angle)
    north = np.cos(high) * np.sin(declination) - np.sin(high) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    return float(np.degrees(np.arctan2(east, north)) % 360), float(np.degrees(np.arcsin(up)))
