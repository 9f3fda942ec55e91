"""The report of an evaluation: one frozen record, and its files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glaciercube.evaluation.boundary import Boundary, boundary
from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.classwise import ClassTable, class_tables
from glaciercube.evaluation.fronts import FrontScore
from glaciercube.evaluation.glaciers import (
    MARGIN,
    Glacier,
    Group,
    by_debris,
    by_size,
    each_glacier,
    glacier_table,
    hidden_glaciers,
)
from glaciercube.evaluation.jsonable import jsonable
from glaciercube.evaluation.markdown import markdown
from glaciercube.evaluation.reliability import NEAR, Reliability, pixels_of, reliability, save_reliability
from glaciercube.evaluation.segmentation import Confusion, Segmentation, debris_confusion, segmentation
from glaciercube.evaluation.sensors import SensorRow

__all__ = ["Image", "Report", "evaluate_cases", "write_report"]

#: Of the JSON; its number rises when a field changes its meaning.
FORMAT = "glaciercube-evaluation/1"


@dataclass(frozen=True)
class Image:
    """Scores of one image.

    Attributes
    ----------
    name, time : str
        Chip or store, and acquisition.
    overlap : Confusion
        Of its pixels.
    """

    name: str
    time: str
    overlap: Confusion


@dataclass(frozen=True)
class Report:
    """Everything that an evaluation found.

    Attributes
    ----------
    title : str
        What was evaluated.
    facts : mapping of str to str
        What with, on what and how, for people.
    overlap : Segmentation
        Pooled and per image.
    debris_overlap : Confusion
        Of debris-covered ice, clean ice left out; without pixels where debris is not known.
    area_bias : float
        Sum of probability over true area, less one, over all pixels that are compared.
    outlines : Boundary
        Distance between outlines.
    calibration, near_calibration : Reliability
        Over all pixels, and within `near` metres of the outlines.
    near : float
        Metres.
    classes : tuple of ClassTable
        Empty where the model's classes cannot be set against the labels.
    sizes, debris : tuple of Group
        Glaciers by size (all of them first) and by debris-covered share.
    hidden_glaciers : int
        Images of glaciers that are in no group, since less than half of the glacier is seen.
    glaciers : tuple of Glacier
        Each, the largest first.
    images : tuple of Image
        Each.
    sensors : tuple of SensorRow
        With fewer sensors; empty where it was not asked for.
    fronts : FrontScore or None
        Of calving fronts; None where the model's classes tell of none.
    """

    title: str
    facts: Mapping[str, str]
    overlap: Segmentation
    debris_overlap: Confusion
    area_bias: float
    outlines: Boundary
    calibration: Reliability
    near_calibration: Reliability
    near: float
    classes: tuple[ClassTable, ...]
    sizes: tuple[Group, ...]
    debris: tuple[Group, ...]
    hidden_glaciers: int
    glaciers: tuple[Glacier, ...]
    images: tuple[Image, ...]
    sensors: tuple[SensorRow, ...] = ()
    fronts: FrontScore | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it in what JSON can hold; NaN is None."""
        plain: dict[str, Any] = {"format": FORMAT} | jsonable(self)
        return plain


def evaluate_cases(
    cases: Iterable[Case],
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    margin: float = MARGIN,
    sensors: Sequence[SensorRow] = (),
    fronts: FrontScore | None = None,
) -> Report:
    """Score images.

    Parameters
    ----------
    cases : iterable of Case
        Images, from `glaciercube.evaluation.predict.cases_of` or `glaciercube.evaluation.stores.store_cases`.
    title : str
        What is evaluated.
    facts : mapping of str to str or None
        What with, on what and how.
    threshold : float
        Probability above which a pixel is said to be ice.
    margin : float
        Metres around a glacier that count as its own.
    sensors : sequence of SensorRow
        To be reported with it.
    fronts : FrontScore or None
        To be reported with it.

    Raises
    ------
    ModelError
        If there is no pixel to compare.
    """
    cases = list(cases)
    overlap = segmentation(cases, threshold)
    table = glacier_table(cases, threshold=threshold, margin=margin)
    everywhere = reliability(*pixels_of(cases))
    return Report(
        title=title,
        facts=dict(facts or {}),
        overlap=overlap,
        debris_overlap=debris_confusion(cases, threshold),
        area_bias=everywhere.said / everywhere.true - 1.0 if everywhere.true else math.nan,
        outlines=boundary(cases, threshold),
        calibration=everywhere,
        near_calibration=reliability(*pixels_of(cases, near=NEAR)),
        near=NEAR,
        classes=class_tables(cases),
        sizes=by_size(table),
        debris=by_debris(table),
        hidden_glaciers=hidden_glaciers(table),
        glaciers=each_glacier(table),
        images=tuple(
            Image(case.name, str(case.time.astype("datetime64[s]")), found)
            for case, found in zip(cases, overlap.images, strict=True)
        ),
        sensors=tuple(sensors),
        fronts=fronts,
    )


def write_report(report: Report, folder: str | Path) -> dict[str, Path]:
    """Write ``report.md``, ``report.json`` and ``reliability.png`` into a folder, which is made.

    Returns
    -------
    dict of str to Path
        What was written, by its kind: ``markdown``, ``json``, ``picture``.

    Raises
    ------
    ModelError
        If matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    curves = {"all pixels": report.calibration, f"within {report.near:g} m": report.near_calibration}
    picture = save_reliability(curves, folder / "reliability.png", report.title)
    content = report.as_dict()
    (folder / "report.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(content), encoding="utf-8")
    return {"markdown": folder / "report.md", "json": folder / "report.json", "picture": picture}
