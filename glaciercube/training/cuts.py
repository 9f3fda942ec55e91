"""Cuts: what a sample takes from a chip, and how it is turned, lit and stripped; drawn, or as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.training.augment import Light, Turn, choose_shown, draw_light
from glaciercube.training.options import FitOptions

__all__ = ["Cut", "draw_cut", "still_cut"]


@dataclass(frozen=True, eq=False)
class Cut:
    """What is taken from one chip.

    Attributes
    ----------
    chip : Chip
        From which.
    dates : tuple of int
        Of the chip, rising.
    targets : tuple of int
        Places among `dates` of those that are predicted.
    days : tuple of float
        Of `dates`.
    size : int
        Side in pixels; what lies beyond the chip is missing.
    top, left : int
        First row and column.
    turn : Turn
        How it is turned.
    shown : tuple of tuple of str
        Modalities that each date shows.
    still : tuple of str
        Static modalities that it shows.
    lights : tuple of Light or None
        Of each date.
    ground : Chip
        Whose static modalities it shows: its own, or another's to teach that they prove nothing.
    rough : float
        Factor on curvature.
    """

    chip: Chip
    dates: tuple[int, ...]
    targets: tuple[int, ...]
    days: tuple[float, ...]
    size: int
    top: int
    left: int
    turn: Turn
    shown: tuple[tuple[str, ...], ...]
    still: tuple[str, ...]
    lights: tuple[Light | None, ...]
    ground: Chip
    rough: float = 1.0


def draw_cut(
    chip: Chip,
    contract: Contract,
    options: FitOptions,
    rng: np.random.Generator,
    sensors: np.random.Generator | None = None,
) -> Cut:
    """Draw what a sample takes from a chip; `sensors` draws the modalities if they are not to be its own."""
    size = _crop_size(contract, options)
    height, width = chip.label.shape[1:]
    top, left = (int(rng.integers(0, max(1, length - size + 1))) for length in (height, width))
    turn = Turn(int(rng.integers(4)), bool(rng.integers(2)))
    dates, targets, days = _draw_dates(chip, contract, options, rng)
    available = contract.select(chip.variables)
    kept = choose_shown(available, contract, options.sensors, rng if sensors is None else sensors)
    moving = [m for m in available if not m.static and m.name in kept]
    shown: list[tuple[str, ...]] = []
    for _ in dates:
        draws = rng.random(len(moving))
        there = [m.name for m, d in zip(moving, draws, strict=True) if d < options.sensors.date or m.required]
        # A single date shows what its sample keeps, and so does a model whose sensors are drawn for the whole batch.
        shown.append(tuple(there) if len(dates) > 1 and sensors is None else tuple(m.name for m in moving))
    lights = [draw_light([v for m in moving for v in m.variables], options.jitter, rng) for _ in dates]
    still = tuple(m.name for m in available if m.static and m.name in kept)
    rough = float(np.exp(rng.normal(0.0, options.jitter.rough)))
    return Cut(chip, dates, targets, days, size, top, left, turn, tuple(shown), still, tuple(lights), chip, rough)


def still_cut(chip: Chip, contract: Contract, options: FitOptions, date: int) -> Cut:
    """The middle of a chip at one date, as it is, with its neighbours where the model looks at them."""
    size = _crop_size(contract, options)
    top, left = (max(0, (length - size) // 2) for length in chip.label.shape[1:])
    dates: tuple[int, ...] = (date,)
    if contract.time_context is not None:
        dates = tuple(contract.time_context.union(list(chip.days), [date]))
    available = contract.select(chip.variables)
    shown = tuple(m.name for m in available if not m.static)
    still = tuple(m.name for m in available if m.static)
    days = tuple(float(chip.days[i]) for i in dates)
    targets, count = (dates.index(date),), len(dates)
    return Cut(chip, dates, targets, days, size, top, left, Turn(), (shown,) * count, still, (None,) * count, chip)


def _crop_size(contract: Contract, options: FitOptions) -> int:
    """Side of a crop: the windows', or the options' up to the stride."""
    if contract.windows is not None:
        return contract.windows.size
    return -(-options.size // contract.stride) * contract.stride


def _draw_dates(
    chip: Chip, contract: Contract, options: FitOptions, rng: np.random.Generator
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Dates, which of them are predicted, and their days; a date whose truth is known comes first."""
    known = [date for date, weight in enumerate(chip.weight) if len(chip.time) > 1 and (weight > 0).any()]
    target = int(rng.choice(known)) if known else int(rng.integers(len(chip.time)))
    if contract.time_context is None:
        return (target,), (0,), (float(chip.days[target]),)
    near = [i for i in contract.time_context.choose(list(chip.days), target) if i is not None and i != target]
    count = min(int(rng.integers(options.dates)), len(near))
    chosen = rng.choice(near, count, replace=False).tolist() if count else []
    dates = sorted([target, *chosen])
    days = chip.days[dates] + (rng.normal(0.0, options.jitter.days, len(dates)) if len(dates) > 1 else 0.0)
    most = len(dates) if options.targets is None else min(options.targets, len(dates))
    others = [place for place, date in enumerate(dates) if date != target]
    more = rng.choice(others, most - 1, replace=False).tolist() if most > 1 else []
    # Jitter may not put a date before another.
    return tuple(dates), tuple(sorted([dates.index(target), *more])), tuple(np.sort(days).tolist())
