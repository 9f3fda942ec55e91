"""What models tell apart, by name, and how a probability is made of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from glaciercube.errors import ModelError

__all__ = ["CLASSES", "GLACIER_PROBABILITY", "GROUND", "PRESENCE", "ZONES", "Output", "check_classes"]

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
    "unknown": "not shown, such as radar shadow",
}

#: Usual sets of classes.
PRESENCE = ("other", "glacier")
GROUND = ("other", "clean_ice", "debris_covered_ice", "seasonal_snow", "water")
ZONES = ("ocean", "land", "glacier")


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


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None
