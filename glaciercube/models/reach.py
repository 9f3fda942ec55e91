"""How far a model sees: fixed windows where it sees a whole window, and the dates beside a date.

Knows no torch: plans read this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glaciercube.errors import ModelError

__all__ = ["TimeContext", "Windows"]


@dataclass(frozen=True)
class Windows:
    """Windows of one size on one lattice, for models whose every output pixel sees the whole window.

    Window ``(i, j)`` begins at pixel ``(i * step, j * step)`` of the grid, for all whole numbers, also negative ones:
    the windows that hold a pixel are the same whatever block, shard or batch it is computed in. What lies beyond the
    grid is missing. A pixel's value is the mean of those windows, weighted by a Gaussian of its place in the window,
    ``exp(-r**2 / (2 * sigma**2))`` with r = 1 at the edge's middle; windows that say nothing there weigh nothing.

    Attributes
    ----------
    size : int
        Side of a window in pixels: a multiple of `step`.
    step : int
        Pixels from one window to the next.
    sigma : float
        Of the Gaussian, in half windows: 1 in GlaViTU, 0.5 in ICEmapper, 0.25 in the CaFFe baseline.
    margin : int
        Pixels at each edge that are seen and not predicted, for models of a target within its context.
    """

    size: int
    step: int
    sigma: float = 1.0
    margin: int = 0

    def __post_init__(self) -> None:
        if self.step < 1 or self.size % self.step or not 0 <= self.margin <= (self.size - self.step) / 2:
            raise ModelError(
                f"windows of {self.size} pixels, every {self.step}, without {self.margin} at their edges",
                "the size is a multiple of the step, and what is left without the edges is no less than the step",
            )
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ModelError(f"windows with the weight's sigma {self.sigma}", "give a number above zero")

    @property
    def halo(self) -> int:
        """Pixels around a block that, with ends on multiples of the step, hold the windows that meet it and no more."""
        return self.size - self.margin - self.step

    @property
    def passes(self) -> float:
        """How often a pixel goes through the model."""
        return (self.size / self.step) ** 2


@dataclass(frozen=True)
class TimeContext:
    """The dates beside its own that a date's prediction may use: its receptive field in time.

    Stated in days and not in rows of a cube, so that it means the same in every cube; `most` bounds it in rows, so that
    memory and reading are bounded. A date's context is a function of the cube's times alone: of the dates less than
    `before` days earlier the `most` nearest, of those less than `after` days later likewise. A new date changes the
    prediction of the dates whose context it enters, and of no other.

    Attributes
    ----------
    before, after : float
        Days. With ``after=0`` the model looks back only, and no later date ever changes a prediction.
    most : int
        Dates on each side, at most.
    fills : bool
        Whether a pixel that its own date does not show is predicted from its neighbours. If not, it is missing.
    """

    before: float
    after: float
    most: int
    fills: bool = False

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and v >= 0 for v in (self.before, self.after)) or self.most < 1:
            raise ModelError(
                f"a time context of {self.before} days before, {self.after} after and {self.most} dates",
                "give days of at least 0 and at least one date",
            )

    @property
    def earlier(self) -> int:
        """Places for earlier dates."""
        return self.most if self.before > 0 else 0

    @property
    def later(self) -> int:
        """Places for later dates."""
        return self.most if self.after > 0 else 0

    @property
    def places(self) -> int:
        """Places for dates in all, its own among them."""
        return self.earlier + 1 + self.later

    def union(self, days: Sequence[float], targets: Sequence[int]) -> list[int]:
        """Indices of all dates that some dates need, themselves among them, in order."""
        return sorted({i for target in targets for i in self.choose(days, target) if i is not None})

    def choose(self, days: Sequence[float], target: int) -> tuple[int | None, ...]:
        """The context of one date.

        Parameters
        ----------
        days : sequence of float
            Of all dates of the cube, in days from any day, in any order.
        target : int
            Which of them.

        Returns
        -------
        tuple of int or None
            Indices into `days` by time, `places` of them, the date's own at place `earlier`; None where there is no
            such date.
        """
        own = days[target]
        order = sorted((i for i in range(len(days)) if i != target), key=lambda i: (days[i], i))
        before = [i for i in order if days[i] < own and own - days[i] < self.before][-self.most :]
        after = [i for i in order if days[i] > own and days[i] - own < self.after][: self.most]
        before = before if self.earlier else []
        return (
            *(None,) * (self.earlier - len(before)),
            *before,
            target,
            *after,
            *(None,) * (self.later - len(after)),
        )


def windows_of(found: Any) -> Windows | None:
    """Read windows from what JSON gives; None for None."""
    return None if found is None else Windows(**found)


def time_context_of(found: Any) -> TimeContext | None:
    """Read a time context from what JSON gives; None for None."""
    return None if found is None else TimeContext(**found)
