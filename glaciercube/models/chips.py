"""Chips: small cubes with their truth, which models are trained on and scored by.

A chip holds variables by their names and units in the cube, so that every model takes what its contract asks for. Its
labels may be coarser than a model's classes: each label is a set of classes, and the probability of a label is the sum
of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError
from glaciercube.models.contract import Contract

__all__ = ["UNKNOWN", "Chip", "inputs_for"]

#: Label of pixels whose truth is not known.
UNKNOWN = 255


@dataclass(frozen=True, eq=False)
class Chip:
    """A place at one or several dates, with its truth.

    Attributes
    ----------
    variables : mapping of str to (time, y, x) or (y, x) floating
        In the units of `glaciercube.models.contract.VARIABLES`, NaN where missing.
    label : (time, y, x) uint8
        Index into `labels`, `UNKNOWN` where not known.
    labels : mapping of str to tuple of str
        Name of each label, in order -> the classes that it may be (`glaciercube.models.classes.CLASSES`).
    weight : (time, y, x) float32
        Trust in each pixel's label against its image: 0 leaves it out, less than 1 trusts it less (cloud).
    time : (time,) datetime64[s]
        Acquisitions, rising.
    resolution : float
        Pixel size in metres.
    name : str
        Of the chip.
    place : str
        What must not be parted between training and test, such as a glacier or a scene.
    centre : (float, float) or None
        Longitude and latitude in degrees, for splits by geography.
    glaciers : (y, x) int32 or None
        Number of the glacier that a pixel belongs to; 0 for none.
    attributes : mapping
        What else is known, in what JSON can hold.
    sure : (time, y, x) bool or None
        Pixels that a score counts: seen free of cloud, and with a label that is more likely right than wrong. None:
        those that weigh 1 or more.
    """

    variables: Mapping[str, npt.NDArray[np.floating]]
    label: npt.NDArray[np.uint8]
    labels: Mapping[str, tuple[str, ...]]
    weight: npt.NDArray[np.float32]
    time: npt.NDArray[np.datetime64]
    resolution: float
    name: str
    place: str = ""
    centre: tuple[float, float] | None = None
    glaciers: npt.NDArray[np.int32] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sure: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if len(self.time) != len(self.label) or self.weight.shape != self.label.shape:
            raise ModelError(
                f"chip {self.name!r} has {len(self.time)} dates, labels {self.label.shape} and weights "
                f"{self.weight.shape}",
                "give a label and a weight per date and pixel",
            )
        if self.sure is not None and self.sure.shape != self.label.shape:
            raise ModelError(
                f"chip {self.name!r} has labels {self.label.shape} and is sure of {self.sure.shape}",
                "say it per date and pixel",
            )
        wrong = [name for name, v in self.variables.items() if v.shape not in (self.label.shape, self.label.shape[1:])]
        if wrong:
            raise ModelError(
                f"chip {self.name!r} has {wrong[0]} of shape {self.variables[wrong[0]].shape} and labels "
                f"{self.label.shape}",
                "give every variable per date and pixel, or per pixel",
            )

    @property
    def clear(self) -> npt.NDArray[np.bool_]:
        """Pixels (time, y, x) that a score counts, see `sure`, whether their label is known or not."""
        return self.weight >= 1 if self.sure is None else self.sure

    @property
    def days(self) -> npt.NDArray[np.float64]:
        """Days of the dates since 2000-01-01."""
        since = self.time.astype("datetime64[s]") - np.datetime64("2000-01-01", "s")
        return since.astype(np.float64) / 86400.0


def inputs_for(chip: Chip, contract: Contract) -> dict[str, npt.NDArray[np.float32]]:
    """What a chip holds of a contract's modalities.

    Parameters
    ----------
    chip : Chip
        Any.
    contract : Contract
        Which variables, in which order.

    Returns
    -------
    dict of str to (time, channel, y, x) or, of static modalities, (channel, y, x) float32
        By modality, raw physical units, NaN where missing; modalities that lack a variable are left out.

    Raises
    ------
    ModelError
        If a required modality, or every one that could define a pixel, is missing, or a static variable has dates.
    """
    found: dict[str, npt.NDArray[np.float32]] = {}
    for modality in contract.select(chip.variables):
        layers = [np.asarray(chip.variables[name], np.float32) for name in modality.variables]
        flat = chip.label.shape[1:]
        if modality.static and any(layer.shape != flat for layer in layers):
            raise ModelError(
                f"chip {chip.name!r} has dates in the static modality {modality.name!r}", "give those layers per pixel"
            )
        if not modality.static:
            layers = [np.broadcast_to(layer, chip.label.shape) for layer in layers]
        found[modality.name] = np.stack(layers, axis=-3)
    return found
