"""Chips that are read once and kept in memory, as far as there is room."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from glaciercube.models.chips import Chip

__all__ = ["KeptChips"]

# Elevation in half precision is off by metres.
_FULL = frozenset({"elevation"})


class KeptChips(Sequence[Chip]):
    """Chips that are read when they are first asked for, and kept in half precision.

    That is 0.05 % of a reflectance and 0.01 dB, well under the noise of either.

    Parameters
    ----------
    chips : sequence of Chip
        Lazy.
    memory : float
        Bytes to keep at most; what is over is read each time.
    """

    def __init__(self, chips: Sequence[Chip], memory: float = 8e9) -> None:
        self._chips, self._left = chips, memory
        self._kept: dict[int, Chip] = {}
        self._lock = threading.Lock()

    @property
    def source(self) -> Sequence[Chip]:
        """Where they are read from."""
        return self._chips

    @property
    def fingerprint(self) -> str | None:
        """What the chips are, where they know it without being read; see `glaciercube.training.fingerprint`."""
        return getattr(self._chips, "fingerprint", None)

    def __len__(self) -> int:
        return len(self._chips)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[int(index)]
        if number not in self._kept:
            chip = _compact(self._chips[number])
            size = sum(value.nbytes for value in (*chip.variables.values(), chip.label, chip.weight))
            with self._lock:
                if number not in self._kept and size <= self._left:
                    self._left -= size
                    self._kept[number] = chip
            return chip
        return self._kept[number]


def _compact(chip: Chip) -> Chip:
    variables = {name: _half(name, values) for name, values in chip.variables.items()}
    return replace(chip, variables=variables)


def _half(name: str, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    if name in _FULL or values.dtype == np.float16:
        return values
    limits = np.finfo(np.float16)
    half: npt.NDArray[np.floating] = np.clip(values, limits.min, limits.max).astype(np.float16)
    return half
