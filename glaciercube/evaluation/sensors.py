"""How a model does with fewer sensors or dates than it could use."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.predict import PredictOptions, cases_of
from glaciercube.evaluation.reliability import NEAR, pixels_of, reliability
from glaciercube.evaluation.segmentation import debris_confusion, segmentation
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip

__all__ = ["SensorRow", "common_subsets", "sensor_subsets", "sensor_table"]


@dataclass(frozen=True)
class SensorRow:
    """Scores of a model that is shown part of what there is.

    Attributes
    ----------
    name : str
        What it is shown, such as ``without radar``.
    pixels, unseen : int
        Pixels that are compared, and labelled ones that it cannot say anything of.
    iou, tolerant_iou, f1 : float
        Pooled over all images.
    debris_iou : float
        Of debris-covered ice, clean ice left out; NaN where debris is not known.
    ece, near_ece : float
        Calibration error over all pixels and within 50 m of the outlines.
    lost : float
        IoU that is lost against the first row.
    """

    name: str
    pixels: int
    unseen: int
    iou: float
    tolerant_iou: float
    f1: float
    debris_iou: float
    ece: float
    near_ece: float
    lost: float


def sensor_subsets(model: Model, chip: Chip) -> dict[str, tuple[str, ...]]:
    """What a model can be shown of a chip: everything, everything but one input, and one input alone.

    Parameters
    ----------
    model : Model
        Whose contract names the inputs (modalities); those that it requires are always shown.
    chip : Chip
        Inputs that it lacks are in no subset.

    Returns
    -------
    dict of str to tuple of str
        ``all``, ``without radar``, ``radar alone`` and so on -> the modalities that are left out for it.
    """
    here = model.contract.select(chip.variables)
    needed = [m for m in here if m.required]
    free = [m for m in here if not m.required]
    found: dict[str, tuple[str, ...]] = {"all": ()}
    for each in free:
        if any(m.evidence for m in here if m is not each):
            found[f"without {each.name}"] = (each.name,)
    for each in free:
        if each.evidence and not any(m.evidence for m in needed) and len(free) > 1:
            found[f"{each.name} alone"] = tuple(m.name for m in free if m is not each)
    return found


def common_subsets(model: Model, chips: Sequence[Chip]) -> dict[str, tuple[str, ...]]:
    """The subsets of `sensor_subsets` that all chips have."""
    each = [sensor_subsets(model, chip) for chip in chips]
    return {name: without for name, without in each[0].items() if all(other.get(name) == without for other in each)}


def sensor_table(
    model: Model,
    chips: Sequence[Chip],
    options: PredictOptions | None = None,
    *,
    subsets: Mapping[str, Sequence[str]] | None = None,
    threshold: float = 0.5,
) -> tuple[SensorRow, ...]:
    """Score a model once for each subset of its inputs.

    Parameters
    ----------
    model : Model
        Any.
    chips : sequence of Chip
        Not those it was trained on.
    options : PredictOptions or None
        What else it is shown, and which pixels count.
    subsets : mapping of str to sequence of str, or None
        Name -> modalities that are left out. When left out, those of `common_subsets`; and, for models that look at
        several dates, each date alone.
    threshold : float
        Probability above which a pixel is said to be ice.

    Returns
    -------
    tuple of SensorRow
        Losses are against the first. The last row says ice everywhere: what knowing nothing scores.
    """
    options = options or PredictOptions()
    chosen = common_subsets(model, chips) if subsets is None else subsets
    shown = {name: replace(options, without=(*options.without, *without)) for name, without in chosen.items()}
    if subsets is None and model.contract.time_context is not None and not options.alone:
        shown["each date alone"] = replace(options, alone=True)
    rows: list[SensorRow] = []
    first: list[Case] = []
    for name, option in shown.items():
        cases = list(cases_of(model, chips, option))
        first = first or cases
        rows.append(_row(name, cases, threshold, rows))
    blind = [replace(case, probability=case.probability * 0 + 1) for case in first]
    rows.append(replace(_row("(ice everywhere)", blind, threshold, rows), ece=math.nan, near_ece=math.nan))
    return tuple(rows)


def _row(name: str, cases: Sequence[Case], threshold: float, rows: Sequence[SensorRow]) -> SensorRow:
    found = segmentation(cases, threshold)
    return SensorRow(
        name=name,
        pixels=found.pooled.pixels,
        unseen=found.unseen,
        iou=found.pooled.iou,
        tolerant_iou=found.tolerant.iou,
        f1=found.pooled.f1,
        debris_iou=debris_confusion(cases, threshold).iou,
        ece=reliability(*pixels_of(cases)).ece,
        near_ece=reliability(*pixels_of(cases, near=NEAR)).ece,
        lost=(rows[0].iou if rows else found.pooled.iou) - found.pooled.iou,
    )
