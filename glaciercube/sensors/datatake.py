"""What the identifiers of a Sentinel-1 slice say of the datatake that it was cut from."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

import pystac

__all__ = ["datatake_began", "product_key"]

# Length of a slice in seconds by mode; the last one is what is left (Sentinel-1 product specification, slicing).
_SLICE_SECONDS: Final = {"IW": 25.0, "SM": 25.0, "EW": 60.0}
# Slices follow each other to a few milliseconds, and the label must not tell them apart.
_LABEL_SECONDS: Final = 10

# Mission, mode, product, level with polarisation, start, stop, absolute orbit, datatake; then a checksum.
_PRODUCT = re.compile(r"^(S1[A-D]_\w{2}_\w{4}_\w{4}_\d{8}T\d{6}_\d{8}T\d{6}_\d{6}_[0-9A-F]{6})(?:_[0-9A-F]{4})?(?=_|$)")


def product_key(name: str) -> str:
    """Name of a product without the checksum that tells its processings apart; other names as they are."""
    found = _PRODUCT.match(name)
    return found.group(1) if found else name


def datatake_began(item: pystac.Item) -> dt.datetime | None:
    """Start of the datatake, which all its slices agree on; None if the item does not say which slice it is.

    A slice's number and the length of slices give it: the first slice is a few seconds longer at its beginning, so
    that the count goes from its end, and the last one is shorter at its end. Slices of one datatake agree to
    milliseconds, and the answer is rounded to 10 s: one datatake in some thousands may still have two labels.

    Parameters
    ----------
    item : pystac.Item
        A slice, with ``s1:slice_number``, ``sar:instrument_mode``, ``start_datetime`` and ``end_datetime``.
    """
    number = item.properties.get("s1:slice_number")
    length = _SLICE_SECONDS.get(str(item.properties.get("sar:instrument_mode", "")).upper())
    begin, end = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    if number is None or length is None or begin is None or end is None or int(number) < 1:
        return None
    whole = int(number) == 1 and int(item.properties.get("s1:total_slices", 1)) > 1
    first = end - dt.timedelta(seconds=length) if whole else begin - dt.timedelta(seconds=length * (int(number) - 1))
    first = first.replace(tzinfo=dt.UTC) if first.tzinfo is None else first.astimezone(dt.UTC)
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = round((first - midnight).total_seconds() / _LABEL_SECONDS) * _LABEL_SECONDS
    return midnight + dt.timedelta(seconds=seconds)
