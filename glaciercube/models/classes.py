"""What models tell apart, by name, and how a probability is made of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError

__all__ = [
    "CLASSES",
    "GLACIER_PROBABILITY",
    "GROUND",
    "ICE",
    "ICE_PARTS",
    "PRESENCE",
    "SIDES",
    "ZONES",
    "Output",
    "check_classes",
    "membership",
]

GLACIER_PROBABILITY = "glacier_probability"

#: Classes that the models of this package use. A model of others names and describes its own.
CLASSES: Mapping[str, str] = {
    "other": "none of the other classes",
    "glacier": "glacier ice, clean or debris-covered",
    "clean_ice": "clean glacier ice and firn, also under this season's snow",
    "debris_covered_ice": "glacier ice under debris",
    "seasonal_snow": "seasonal snow off the ice",
    "water": "lakes, rivers and the sea, also with ice floes",
    "rock_glacier": "rock glacier",
    "ocean": "ocean, with sea ice and ice melange",
    "land": "ground that is neither glacier nor ocean",
    "front": "a line of a few pixels where glacier and ocean meet",
    "seaward": "what lies before a calving front: ocean, sea ice, and the shores beside them",
    "inland": "what lies behind a calving front: the glacier, and the ground beside it",
    "unknown": "not shown, such as radar shadow",
}

#: Glacier ice, parted by what lies on it; and all classes that are glacier ice, parted or not.
ICE_PARTS = ("clean_ice", "debris_covered_ice")
ICE = ("glacier", *ICE_PARTS)

#: Usual sets of classes.
PRESENCE = ("other", "glacier")
GROUND = ("other", *ICE_PARTS, "seasonal_snow", "water")
ZONES = ("ocean", "land", "glacier")
SIDES = ("seaward", "front", "inland")

# Kinds of ground that a class is first of all, and those that it is also, where a model lacks a label's class.
_CHIEF: Mapping[str, frozenset[str]] = {
    "other": frozenset({"ground"}),
    "glacier": frozenset({"clean_ice"}),
    "water": frozenset({"lake", "ocean"}),
    "land": frozenset({"ground", "seasonal_snow", "lake"}),
}
_MINOR: Mapping[str, frozenset[str]] = {
    "glacier": frozenset({"debris_covered_ice"}),
    "land": frozenset({"rock_glacier"}),
}
#: What a front is to a model without such a class.
_FRONT = frozenset({"clean_ice", "debris_covered_ice", "ocean"})


@dataclass(frozen=True)
class Output:
    """A variable that a model gives: the summed probability of some of its classes.

    Attributes
    ----------
    name : str
        Name of the variable.
    classes : tuple of str
        Classes whose probabilities are summed.
    """

    name: str = GLACIER_PROBABILITY
    classes: tuple[str, ...] = ("glacier",)


def check_classes(model: str, classes: Collection[str], outputs: Collection[Output]) -> None:
    """Refuse classes and outputs that do not fit each other.

    Raises
    ------
    ModelError
        If a class is named twice or not as an identifier, or an output is empty or sums what is no class.
    """
    if len(set(classes)) != len(classes) or len(classes) < 2 or not all(map(_is_name, classes)):
        raise ModelError(
            f"model {model!r} has the classes {', '.join(classes)}",
            "name two or more, each once, in lower case with underscores",
        )
    if not outputs or len({output.name for output in outputs}) != len(outputs):
        raise ModelError(
            f"model {model!r} gives the outputs {[o.name for o in outputs]}", "name one or more, each once"
        )
    for output in outputs:
        stray = [name for name in output.classes if name not in classes]
        if stray or not output.classes or len(set(output.classes)) != len(output.classes):
            raise ModelError(
                f"output {output.name!r} of model {model!r} sums {', '.join(output.classes) or 'nothing'}",
                f"choose among its classes {', '.join(classes)}, each once",
            )


def membership(labels: Mapping[str, Sequence[str]], classes: Sequence[str]) -> npt.NDArray[np.float32]:
    """Which of a model's classes each label may be: the probability of a label is the sum of theirs.

    A class that a label names and the model has is that class and no other. One that the model lacks is found by the
    kinds of ground that it may be: a label is every class of the model whose chief kind it holds (clean ice is that of
    ``glacier``, bare ground that of ``other`` and ``land``), and, if it holds none, every class that it shares a kind
    with. So to a model of ``other`` and ``glacier``, debris-covered ice is glacier; a label of "clean ice or snow" is
    glacier; and one of "anything but debris-covered ice" may be both, and says nothing. What no class of a model covers
    is its ``other``, if it has one.

    Parameters
    ----------
    labels : mapping of str to sequence of str
        Name of each label -> the classes that it may be, as `glaciercube.models.chips.Chip.labels`.
    classes : sequence of str
        The model's, in its order.

    Returns
    -------
    (label, class) float32
        1 where the label may be the class, else 0; a row of zeros where the model knows nothing of it (``unknown``).
    """
    found = np.zeros((len(labels), len(classes)), np.float32)
    chief, all_kinds = _kinds(classes)
    for row, names in enumerate(labels.values()):
        sure, shared = set[int](), set[int]()
        for name in names:
            if name in classes:
                sure.add(classes.index(name))
                continue
            kinds = _FRONT if name == "front" else _CHIEF.get(name, frozenset({name})) | _MINOR.get(name, frozenset())
            sure |= {index for index, held in enumerate(chief) if held & kinds}
            shared |= {index for index, held in enumerate(all_kinds) if held & kinds}
        found[row, sorted(sure or shared)] = 1.0
    return found


def _kinds(classes: Sequence[str]) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    """Chief kinds of each class, and all of them; those that no other class covers are of ``other``."""
    chief = [_CHIEF.get(name, frozenset({name})) for name in classes]
    found = [held | _MINOR.get(name, frozenset()) for name, held in zip(classes, chief, strict=True)]
    if "other" in classes:
        every = frozenset().union(*(_CHIEF.get(name, frozenset({name})) for name in CLASSES), *_MINOR.values())
        place = classes.index("other")
        covered = frozenset().union(*(held for index, held in enumerate(found) if index != place))
        found[place] = found[place] | (every - covered - {"unknown", "front"})
    return chief, found


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None
