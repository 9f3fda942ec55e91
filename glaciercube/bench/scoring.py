"""Scores of a model on one fold of a set, by the package's own metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from glaciercube.bench.sets import BenchSet
from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.jsonable import jsonable
from glaciercube.evaluation.predict import predict_classes
from glaciercube.evaluation.reliability import NEAR, pixels_of, reliability
from glaciercube.evaluation.segmentation import segmentation
from glaciercube.models.base import Model
from glaciercube.models.chips import UNKNOWN, Chip

__all__ = ["FoldScores", "cases_for", "members_of", "score_cases", "seconds_per_megapixel"]


@dataclass(frozen=True)
class FoldScores:
    """What one model reaches on one fold; NaN where there is nothing to score.

    Attributes
    ----------
    iou, tolerant_iou, f1, precision, recall : float
        Of probability > 0.5 over all pixels; `tolerant_iou` without the pixels that touch one of the other label.
    best_threshold, best_iou : float
        Chosen in sight of the labels: no score of the model.
    ece, ece_near : float
        Expected calibration error over all pixels, and within 50 m of the label's outlines.
    bias : float
        Summed probability over true area, less one.
    pixels, unseen : int
        Scored, and labelled but without a probability.
    """

    iou: float
    tolerant_iou: float
    f1: float
    precision: float
    recall: float
    best_threshold: float
    best_iou: float
    ece: float
    ece_near: float
    bias: float
    pixels: int
    unseen: int

    def values(self) -> dict[str, float | None]:
        """All of them, None in place of NaN, as JSON wants it."""
        found: dict[str, float | None] = jsonable(self)
        return found


def members_of(model: Model, bench: BenchSet) -> list[int]:
    """Which of a model's classes are summed: those that the label names, or, where it lacks one, its first output's."""
    classes = model.contract.classes
    wanted = bench.positive_classes
    if not set(wanted) <= set(classes):
        wanted = model.contract.outputs[0].classes
    return [classes.index(name) for name in wanted]


def cases_for(model: Model, bench: BenchSet, chips: Sequence[Chip], *, without: Sequence[str] = ()) -> list[Case]:
    """A model's probability beside the truth, one per chip and date."""
    members = members_of(model, bench)
    wanted = [i for i, name in enumerate(bench.chips[0].labels) if name in bench.positive]
    found: list[Case] = []
    for chip in _stacked(chips):
        probability = predict_classes(model, chip, without=without)[:, members].sum(axis=1).clip(max=1.0)
        for number, time in enumerate(chip.time):
            known = chip.label[number] != UNKNOWN
            counted = known & chip.clear[number]
            if chip.attributes.get("middle"):
                counted &= _middle(counted.shape)
            found.append(
                Case(
                    name=chip.name,
                    time=time,
                    probability=probability[number].astype(np.float32),
                    truth=np.isin(chip.label[number], wanted),
                    known=known,
                    counted=counted,
                    resolution=chip.resolution,
                    place=chip.place or chip.name,
                    glaciers=chip.glaciers,
                )
            )
    return found


def score_cases(cases: Sequence[Case]) -> FoldScores:
    """Scores of the pooled pixels of some cases."""
    overlap = segmentation(cases)
    everywhere, near = (reliability(*pixels_of(cases, near=distance)) for distance in (None, NEAR))
    pooled = overlap.pooled
    return FoldScores(
        iou=pooled.iou,
        tolerant_iou=overlap.tolerant.iou,
        f1=pooled.f1,
        precision=pooled.precision,
        recall=pooled.recall,
        best_threshold=overlap.best_threshold,
        best_iou=overlap.best_iou,
        ece=everywhere.ece,
        ece_near=near.ece,
        bias=everywhere.said / everywhere.true - 1.0 if everywhere.true else math.nan,
        pixels=pooled.pixels,
        unseen=overlap.unseen,
    )


def seconds_per_megapixel(model: Model, side: int = 256, repeats: int = 3) -> float:
    """Processor seconds that one date of a million pixels takes, in one thread: the median of some runs.

    All that the contract takes is given, as random numbers; static layers are read anew each time.
    """
    import time

    rng = np.random.default_rng(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    inputs = {
        m.name: torch.from_numpy(rng.random((len(m.variables), side, side), np.float32))
        for m in model.contract.modalities
    }
    static = {m.name: inputs[m.name] for m in model.contract.modalities if m.static}
    dynamic = {name: values[None] for name, values in inputs.items() if name not in static}
    spent = []
    try:
        for _ in range(repeats):
            begun = time.process_time()
            model.predict(dynamic, static, days=[0.0])
            spent.append(time.process_time() - begun)
    finally:
        torch.set_num_threads(threads)
    return float(np.median(spent)) / (side * side / 1e6)


def _middle(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The one pixel of a patch that is scored."""
    middle = np.zeros(shape, bool)
    middle[shape[0] // 2, shape[1] // 2] = True
    return middle


def _stacked(chips: Sequence[Chip]) -> list[Chip]:
    """Patches of single pixels as the dates of one chip, too far apart to be each other's neighbours in time."""
    patches = [chip for chip in chips if chip.attributes.get("middle")]
    if len(patches) < 2:
        return list(chips)
    first = patches[0]
    apart = np.datetime64("2000-01-01", "s") + np.arange(len(patches)) * np.timedelta64(2000 * 86400, "s")
    one = replace(
        first,
        variables={name: np.concatenate([p.variables[name] for p in patches]) for name in first.variables},
        label=np.concatenate([p.label for p in patches]),
        weight=np.concatenate([p.weight for p in patches]),
        time=apart,
    )
    return [one, *(chip for chip in chips if not chip.attributes.get("middle"))]
