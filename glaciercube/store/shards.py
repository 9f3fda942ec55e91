"""A set of shards of a store in little room: a million are 8 MB, and not the 250 MB that Python's own would take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Shards", "codes"]

# Bits of a shard's row and of its column in one number; its place on the time axis has the 22 above.
_SIDE: Final = 20

Place = tuple[int, tuple[int, int]]


def codes(
    index: npt.NDArray[np.integer], y: npt.NDArray[np.integer], x: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """One number for each shard of each date, by its place on the time axis, row and column."""
    wide = [part.astype("int64") for part in (index, y, x)]
    code: npt.NDArray[np.int64] = (wide[0] << (2 * _SIDE)) | (wide[1] << _SIDE) | wide[2]
    return code


class Shards:
    """Shards of dates: (place on the time axis, (row, column)).

    Parameters
    ----------
    known : array of int64
        From `codes`, in any order.
    beside : int
        Changes that are kept beside the sorted numbers, until they are more.
    """

    def __init__(self, known: npt.NDArray[np.int64], beside: int = 1 << 14) -> None:
        self._sorted, self._beside = np.unique(known), beside
        self._more: set[int] = set()
        self._less: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._more) - len(self._less)

    def among(self, places: Iterable[Place]) -> list[Place]:
        """Those of the places that are in the set."""
        given = list(places)
        code = [_code(place) for place in given]
        if not len(self._sorted):
            return [place for place, one in zip(given, code, strict=True) if one in self._more]
        found = np.searchsorted(self._sorted, code)
        held = self._sorted[np.minimum(found, len(self._sorted) - 1)] == code
        return [
            place
            for place, one, there in zip(given, code, held.tolist(), strict=True)
            if one in self._more or (there and one not in self._less)
        ]

    def add(self, places: Iterable[Place]) -> None:
        """Add shards that are not in the set."""
        for code in map(_code, places):
            if code in self._less:
                self._less.discard(code)
            else:
                self._more.add(code)
        self._fold()

    def remove(self, places: Iterable[Place]) -> None:
        """Remove shards that are in the set."""
        for code in map(_code, places):
            if code in self._more:
                self._more.discard(code)
            else:
                self._less.add(code)
        self._fold()

    def _fold(self) -> None:
        if len(self._more) + len(self._less) > self._beside:
            kept = np.setdiff1d(self._sorted, np.fromiter(self._less, np.int64), assume_unique=True)
            self._sorted = np.union1d(kept, np.fromiter(self._more, np.int64))
            self._more, self._less = set(), set()


def _code(place: Place) -> int:
    return (place[0] << (2 * _SIDE)) | (place[1][0] << _SIDE) | place[1][1]
