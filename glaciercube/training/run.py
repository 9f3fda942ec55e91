"""Train a model from what a job says, and write its folder."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glaciercube.errors import ConfigError, require
from glaciercube.evaluation.predict import PredictOptions
from glaciercube.evaluation.report import Report, write_report
from glaciercube.evaluation.run import EvaluateOptions, evaluate_model
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.models.registry import save_model
from glaciercube.training.calibrate import Calibrated, calibrate
from glaciercube.training.card import model_card, slug
from glaciercube.training.checks import check_calibration, check_contract, check_folder, check_test, check_validation
from glaciercube.training.fit import fit
from glaciercube.training.folds import Split, make_folds
from glaciercube.training.job import TrainJob
from glaciercube.training.kept import KeptChips
from glaciercube.training.network import begin
from glaciercube.training.parallel import this_crew

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Parts", "Trained", "train"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The chips of one training.

    Attributes
    ----------
    train, validation, calibration : sequence of Chip
        What weights are fitted on, what stops that, and what temperature and shift are fitted on.
    test : dict of str to sequence of Chip
        What the model is scored on, by name.
    split : Split or None
        How the samples were parted.
    """

    train: Sequence[Chip]
    validation: Sequence[Chip]
    calibration: Sequence[Chip]
    test: dict[str, Sequence[Chip]]
    split: Split | None = None


@dataclass(frozen=True)
class Trained:
    """What a training gave.

    Attributes
    ----------
    model : Model
        Calibrated.
    folder : Path
        Where it was written.
    reports : dict of str to Report
        Scores by the name of the test.
    calibrated : Calibrated or None
        What calibration did.
    """

    model: Model
    folder: Path
    reports: dict[str, Report]
    calibrated: Calibrated | None


def train(job: TrainJob, cube: Callable[[], xr.Dataset], *, progress: bool = True) -> list[Trained]:
    """Train a model, or one for each fold, and write model folders.

    A training that was stopped goes on from its last checkpoint when it is called again.

    Parameters
    ----------
    job : TrainJob
        What to do.
    cube : callable
        Makes the cube, where samples are of one; see `glaciercube.config.CubeConfig.cube`.
    progress : bool
        Show progress bars.

    Returns
    -------
    list of Trained
        One, or one per fold; empty in all processes but the first.

    Raises
    ------
    ConfigError
        If something in the job cannot be used: told before the first step, of tests and calibration, too.
    ModelError
        If the model cannot be trained on the chips, or calibrated or scored on theirs.
    """
    require(bool(job.out), "the training has no folder to write to", "give out")
    out, crew = Path(job.out), this_crew()
    cache = Path(job.cache) if job.cache else _beside(out) / "chips"
    for folder, key in ((out, "out"), (_beside(out), "the folder beside out"), (cache, "cache")):
        check_folder(folder, key)
    shown = progress and crew.rank == 0
    # One process draws what the others then read.
    if crew.rank:
        crew.wait()
    samples = job.samples.gather(cube, cache, progress=shown)
    others = {name: source.gather(cube, cache, progress=shown) for name, source in job.test.items()}
    stop = job.validation.gather(cube, cache, progress=shown) if job.validation is not None else ()
    aside = job.calibrate is not None and job.calibrate.given
    held = job.calibrate.gather(cube, cache, progress=shown) if job.calibrate is not None and aside else ()
    if not crew.rank:
        crew.wait()
    splits = _splits(job, samples)
    for split in splits:
        _check_parts(job, _parts(split, samples, stop, held, others))
    found: list[Trained] = []
    for split in splits:
        parts = _parts(split, samples, stop, held, others)
        folder = out / f"fold-{split.name}" if split is not None and job.fold == "all" else out
        done = _train_one(job, parts, folder, progress=shown)
        found += [done] if done is not None else []
    if job.fold == "all" and not crew.rank:
        _write_cross_validation(found, out)
    return found


def _splits(job: TrainJob, samples: Sequence[Chip]) -> list[Split | None]:
    if job.folds is None:
        own = getattr(samples, "splits", {})
        if "train" not in own:
            return [None]
        # As the exported set was parted.
        return [Split("set", own["train"], own.get("validation", ()), own.get("test", ()))]
    splits = make_folds(samples, job.folds)
    if job.fold == "all":
        return list(splits)
    require(job.fold <= len(splits), f"there is no fold {job.fold}", f"there are {len(splits)}")
    return [splits[job.fold - 1]]


def _parts(
    split: Split | None,
    samples: Sequence[Chip],
    stop: Sequence[Chip],
    held: Sequence[Chip],
    others: dict[str, Sequence[Chip]],
) -> Parts:
    if split is None:
        train, validation, test = samples, stop, dict(others)
    else:
        train, within = _take(samples, split.train), _take(samples, split.validation)
        validation = stop or within
        name = split.name if split.name == "set" else f"fold {split.name}"
        test = {name: _take(samples, split.test)} if split.test else {}
        test |= others
    return Parts(_kept(train), _kept(validation), _kept(held or validation), test, split)


def _take(chips: Sequence[Chip], indices: Sequence[int]) -> Sequence[Chip]:
    taken = getattr(chips, "take", None)
    return taken(indices) if taken is not None else [chips[index] for index in indices]


def _kept(chips: Sequence[Chip]) -> Sequence[Chip]:
    return chips if isinstance(chips, list | tuple) else KeptChips(chips)


def _check_parts(job: TrainJob, parts: Parts) -> None:
    """Refuse chips that the training could not be ended with, before it begins."""
    for name, chips in parts.test.items():
        check_test(chips, name, job.find)
    check_validation(parts.validation)
    if job.calibrate is not None and len(parts.calibration):
        check_calibration(parts.calibration, job.find)


def _train_one(job: TrainJob, parts: Parts, folder: Path, *, progress: bool) -> Trained | None:
    """Fit, calibrate, score and write; None in all processes but the first."""
    work = _beside(folder)
    contract, module = begin(job.network, parts.train, job.fit.seed)
    for chips in parts.test.values():
        check_contract(contract, chips, job.find)
    if job.calibrate is not None and len(parts.calibration):
        check_contract(contract, parts.calibration, job.find, job.calibrate.without)
    _log.info(
        "training %s, %s weights, on %d chips; %d stop it",
        contract.name,
        f"{module.parameter_count:,}",
        len(parts.train),
        len(parts.validation),
    )
    module = fit(
        module,
        contract,
        parts.train,
        job.fit,
        validation=parts.validation or None,
        checkpoint=work / "fit.safetensors",
        log=work,
        progress=progress,
    )
    if this_crew().rank:
        return None
    model = Model.from_module(contract, module)
    said: Calibrated | None = None
    if job.calibrate is not None and len(parts.calibration):
        options = job.calibrate
        model, said = calibrate(
            model,
            parts.calibration,
            positive=job.find,
            without=options.without,
            near_share=options.near_share,
            pixels=options.pixels,
        )
        _log.info("calibrated: %s", said)
    reports = {name: _scored(model, chips, name, job.find) for name, chips in parts.test.items()}
    for name, report in reports.items():
        write_report(report, folder / "scores" / slug(name))
    save_model(model, folder, card=model_card(job, parts, model, said, reports))
    _write_metrics(folder, job, parts, said, reports)
    return Trained(model, folder, reports, said)


def _scored(model: Model, chips: Sequence[Chip], name: str, find: tuple[str, ...]) -> Report:
    options = EvaluateOptions(shown=PredictOptions(find), sensors=len(model.contract.modalities) > 1)
    return evaluate_model(model, chips, options, source=name)


def _beside(folder: Path) -> Path:
    """Where the checkpoint, the log and drawn chips go: a model folder holds what its user needs."""
    return folder.with_name(f"{folder.name}.training")


def _write_metrics(
    folder: Path, job: TrainJob, parts: Parts, said: Calibrated | None, reports: dict[str, Report]
) -> None:
    content: dict[str, Any] = {
        "chips": {"train": len(parts.train), "validation": len(parts.validation)},
        "fit": dataclasses.asdict(job.fit),
        "calibration": None if said is None else dataclasses.asdict(said),
        "tests": {name: _summary(report.as_dict()) for name, report in reports.items()},
    }
    (folder / "metrics.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _summary(content: dict[str, Any]) -> dict[str, Any]:
    """A report but for its rows per glacier and per image, which stand in the report itself."""
    found = {name: part for name, part in content.items() if name not in ("glaciers", "images")}
    return found | {"overlap": {name: part for name, part in content["overlap"].items() if name != "images"}}


def _write_cross_validation(found: Sequence[Trained], out: Path) -> None:
    """A table of all folds: each is scored on chips that none of its own was near."""
    rows = ["| fold | IoU | IoU, tolerant | F1 | ECE | ECE near outlines |", "| --- | --- | --- | --- | --- | --- |"]
    scores: list[dict[str, Any]] = []
    for done in found:
        name, report = next(iter(done.reports.items()))
        pooled, tolerant = report.overlap.pooled, report.overlap.tolerant
        ece, near = report.calibration.ece, report.near_calibration.ece
        numbers = {"iou": pooled.iou, "tolerant_iou": tolerant.iou, "f1": pooled.f1, "ece": ece, "near_ece": near}
        scores.append({"fold": name, "folder": done.folder.name, **numbers})
        rows.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in numbers.values())} |")
    if not scores:
        raise ConfigError("cross-validation has no fold", "give folds")
    mean = {key: sum(row[key] for row in scores) / len(scores) for key in scores[0] if key not in ("fold", "folder")}
    rows.append(f"| mean | {' | '.join(f'{value:.3f}' for value in mean.values())} |")
    (out / "cross-validation.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    text = json.dumps({"folds": scores, "mean": mean}, indent=1)
    (out / "cross-validation.json").write_text(text + "\n", encoding="utf-8")
