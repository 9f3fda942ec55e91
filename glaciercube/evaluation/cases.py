"""What is scored: one image's probability beside its truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError

__all__ = ["Case", "ClassCounts"]

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """Pixels by true and by most probable class.

    Attributes
    ----------
    names : tuple of str
        Of the classes; those that the model cannot tell apart are one, with ``+`` between their names.
    counts : (true, said) int64
        Pixels.
    """

    names: tuple[str, ...]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    """One image: what a model says of it, and the truth.

    Attributes
    ----------
    name : str
        Of the chip or store.
    time : datetime64[s]
        Acquisition.
    probability : (y, x) float32
        Of ice, or whatever `truth` is about, 0 to 1; NaN where the model sees nothing.
    truth : (y, x) bool
        The label.
    known : (y, x) bool
        Where the label is known.
    counted : (y, x) bool
        Known pixels that are to be compared, such as the clear ones.
    resolution : float
        Pixel size in metres.
    place : str
        What several images may share.
    glaciers : (y, x) int32 or None
        Number of the glacier that a pixel belongs to; 0 for none.
    debris : (y, x) bool or None
        Debris-covered ice; None where the labels do not tell it from other ground.
    classes : ClassCounts or None
        Of the counted pixels; None where the model's classes cannot be set against the labels.
    names : mapping of int to str
        Of glaciers by number, where they have any.
    """

    name: str
    time: np.datetime64
    probability: npt.NDArray[np.float32]
    truth: BoolArray
    known: BoolArray
    counted: BoolArray
    resolution: float
    place: str = ""
    glaciers: npt.NDArray[np.int32] | None = None
    debris: BoolArray | None = None
    classes: ClassCounts | None = None
    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layers = [self.truth, self.known, self.counted, self.glaciers, self.debris]
        if any(layer is not None and layer.shape != self.probability.shape for layer in layers):
            raise ModelError(
                f"case {self.name!r} has a probability of shape {self.probability.shape} and other layers of another",
                "give all of them on one grid",
            )

    @property
    def seen(self) -> BoolArray:
        """Counted pixels that have a probability."""
        seen: BoolArray = self.counted & np.isfinite(self.probability)
        return seen
