"""What dates and sensors add to the shipped models, on simulated glaciers of the family they were not trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from glaciercube.bench.report import Section
from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.predict import PredictOptions, cases_of
from glaciercube.evaluation.reliability import NEAR, pixels_of, reliability
from glaciercube.evaluation.segmentation import confusion
from glaciercube.models.base import Model
from glaciercube.models.builtin import builtin_names
from glaciercube.models.chips import Chip
from glaciercube.models.registry import load_model
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["QUESTIONS", "Question", "Shown", "section"]

#: First seed of the scenes.
SEED = 8_000_000
_ALL = ("optical", "illumination", "radar", "coherence", "terrain", "relief", "elevation_change", "velocity")
_DRAWS = 2000
_FORMAT = 1


@dataclass(frozen=True)
class Shown:
    """What a model is shown.

    Attributes
    ----------
    name : str
        In the table.
    modalities : tuple of str
        Of its contract.
    alone : bool
        Each date by itself.
    """

    name: str
    modalities: tuple[str, ...] = _ALL
    alone: bool = False


@dataclass(frozen=True)
class Question:
    """Some ways to show the same scenes to one model; all are compared with the first.

    Attributes
    ----------
    title : str
        What is asked.
    model : str
        A shipped one.
    options : SequenceOptions
        Of the scenes.
    shown : tuple of Shown
        The first is what the others are compared with.
    positive : tuple of str
        Labels that are to be found.
    where : {"clear", "hidden", "all"}
        Pixels that are scored: without cloud, under it, or all.
    """

    title: str
    model: str
    options: SequenceOptions
    shown: tuple[Shown, ...]
    positive: tuple[str, ...] = ("clean_ice", "debris_covered_ice")
    where: Literal["clear", "hidden", "all"] = "clear"


def _scenes(dates: int, cloud: float | None = None) -> SequenceOptions:
    return SequenceOptions(
        dates=dates, years=(2021, 2021), cloud_cover=cloud, layers_missing=0.0, gaps=False, family="b"
    )


_TERRAIN = ("terrain", "relief")
_OPTICAL = ("optical", "illumination", *_TERRAIN)

QUESTIONS: tuple[Question, ...] = (
    Question(
        "dates, clear pixels",
        "fusion-unet-time",
        _scenes(4),
        (Shown("one date", alone=True), Shown("all four dates")),
    ),
    Question(
        "dates, under cloud, Sentinel-2 and terrain",
        "fusion-unet-time",
        _scenes(4, 0.4),
        (Shown("one date", _OPTICAL, alone=True), Shown("all four dates", _OPTICAL)),
        where="hidden",
    ),
    *(
        Question(
            f"Sentinel-1, {'under cloud' if where == 'hidden' else 'clear pixels'}",
            "fusion-unet",
            _scenes(1, 0.4),
            (Shown("Sentinel-2 + terrain", _OPTICAL), Shown("and Sentinel-1", (*_OPTICAL, "radar"))),
            where=where,
        )
        for where in ("hidden", "clear")
    ),
    Question(
        "debris alone, clear pixels",
        "fusion-unet",
        _scenes(1, 0.0),
        (
            Shown("Sentinel-2 + terrain", _OPTICAL),
            Shown("and Sentinel-1", (*_OPTICAL, "radar")),
            Shown("and coherence", (*_OPTICAL, "coherence")),
            Shown("and Sentinel-1 and coherence", (*_OPTICAL, "radar", "coherence")),
            Shown("and elevation change and velocity", (*_OPTICAL, "elevation_change", "velocity")),
        ),
        positive=("debris_covered_ice",),
    ),
    Question(
        "a sensor less, clear pixels",
        "fusion-unet",
        _scenes(1, 0.0),
        (
            Shown("everything"),
            Shown("without Sentinel-2", tuple(m for m in _ALL if m not in ("optical", "illumination"))),
            Shown("without Sentinel-1", tuple(m for m in _ALL if m != "radar")),
            Shown("without coherence", tuple(m for m in _ALL if m != "coherence")),
            Shown("without terrain", tuple(m for m in _ALL if m not in ("illumination", *_TERRAIN))),
            Shown("without elevation change and velocity", tuple(m for m in _ALL[:6])),
            Shown("Sentinel-2 alone", ("optical",)),
            Shown("Sentinel-1 and terrain", ("radar", *_TERRAIN)),
        ),
    ),
)


def section(out: Path, *, scenes: int = 60, quick: bool = False, kept: bool = False) -> Section:
    """Answer all questions whose model is shipped, or read the answers found before.

    Parameters
    ----------
    out : Path
        Where answers and scenes are kept.
    scenes : int
        Of each question.
    quick : bool
        One question, two small scenes.
    kept : bool
        Only what was found before.
    """
    asked = [q for q in QUESTIONS if q.model in builtin_names()]
    record: list[dict[str, Any]] = []
    for question in asked[:1] if quick else asked:
        answer = _answered(question, out, 2 if quick else scenes, kept=kept)
        if answer is not None:
            record.append(answer)
    rows = tuple(tuple(map(str, row)) for answer in record for row in _rows(answer))
    return Section(
        "What dates and sensors add (simulated, shipped models)",
        ("question", "model", "shown", "IoU", "difference of IoU (90 %)", "recall", "ECE", "ECE in 50 m"),
        rows,
        (
            (
                f"{2 if quick else scenes} scenes of family b for each question, seeds from {SEED}; intervals by "
                f"drawing whole scenes anew {_DRAWS} times, differences on the same scenes"
            ),
            "no sensor's contrast is larger than on real scenes: VV hardly differs between debris on ice and beside it",
        ),
        {"answers": record},
    )


def _answered(question: Question, out: Path, scenes: int, *, kept: bool) -> dict[str, Any] | None:
    model = load_model(question.model)
    text = repr((_FORMAT, question, model.hash, scenes))
    path = out / "cells" / f"ablation-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    if kept:
        return None
    chips = simulated_chips(range(SEED, SEED + scenes), question.options, folder=out / "scenes")
    found = {"question": question.title, "model": question.model, "shown": _compared(model, question, chips)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def _compared(model: Model, question: Question, chips: Sequence[Chip]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(SEED)
    draws = rng.integers(0, len(chips), (_DRAWS, len(chips)))
    found: list[dict[str, Any]] = []
    first: npt.NDArray[np.float64] | None = None
    for shown in question.shown:
        without = tuple(m.name for m in model.contract.modalities if m.name not in shown.modalities)
        options = PredictOptions(question.positive, without, alone=shown.alone, where=question.where)
        cases = list(cases_of(model, chips, options))
        counts = _counts(cases, [chip.name for chip in chips])
        ious = _iou(counts[draws].sum(axis=1))
        first = ious if first is None else first
        low, high = np.nanquantile(ious - first, [0.05, 0.95])
        total = counts.sum(axis=0)
        near, everywhere = (reliability(*pixels_of(cases, near=n)).ece for n in (NEAR, None))
        found.append(
            {
                "name": shown.name,
                "iou": float(_iou(total)),
                "recall": float(total[0] / max(total[0] + total[2], 1)),
                "difference": None if shown is question.shown[0] else [float(low), float(high)],
                "ece": float(everywhere),
                "ece_near": float(near),
            }
        )
    return found


def _counts(cases: Sequence[Case], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Hits, false alarms and misses of each chip, (chip, 3)."""
    counts = np.zeros((len(names), 3))
    for case in cases:
        found = confusion(case.probability > 0.5, case.truth, case.seen)
        # What has a label and no probability was not found: all ways of showing are scored on the same pixels.
        lost = int((case.counted & ~case.seen & case.truth).sum())
        counts[names.index(case.name)] += (found.hits, found.false_alarms, found.misses + lost)
    return counts


def _iou(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = counts[..., 0] / np.maximum(counts.sum(axis=-1), 1.0)
    return result


def _rows(answer: dict[str, Any]) -> list[tuple[str, ...]]:
    first = answer["shown"][0]["iou"]
    rows = []
    for number, shown in enumerate(answer["shown"]):
        difference = ""
        if shown["difference"] is not None:
            low, high = shown["difference"]
            difference = f"{shown['iou'] - first:+.3f} ({low:+.3f} to {high:+.3f})"
        head = (answer["question"], answer["model"]) if number == 0 else ("", "")
        rows.append(
            (
                *head,
                shown["name"],
                f"{shown['iou']:.3f}",
                difference,
                f"{shown['recall']:.2f}",
                f"{shown['ece']:.3f}",
                f"{shown['ece_near']:.3f}",
            )
        )
    return rows
