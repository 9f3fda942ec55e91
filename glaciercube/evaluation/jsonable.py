"""Records as JSON can hold them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["jsonable"]


def jsonable(value: Any, digits: int | None = None) -> Any:
    """What JSON can hold of a value: it knows no NaN, no infinity, no tuple and no dataclass.

    Parameters
    ----------
    value : Any
        Dataclasses, mappings, tuples and lists, one within the other, of texts, numbers, truths and None.
    digits : int or None
        Digits after the point to which floats are rounded; all of them when left out.

    Returns
    -------
    Any
        Dataclasses as dicts of their fields and of the properties that their class names in ``COMPUTED``, with keys as
        texts; tuples as lists; None for floats that are not finite; all else as it is.
    """
    if dataclasses.is_dataclass(value):
        names = [*(field.name for field in dataclasses.fields(value)), *getattr(value, "COMPUTED", ())]
        return {name: jsonable(getattr(value, name), digits) for name in names}
    if isinstance(value, Mapping):
        return {str(key): jsonable(each, digits) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(each, digits) for each in value]
    if isinstance(value, float):
        finite = value if digits is None else round(value, digits)
        return finite if math.isfinite(value) else None
    return value
