"""What a benchmark is scored on: chips, the folds that part them, and what counts as found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from glaciercube.errors import ConfigError
from glaciercube.models.chips import Chip
from glaciercube.models.classes import GROUND

__all__ = ["BenchSet", "Fold", "grouped_by_distance"]


@dataclass(frozen=True)
class Fold:
    """One way of parting a set.

    Attributes
    ----------
    name : str
        What is left out.
    train, test : tuple of Chip
        Chips of which none of one shares a place with the other.
    """

    name: str
    train: tuple[Chip, ...]
    test: tuple[Chip, ...]

    def with_stand_ins(self, stand_ins: Mapping[str, str]) -> Fold:
        """The same chips with variables that they lack (the keys) as copies of others (the values)."""
        if not stand_ins:
            return self

        def filled(chip: Chip) -> Chip:
            own = dict(chip.variables)
            return replace(chip, variables={name: own[other] for name, other in stand_ins.items()} | own)

        return Fold(self.name, tuple(map(filled, self.train)), tuple(map(filled, self.test)))


@dataclass(frozen=True, eq=False)
class BenchSet:
    """A set of a benchmark.

    Attributes
    ----------
    name : str
        Of the set.
    chips : tuple of Chip
        All with the same labels.
    groups : tuple of str
        Of each chip: chips of one group are left out together.
    positive : tuple of str
        Labels that count as found; the others are background.
    mapping : str
        In words: which classes the labels stand for.
    split : str
        In words: what a fold leaves out, and what that measures.
    notes : tuple of str
        What else a reader must know.
    real : bool
        Whether the set was measured, not simulated.
    modalities : mapping of str to tuple of str
        Layers that every chip holds, by group: what a network that is trained on the set is given.
    kept : tuple of str
        Groups that are never left out, such as a training world.
    top : tuple of Chip
        The same chips in top-of-atmosphere reflectance, for rules whose thresholds are of that; empty where the set
        has one kind of reflectance alone.
    stand_ins : mapping of str to str
        Variables that chips lack -> those that stand in for them where a shipped model asks for them.
    """

    name: str
    chips: tuple[Chip, ...]
    groups: tuple[str, ...]
    positive: tuple[str, ...]
    mapping: str
    split: str
    notes: tuple[str, ...] = ()
    real: bool = True
    modalities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    top: tuple[Chip, ...] = ()
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.chips or len(self.groups) != len(self.chips):
            raise ConfigError(
                f"set {self.name!r} has {len(self.chips)} chips and {len(self.groups)} groups", "give one per chip"
            )
        labels = self.chips[0].labels
        if any(chip.labels != labels for chip in self.chips) or not set(self.positive) <= set(labels):
            raise ConfigError(
                f"set {self.name!r} mixes labels, or counts {', '.join(self.positive)} of {', '.join(labels)}",
                "give every chip the same labels, and name some of them as found",
            )

    @property
    def positive_classes(self) -> tuple[str, ...]:
        """Classes whose summed probability is scored: all that a found label may be."""
        labels = self.chips[0].labels
        return tuple(name for name in GROUND if any(name in labels[label] for label in self.positive))

    def folds(self) -> Iterator[Fold]:
        """Each group left out once, in order of their names."""
        placed = list(zip(self.chips, self.groups, strict=True))
        for name in sorted(set(self.groups) - set(self.kept)):
            train = tuple(chip for chip, group in placed if group != name)
            yield Fold(name, train, tuple(chip for chip, group in placed if group == name))

    def of_reflectance(self, wanted: str | None) -> BenchSet:
        """The set as a contract's reflectance wants it, where it has both kinds."""
        return replace(self, chips=self.top, top=()) if wanted == "toa" and self.top else self

    def key(self) -> str:
        """Sha256 (hex) over every chip: values, labels, weights, groups."""
        digest = hashlib.sha256(repr((self.name, self.groups, self.positive)).encode())
        for chip in (*self.chips, *self.top):
            digest.update(repr((chip.name, chip.labels, chip.resolution, sorted(chip.variables))).encode())
            layers = [chip.variables[name] for name in sorted(chip.variables)]
            for values in (*layers, chip.label, chip.weight, chip.time):
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def grouped_by_distance(boxes: Sequence[tuple[float, float, float, float]], distance: float) -> list[int]:
    """Number of the group of each box: boxes nearer to each other than a distance, or linked by such, are one group.

    Parameters
    ----------
    boxes : sequence of (left, bottom, right, top)
        In one metric coordinate system.
    distance : float
        Metres between the nearest edges.
    """
    groups = list(range(len(boxes)))
    for i, (left, bottom, right, top) in enumerate(boxes):
        for j, other in enumerate(boxes[:i]):
            across = max(other[0] - right, left - other[2], 0.0)
            along = max(other[1] - top, bottom - other[3], 0.0)
            if np.hypot(across, along) < distance and groups[i] != groups[j]:
                gone, kept = max(groups[i], groups[j]), min(groups[i], groups[j])
                groups = [kept if group == gone else group for group in groups]
    return groups
