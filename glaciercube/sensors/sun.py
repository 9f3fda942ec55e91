"""The sun of a Sentinel-2 scene: as its item states it, if that can be true."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pystac
import shapely
import shapely.geometry

from glaciercube.region.sun import sun_position
from glaciercube.sensors.base import item_time

__all__ = ["sun_of"]

# Degrees. The formula and the time of a pass are good for 1.3 each; azimuth is less sure, since a tile may be seen some
# minutes after the time that its item gives.
_ELEVATION_OFF: Final = 3.0
_AZIMUTH_OFF: Final = 5.0

# Sentinel-2's inclination (degrees) and mean local solar time of its descending node (hours), ESA's mission pages.
_INCLINATION: Final = 98.62
_CROSSING: Final = 10.5
_LONGEST: Final = dt.timedelta(minutes=50)  # that a satellite may be by day


def sun_of(item: pystac.Item, sensed: dt.datetime | None) -> tuple[float, float, dict[str, Any]]:
    """Azimuth and elevation of the sun, and what they were taken from.

    Some items of some providers state the zenith distance as ``view:sun_elevation``. So what is stated is compared with
    where the sun was, and replaced where it cannot be.

    Parameters
    ----------
    item : pystac.Item
        A Sentinel-2 scene.
    sensed : datetime or None
        Start of its datastrip (UTC), which is nearer than the start of the datatake that some items give as their time.

    Returns
    -------
    azimuth, elevation : float
        Degrees clockwise from north, and above the horizon; NaN where neither the sun is stated nor the place.
    notes : dict
        Empty where both are as stated. Else ``sun_by``: ``"computed"``, ``"computed azimuth"``, ``"computed
        elevation"``, ``"stated zenith"`` (or two of these), and ``sun_stated`` (azimuth, elevation), where they were.
        A mosaic of more than a day keeps what it states.
    """
    azimuth = _number(item.properties, "s2:mean_solar_azimuth", "view:sun_azimuth")
    height, zenith = (_number(item.properties, name) for name in ("view:sun_elevation", "s2:mean_solar_zenith"))
    stated = height if np.isfinite(height) else 90.0 - zenith
    place = _middle(item)
    if place is None or _is_nominal(item):
        return azimuth, stated, {}
    moments = _moments(item_time(item), sensed, place)
    suns = [sun_position(moment, *place) for moment in moments]
    choices = ((height, ""), (90.0 - zenith, ""), (90.0 - height, "stated zenith"), (zenith, "stated zenith"))
    fitting = ((value, how) for value, how in choices if _near(value, (high for _, high in suns)))
    elevation, by_elevation = next(fitting, (suns[0][1], "computed elevation"))
    fits = any(_apart(azimuth, towards) * np.cos(np.radians(high)) <= _AZIMUTH_OFF for towards, high in suns)
    towards, by_azimuth = (azimuth, "") if fits else (suns[0][0], "computed azimuth")
    changes = [how for how in (by_elevation, by_azimuth) if how]
    notes: dict[str, Any] = {}
    if changes:
        both = changes == ["computed elevation", "computed azimuth"]
        notes["sun_by"] = "computed" if both else ", ".join(changes)
        if np.isfinite(azimuth) or np.isfinite(stated):
            notes["sun_stated"] = [value if np.isfinite(value) else None for value in (azimuth, stated)]
    return towards, elevation, notes


def _is_nominal(item: pystac.Item) -> bool:
    """True of mosaics, whose time is the middle of a season and says nothing of the sun."""
    span = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    return span[0] is not None and span[1] is not None and span[1] - span[0] > dt.timedelta(days=1)


def _moments(when: dt.datetime, sensed: dt.datetime | None, place: tuple[float, float]) -> list[dt.datetime]:
    """When the place may have been seen, the likeliest first: a datatake goes on for half an hour."""
    known = sensed if sensed is not None and dt.timedelta(0) <= sensed - when <= _LONGEST else when
    passed = _passed(known, place)
    return [known, *({when} - {known}), *([passed] if abs(passed - known) <= _LONGEST else [])]


def _passed(near: dt.datetime, place: tuple[float, float]) -> dt.datetime:
    """When a descending Sentinel-2 crosses a latitude, by the sun: right to the width of its swath."""
    longitude, latitude = np.radians(place)
    turn = np.clip(np.tan(latitude) / np.tan(np.radians(_INCLINATION)), -1.0, 1.0)
    hours = _CROSSING - float(np.degrees(np.arcsin(turn)) + np.degrees(longitude)) / 15.0
    midnight = near.replace(hour=0, minute=0, second=0, microsecond=0)
    days = (midnight + dt.timedelta(days=days, hours=hours) for days in (-1, 0, 1))
    return min(days, key=lambda moment: abs(moment - near))


def _middle(item: pystac.Item) -> tuple[float, float] | None:
    """Longitude and latitude of the middle of a scene, as a mean of directions: also over a pole and beyond 180."""
    if item.geometry:
        corners = shapely.get_coordinates(shapely.geometry.shape(item.geometry))
    elif item.bbox:
        half = len(item.bbox) // 2
        corners = np.array([item.bbox[:2], item.bbox[half : half + 2]])
    else:
        return None
    longitude, latitude = np.radians(corners).T
    across = np.cos(latitude)
    x, y, z = (
        float(np.mean(part)) for part in (across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude))
    )
    return float(np.degrees(np.arctan2(y, x))), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def _near(value: float, others: Iterable[float]) -> bool:
    return any(abs(value - other) <= _ELEVATION_OFF for other in others)


def _apart(first: float, second: float) -> float:
    return abs((first - second + 180.0) % 360.0 - 180.0)


def _number(properties: Mapping[str, Any], *keys: str) -> float:
    return next((float(properties[key]) for key in keys if properties.get(key) is not None), float("nan"))
