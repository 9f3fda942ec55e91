"""The model card: what a model is, what it was trained on, how it scores, and what its probabilities mean."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from glaciercube.evaluation.report import Report
from glaciercube.models.base import Model
from glaciercube.models.contract import Contract
from glaciercube.training.calibrate import Calibrated
from glaciercube.training.job import TrainJob

if TYPE_CHECKING:
    from glaciercube.training.run import Parts

__all__ = ["model_card", "slug"]


def model_card(
    job: TrainJob, parts: Parts, model: Model, calibrated: Calibrated | None, reports: Mapping[str, Report]
) -> str:
    """Write the card.

    Parameters
    ----------
    job : TrainJob
        What was asked for.
    parts : Parts
        What it was trained on.
    model : Model
        What came out.
    calibrated : Calibrated or None
        What calibration did.
    reports : mapping of str to Report
        Scores by the name of the test.

    Returns
    -------
    str
        Markdown. Its pictures are those of ``scores/`` beside it.
    """
    lines = [f"# {model.contract.name} {model.contract.version}", "", model.contract.description, ""]
    lines += _identity(model)
    lines += ["", "## Trained on", "", *_trained(job, parts, model.contract)]
    lines += ["", "## Calibration", "", _calibration(job, calibrated)]
    for name, report in reports.items():
        lines += ["", f"## Scores on {name}", "", *_scores(name, report)]
    if not reports:
        lines += ["", "## Scores", "", "It was not scored on chips that it never saw: how good it is is not known."]
    if job.note:
        lines += ["", "## Known limits", "", job.note.strip()]
    return "\n".join(lines) + "\n"


def slug(name: str) -> str:
    """A test's name as that of a folder: whatever else than letters, digits, ``-``, ``_`` and ``.`` becomes ``-``."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def _identity(model: Model) -> Iterator[str]:
    contract = model.contract
    reach = f"receptive field {contract.receptive_field} pixels on each side"
    if contract.windows is not None:
        reach = f"windows of {contract.windows.size} pixels"
    yield f"- `{contract.architecture}`, {model.module.parameter_count:,} weights; {reach};"
    yield f"  pixels of {contract.resolution[0]:g} to {contract.resolution[1]:g} m."
    if contract.time_context is not None:
        context = contract.time_context
        yield f"- Looks at up to {context.most} dates on each side, {context.before:g} days before and"
        yield f"  {context.after:g} after."
    for modality in contract.modalities:
        yield f"- Input `{modality.name}`: {', '.join(modality.variables)}{_how(modality.required)}."
    yield f"- Tells apart {', '.join(contract.classes)}."
    for output in contract.outputs:
        yield f"- Gives `{output.name}`, the probability of {' or '.join(output.classes)}."
    yield f"- Content hash `{model.hash}`; glaciercube {importlib.metadata.version('glaciercube')},"
    yield f"  torch {torch.__version__}."


def _how(required: bool) -> str:
    return ", required" if required else ""


def _trained(job: TrainJob, parts: Parts, contract: Contract) -> Iterator[str]:
    fit, split = job.fit, parts.split
    yield f"{len(parts.train)} chips: {job.samples.said()}."
    if split is not None:
        yield f"Parted by geography (fold {split.name}): {len(split.validation)} chips stop the training,"
        yield f"{len(split.test)} test, {len(split.dropped)} are left out since they lie within {split.buffer:g} m."
    elif parts.validation:
        said = "" if job.validation is None else f": {job.validation.said()}"
        yield f"{len(parts.validation)} other chips stop the training{said}."
    if job.network.weights is not None:
        yield f"It began with the weights of {job.network.weights.rstrip('/').rpartition('/')[2]}."
    size = contract.windows.size if contract.windows is not None else fit.size
    budget = f"{fit.steps} steps" if fit.seconds is None else f"{fit.seconds:g} s of processor time"
    yield ""
    yield f"{budget} of {fit.batch} crops of {size} pixels; focal (gamma {fit.gamma:g}) and Dice loss (share"
    yield f"{fit.dice:g}) on the probabilities of labels, each the sum of those of its classes; AdamW at {fit.rate:g};"
    yield f"averaged weights; turns, light, missing sensors ({1 - fit.sensors.whole:.0%} of the samples lack some)."


def _calibration(job: TrainJob, calibrated: Calibrated | None) -> str:
    if calibrated is None:
        return "None: probabilities are what the training left, and need not mean what they say."
    other = job.calibrate is not None and job.calibrate.given
    source = job.calibrate.said() if other and job.calibrate is not None else "the chips that stopped the training"
    return f"On {source}: {calibrated}. Scores after it are of places that it was not fitted on."


def _scores(name: str, report: Report) -> Iterator[str]:
    chips = report.facts.get("chips", "")
    yield f"{chips}, {report.overlap.pooled.pixels:,} pixels; tolerant: within one pixel of an outline either is right;"
    yield f"ECE: expected calibration error, also within {report.near:g} m of outlines. Expected over true area, less"
    yield f"one: {_number(report.area_bias, signed=True)}. Median distance between outlines, size classes and classes"
    yield f"stand in `scores/{slug(name)}/report.md`."
    yield ""
    yield "| shown | IoU | IoU, tolerant | F1 | ECE | ECE near outlines |"
    yield "| --- | --- | --- | --- | --- | --- |"
    rows = [(row.name, row.iou, row.tolerant_iou, row.f1, row.ece, row.near_ece) for row in report.sensors]
    if not rows:
        overlap = report.overlap
        eces = (report.calibration.ece, report.near_calibration.ece)
        rows = [("all", overlap.pooled.iou, overlap.tolerant.iou, overlap.pooled.f1, *eces)]
    for shown, *numbers in rows:
        yield f"| {shown} | {' | '.join(map(_number, numbers))} |"
    yield ""
    yield f"![Reliability on {name}](scores/{slug(name)}/reliability.png)"


def _number(value: float, *, signed: bool = False) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"
