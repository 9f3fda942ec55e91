"""The dates beside each date, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from glaciercube.models.reach import TimeContext

__all__ = ["Neighbours", "find_neighbours"]


class Neighbours(NamedTuple):
    """What a module of several dates is told of them, for each date that it predicts.

    The number of places is the contract's, whatever dates there are, so that a prediction does not depend on what else
    is in its batch.

    Attributes
    ----------
    which : (date, place) int64
        Which of the dates at hand stands there, by time; the date itself at place `TimeContext.earlier`. 0 where there
        is none.
    present : (date, place) bool
        Whether there is one.
    days : (date, place) float32
        How much later it is than the date itself; 0 where there is none.
    """

    which: Tensor
    present: Tensor
    days: Tensor


def find_neighbours(
    context: TimeContext, days: Sequence[float], targets: Sequence[int], device: torch.device
) -> Neighbours:
    """Find the neighbours of some dates.

    Parameters
    ----------
    context : TimeContext
        How far a date looks.
    days : sequence of float
        Of all dates at hand, in days from any day.
    targets : sequence of int
        Those to predict.
    device : torch.device
        Where the inputs are.
    """
    all_days = [float(day) for day in days]
    rows = [context.choose(all_days, target) for target in targets]
    index = [[0 if i is None else i for i in row] for row in rows]
    present = [[i is not None for i in row] for row in rows]
    lag = [[0.0 if i is None else all_days[i] - all_days[t] for i in row] for t, row in zip(targets, rows, strict=True)]
    return Neighbours(
        torch.tensor(index, dtype=torch.int64, device=device).reshape(len(rows), context.places),
        torch.tensor(present, dtype=torch.bool, device=device).reshape(len(rows), context.places),
        torch.tensor(lag, dtype=torch.float32, device=device).reshape(len(rows), context.places),
    )
