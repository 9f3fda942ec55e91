"""The table as Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Section", "markdown", "section_of"]

_COLUMNS = (
    "model",
    "IoU by fold",
    "mean IoU",
    "IoU ± 1 px",
    "best threshold by fold",
    "F1",
    "precision",
    "recall",
    "ECE",
    "ECE in 50 m",
    "weights",
    "s/Mpx",
    "training",
)


@dataclass(frozen=True)
class Section:
    """One set's part of the table.

    Attributes
    ----------
    title : str
        Name of the set.
    columns : tuple of str
        Heads.
    rows : tuple of tuple of str
        As printed.
    notes : tuple of str
        Label mapping, split, caveats.
    record : mapping
        The same for machines, in what JSON can hold.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


def section_of(title: str, notes: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> Section:
    """The table of a set from its cells.

    Parameters
    ----------
    title : str
        Of the section.
    notes : sequence of str
        Printed above the rows.
    cells : sequence of mapping
        One per entrant and fold, in order, as `glaciercube.bench.cells.run_cell` gives them.
    """
    names = list(dict.fromkeys(str(cell["entrant"]) for cell in cells))
    rows = tuple(_row(name, [cell for cell in cells if cell["entrant"] == name]) for name in names)
    return Section(title, _COLUMNS, rows, tuple(notes), {"cells": list(cells)})


def markdown(head: Sequence[str], sections: Sequence[Section]) -> str:
    """All sections, one after the other."""
    lines = [*head, ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        lines += [*(f"- {note}" for note in section.notes), ""]
        lines += ["| " + " | ".join(section.columns) + " |", "|---" * len(section.columns) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in section.rows]
        lines.append("")
    return "\n".join(lines)


def _row(name: str, cells: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    scored = [cell for cell in cells if cell.get("scores")]
    weights, cost = cells[-1].get("parameters"), cells[-1].get("seconds_per_megapixel")
    last = ("" if weights is None else f"{weights:,}", "" if cost is None else f"{cost:.2g}")
    if not scored:
        return (name, *("",) * (len(_COLUMNS) - 4), *last, str(cells[0]["skipped"]))
    found, best = (_by_fold(cells, key) for key in ("iou", "best_iou"))
    # A mean over some of the folds would not compare with the others'.
    whole = cells if len(scored) == len(cells) else ()
    first, then = [(_mean(whole, key), 2) for key in ("iou", "tolerant_iou")], ("f1", "precision", "recall")
    scores = [*first, *((_mean(whole, key), 2) for key in then), *((_mean(whole, k), 3) for k in ("ece", "ece_near"))]
    iou, tolerant, *others = (_figure(value, digits) for value, digits in scores)
    return (name, found, iou, tolerant, best, *others, *last, _training(cells))


def _by_fold(cells: Sequence[Mapping[str, Any]], key: str) -> str:
    return " / ".join(_figure(cell["scores"][key] if cell.get("scores") else None) for cell in cells)


def _training(cells: Sequence[Mapping[str, Any]]) -> str:
    said = {str(cell["skipped"]) for cell in cells if cell.get("skipped")}
    trained = [cell["training"] for cell in cells if cell.get("training")]
    if not trained:
        return "; ".join(sorted(said)) or "none"
    steps, passes, seconds = (
        f"{min(values):.3g}" if f"{min(values):.3g}" == f"{max(values):.3g}" else f"{min(values):.3g}-{max(values):.3g}"
        for values in ([t[key] for t in trained] for key in ("steps", "passes", "seconds"))
    )
    return "; ".join([f"{seconds} s, {steps} steps, {passes} passes", *sorted(said)])


def _mean(cells: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Mean over the folds that have the score."""
    values = [cell["scores"][key] for cell in cells if cell["scores"][key] is not None]
    return sum(values) / len(values) if values else None


def _figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
