"""Scores of each class, among the classes that a model can tell apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.segmentation import Confusion

__all__ = ["ClassTable", "class_tables"]


@dataclass(frozen=True)
class ClassTable:
    """Pixels by true and most probable class.

    Attributes
    ----------
    names : tuple of str
        Classes; those that the model cannot tell apart are one, with ``+`` between their names.
    counts : tuple of tuple of int
        Pixels by true class, then by most probable class.
    scores : tuple of Confusion
        Of each class against all others.
    images : int
        Compared.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    scores: tuple[Confusion, ...]
    images: int


def class_tables(cases: Iterable[Case]) -> tuple[ClassTable, ...]:
    """One table for each set of classes that cases have in common; none where classes cannot be compared."""
    counts: dict[tuple[str, ...], np.ndarray] = {}
    images: dict[tuple[str, ...], int] = {}
    for case in cases:
        if case.classes is None:
            continue
        names = case.classes.names
        counts[names] = counts.get(names, 0) + case.classes.counts
        images[names] = images.get(names, 0) + 1
    return tuple(_table(names, matrix, images[names]) for names, matrix in counts.items())


def _table(names: tuple[str, ...], matrix: np.ndarray, images: int) -> ClassTable:
    scores = []
    for i in range(len(names)):
        hits, said, true = int(matrix[i, i]), int(matrix[:, i].sum()), int(matrix[i].sum())
        scores.append(Confusion(hits, said - hits, true - hits, int(matrix.sum()) - said - true + hits))
    counts = tuple(tuple(int(n) for n in row) for row in matrix)
    return ClassTable(names, counts, tuple(scores), images)
