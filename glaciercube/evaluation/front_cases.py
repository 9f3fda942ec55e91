"""A front model's lines beside those of its chips."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.change.fronts import FrontOptions, find_fronts, front_between
from glaciercube.errors import ModelError
from glaciercube.evaluation.fronts import FrontCase, season_of
from glaciercube.evaluation.predict import predict_classes
from glaciercube.models.base import Model
from glaciercube.models.chips import UNKNOWN, Chip

__all__ = ["front_cases", "tells_fronts"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]

_GROUPS = ("glacier", "season", "sensor", "resolution")


def tells_fronts(classes: Collection[str]) -> bool:
    """Whether a front can be read from classes: from ``front``, or from ``ocean`` and ``glacier``."""
    return "front" in classes or {"ocean", "glacier"} <= set(classes)


def front_cases(
    model: Model,
    chips: Iterable[Chip],
    *,
    without: Collection[str] = (),
    alone: bool = False,
    options: FrontOptions | None = None,
    sides: Callable[[Chip], tuple[BoolArray, BoolArray]] | None = None,
) -> list[FrontCase]:
    """Find the fronts of chips.

    Parameters
    ----------
    model : Model
        With classes from which a front can be read, see `tells_fronts`.
    chips : iterable of Chip
        Their drawn front is the attribute ``drawn`` (rows and columns of one date) or is read from their labels as from
        a model's classes. Dates without a drawn front are left out.
    without, alone
        As in `glaciercube.evaluation.predict.predict_classes`.
    options : FrontOptions or None
        How lines are read from probabilities.
    sides : callable or None
        Gives the two sides of a chip's fjord, (y, x) bool each, where they are known: the line from one to the other is
        then found, too, from the class ``front``.

    Returns
    -------
    list of FrontCase
        One per chip and date, by glacier (the chip's place), season, sensor and resolution.

    Raises
    ------
    ModelError
        If sides are given and the model has no class ``front``.
    """
    if sides is not None and "front" not in model.contract.classes:
        raise ModelError(
            f"no front from side to side can be read from model {model.contract.name!r}",
            "give a model with the class front, or no sides",
        )
    found: list[FrontCase] = []
    for chip in chips:
        drawn = [_drawn(chip, date) for date in range(len(chip.time))]
        if not any(len(line) for line in drawn):
            continue
        maps = predict_classes(model, chip, without=without, alone=alone)
        for date, line in enumerate(drawn):
            if len(line):
                said = dict(zip(model.contract.classes, maps[date], strict=True))
                lines = find_fronts(said, chip.resolution, options)
                case = FrontCase(chip.name, _joined(lines), line, chip.resolution, _groups(chip, date))
                found.append(case if sides is None else _between(case, said["front"], sides(chip), options))
    return found


def _between(
    case: FrontCase,
    probability: npt.NDArray[np.floating],
    sides: tuple[BoolArray, BoolArray],
    options: FrontOptions | None,
) -> FrontCase:
    """The case with the line from side to side, too."""
    line = front_between(probability, *sides, options)
    return replace(case, between=line, sides=np.argwhere(sides[0] | sides[1]))


def _drawn(chip: Chip, date: int) -> npt.NDArray[np.int64]:
    given = chip.attributes.get("drawn")
    if given is not None and len(chip.time) == 1:
        return np.asarray(given, np.int64).reshape(-1, 2)
    label = chip.label[date]
    named = {classes[0]: i for i, classes in enumerate(chip.labels.values()) if len(classes) == 1}
    if not tells_fronts(named):
        return _joined([])
    missing = np.where(label == UNKNOWN, np.nan, 0.0)
    sure: Mapping[str, npt.NDArray[np.float64]] = {name: missing + (label == i) for name, i in named.items()}
    return _joined(find_fronts(sure, chip.resolution))


def _joined(lines: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros((0, 2), np.int64), *lines])


def _groups(chip: Chip, date: int) -> dict[str, str]:
    north = chip.centre is None or chip.centre[1] >= 0
    known = {
        "glacier": chip.place or chip.name,
        "season": season_of(chip.time[date], north=north),
        "resolution": f"{chip.resolution:.0f} m",
    }
    return known | {name: str(chip.attributes[name]) for name in _GROUPS if name in chip.attributes}
