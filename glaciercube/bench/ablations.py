"""What dates and sensors add to the shipped models, on simulated glaciers of the family they were not trained on.

``python -m glaciercube.bench.ablations --model FOLDER`` asks the same of a model of your own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click
import numpy as np
import numpy.typing as npt

from glaciercube.bench.keeping import answer_file, keep
from glaciercube.bench.report import Section, markdown
from glaciercube.errors import require
from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.predict import PredictOptions, cases_of
from glaciercube.evaluation.reliability import NEAR, pixels_of, reliability
from glaciercube.models.base import Model
from glaciercube.models.builtin import builtin_names
from glaciercube.models.chips import Chip
from glaciercube.models.registry import load_model
from glaciercube.sentences import told
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["QUESTIONS", "Question", "Shown", "section"]

#: First seed of the scenes.
SEED = 8_000_000
_ALL = ("optical", "illumination", "radar", "coherence", "terrain", "relief", "elevation_change", "velocity")
_DRAWS = 2000
_FORMAT = 2
_HALF = 181  # the first bin of probabilities above 0.5
_BINS = 256  # of the root of the probability, so that what is rarely believed is told apart, too

_SCALE = _HALF * math.sqrt(2.0)
_LAST = (("recall", 2), ("ece", 3), ("ece_near", 3))

FloatArray: TypeAlias = npt.NDArray[np.float64]


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
    least : float
        Share of the scene, 0 to 1, that must be what is to be found; of twelve times as many scenes those that have it.
    """

    title: str
    model: str
    options: SequenceOptions
    shown: tuple[Shown, ...]
    positive: tuple[str, ...] = ("clean_ice", "debris_covered_ice")
    where: Literal["clear", "hidden", "all"] = "clear"
    least: float = 0.0

    def scenes(self, count: int, folder: Path) -> list[Chip]:
        """So many scenes that are asked about, drawn or read from a folder; of rare things those that have them."""
        seeds = range(SEED, SEED + count * (12 if self.least else 1))
        chips = simulated_chips(seeds, self.options, folder=folder)
        numbers = [number for number, label in enumerate(chips[0].labels) if label in self.positive]
        return [chip for chip in chips if float(np.isin(chip.label, numbers).mean()) >= self.least]


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
    *(
        Question(
            f"debris alone, scenes that are 2 % debris or more, {dates}",
            model,
            _scenes(count, 0.0),
            (
                Shown("Sentinel-2 + terrain", _OPTICAL),
                Shown("and Sentinel-1", (*_OPTICAL, "radar")),
                Shown("and coherence", (*_OPTICAL, "coherence")),
                Shown("and Sentinel-1 and coherence", (*_OPTICAL, "radar", "coherence")),
                Shown("and elevation change and velocity", (*_OPTICAL, "elevation_change", "velocity")),
                Shown("everything"),
            ),
            positive=("debris_covered_ice",),
            least=0.02,
        )
        for dates, model, count in (("one date", "fusion-unet", 1), ("four dates", "fusion-unet-time", 4))
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


def section(
    out: Path, questions: Sequence[Question] = QUESTIONS, *, scenes: int = 60, quick: bool = False, kept: bool = False
) -> Section:
    """Answer questions, or read the answers found before; those whose model is not there are left out.

    Parameters
    ----------
    out : Path
        Where answers and scenes are kept.
    questions : sequence of Question
        What is asked, of which model.
    scenes : int
        Of each question.
    quick : bool
        One question, two small scenes.
    kept : bool
        Only what was found before.
    """
    asked = [q for q in questions if q.model in builtin_names() or Path(q.model).is_dir()]
    record: list[dict[str, Any]] = []
    for question in asked[:1] if quick else asked:
        answer = _answered(question, out, 2 if quick else scenes, kept=kept)
        if answer is not None:
            record.append(answer)
    rows = tuple(tuple(map(str, row)) for answer in record for row in _rows(answer))
    return Section(
        "What dates and sensors add (simulated, shipped models)",
        (
            "question (scenes)",
            "model",
            "shown",
            "IoU",
            "difference (90 %)",
            "average precision",
            "difference (90 %)",
            "recall",
            "ECE",
            "ECE in 50 m",
        ),
        rows,
        (
            (
                f"{2 if quick else scenes} scenes of family b for each question, of debris those that have it among "
                f"twelve times as many, their number in brackets, seeds from {SEED}; intervals by drawing whole scenes "
                f"anew {_DRAWS} times, differences on the same scenes"
            ),
            (
                "average precision is over all thresholds, and says of what is rare what IoU at 0.5 cannot: how far up "
                "a model puts the pixels that it is asked for"
            ),
            (
                "no sensor's contrast is larger than real scenes show: VV hardly differs between debris on ice and "
                "beside it, and coherence shows ice in seven of ten pairs, from hardly to nearly all of it"
            ),
        ),
        {"answers": record},
    )


def _answered(question: Question, out: Path, scenes: int, *, kept: bool) -> dict[str, Any] | None:
    model = load_model(question.model)

    def measure() -> dict[str, Any]:
        chips = question.scenes(scenes, out / "scenes")
        return {
            "question": question.title,
            "model": question.model,
            "scenes": len(chips),
            "shown": _compared(model, question, chips),
        }

    found: dict[str, Any] | None = keep(
        answer_file(out / "cells", "ablation", _FORMAT, question, model.hash, scenes), measure, kept=kept
    )
    return found


def _compared(model: Model, question: Question, chips: Sequence[Chip]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(SEED)
    draws = rng.integers(0, len(chips), (_DRAWS, len(chips)))
    found: list[dict[str, Any]] = []
    first: dict[str, FloatArray] = {}
    for shown in _showable(model, question):
        without = tuple(m.name for m in model.contract.modalities if m.name not in shown.modalities)
        options = PredictOptions(question.positive, without, alone=shown.alone, where=question.where)
        cases = list(cases_of(model, chips, options))
        counts = _counts(cases, [chip.name for chip in chips])
        drawn = [counts[draw].sum(axis=0) for draw in draws]
        total = counts.sum(axis=0)
        record: dict[str, Any] = {
            "name": shown.name,
            "recall": float(_hits(total) / max(float(total[:, 1].sum()), 1.0)),
        }
        for name, score in (("iou", _iou), ("precision", _average_precision)):
            scores = np.array([score(each) for each in drawn])
            record[name] = float(score(total))
            record[f"{name}_difference"] = None
            if name in first:
                low, high = np.nanquantile(scores - first[name], [0.05, 0.95])
                record[f"{name}_difference"] = [float(low), float(high)]
            first.setdefault(name, scores)
        near, everywhere = (reliability(*pixels_of(cases, near=n)).ece for n in (NEAR, None))
        found.append(record | {"ece": float(everywhere), "ece_near": float(near)})
    return found


def _showable(model: Model, question: Question) -> list[Shown]:
    """What leaves a model something to go by."""
    evidence = {modality.name for modality in model.contract.modalities if modality.evidence}
    return [shown for shown in question.shown if evidence & set(shown.modalities)]


def _counts(cases: Sequence[Case], names: Sequence[str]) -> FloatArray:
    """Pixels of each chip by probability and truth: (chip, bin, 2), of which the second is true."""
    counts = np.zeros((len(names), _BINS, 2))
    for case in cases:
        # What has a label and no probability was not found: all ways of showing are scored on the same pixels.
        probability = np.where(case.seen, case.probability, 0.0)[case.counted]
        place = np.minimum((np.sqrt(np.clip(probability, 0, 1)) * _SCALE).astype(np.int64), _BINS - 1)
        both = np.bincount(2 * place + case.truth[case.counted], minlength=2 * _BINS)
        counts[names.index(case.name)] += both.reshape(_BINS, 2)
    return counts


def _hits(counts: FloatArray) -> float:
    return float(counts[_HALF:, 1].sum())


def _iou(counts: FloatArray) -> float:
    """Of probability above 0.5."""
    return _hits(counts) / max(float(counts[_HALF:].sum() + counts[:_HALF, 1].sum()), 1.0)


def _average_precision(counts: FloatArray) -> float:
    """Precision at each threshold, weighed by what is found between it and the one above."""
    found, said = np.cumsum(counts[::-1, 1]), np.cumsum(counts[::-1].sum(axis=1))
    return float((counts[::-1, 1] * found / np.maximum(said, 1)).sum() / max(float(found[-1]), 1.0))


def _rows(answer: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for number, shown in enumerate(answer["shown"]):
        head = (f"{answer['question']} ({answer['scenes']})", answer["model"]) if number == 0 else ("", "")
        scores: list[str] = []
        for name in ("iou", "precision"):
            scores.append(f"{shown[name]:.3f}")
            difference, first = shown[f"{name}_difference"], answer["shown"][0][name]
            low, high = difference or (0.0, 0.0)
            scores.append(f"{shown[name] - first:+.3f} ({low:+.3f} to {high:+.3f})" if difference else "")
        rows.append((*head, shown["name"], *scores, *(f"{shown[n]:.{d}f}" for n, d in _LAST)))
    return rows


@click.command()
@click.option("--model", default="fusion-unet", show_default=True, help="Model or its folder.")
@click.option("--question", default="", help="Part of the titles of those to be asked; all by default.")
@click.option("--scenes", default=60, show_default=True, help="Of each question.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/benchmark"),
    show_default=True,
    help="Where scenes and answers go.",
)
@told
def main(*, model: str, question: str, scenes: int, out: Path) -> None:
    """Print what dates and sensors add to a model."""
    chosen = [replace(each, model=model) for each in QUESTIONS if question in each.title]
    require(bool(chosen), f"no question has {question!r} in its title", f"ask one of {[q.title for q in QUESTIONS]}")
    load_model(model)
    click.echo(markdown([], [section(out, chosen, scenes=scenes)]))


if __name__ == "__main__":
    main()
