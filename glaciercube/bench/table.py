"""The benchmark: ``python -m glaciercube.bench.table --data FOLDER``.

Every model on every set and fold, trained within one budget, scored, and written as ``benchmark.md`` and
``benchmark.json``. A run that was killed goes on where it stopped: each model and fold is kept. ``--quick`` takes a
minute and says nothing but that all parts work.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from glaciercube.bench import ablations, fronts, physics, variants
from glaciercube.bench.cells import Budget, one_thread, run_cell
from glaciercube.bench.entrants import ENTRANTS, Entrant
from glaciercube.bench.real_sets import REAL_SETS, real_folder
from glaciercube.bench.report import Section, markdown, section_of
from glaciercube.bench.sets import BenchSet, Fold
from glaciercube.bench.simulated_set import simulated
from glaciercube.errors import require
from glaciercube.models.builtin import builtin_contract, builtin_names
from glaciercube.sentences import told

__all__ = ["BUDGETS", "Options", "main", "sections", "write"]

#: Of each set: pixels of single spectra need smaller crops and less time than maps.
BUDGETS = {
    "vinciguerra": Budget(seconds=20.0, batch=4, size=64),
    "debris_hma": Budget(seconds=40.0, batch=4, size=128),
    "spectra": Budget(seconds=8.0, batch=16, size=32),
    "simulated": Budget(seconds=40.0, batch=4, size=128),
}

# Sets that need no folder of real ones.
_MADE = frozenset({"simulated", "ablations", "physics"})
#: Of a front model: trained once, where the others are for every fold; see `glaciercube.bench.fronts`.
FRONT_SECONDS = 40.0


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes
    ----------
    data : Path or None
        Folder of the real sets; None leaves them out.
    out : Path
        Where cells are kept and the table is written.
    sets : tuple of str
        Of those only; all where empty.
    models : tuple of str
        Kinds, titles or names of entrants; all where empty.
    quick : bool
        One fold of small sets, next to no training.
    kept : bool
        Whether only to write what earlier runs found.
    """

    data: Path | None
    out: Path
    sets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    quick: bool = False
    kept: bool = False


def sections(options: Options) -> list[Section]:
    """Run what is not there yet, and give the table, real sets first.

    Returns
    -------
    list of Section
        One per set, in order.
    """
    one_thread()
    found = [_section(bench, options) for bench in _real(options)]
    if options.data is not None and _asked("calving_fronts", options):
        found.append(_fronts(options.data, options))
    place, scenes = options.out / "physics", options.out / "scenes"
    if options.data is not None and _asked("variants", options):
        found.append(variants.variants_section(options.data, place, scenes, quick=options.quick, kept=options.kept))
    if _asked("simulated", options):
        found.append(_section(simulated(options.out / "scenes", small=options.quick), options))
    if _asked("ablations", options):
        found.append(ablations.section(options.out, quick=options.quick, kept=options.kept))
    if _asked("physics", options):
        found.extend(physics.sections(place, quick=options.quick, kept=options.kept))
    return found


def _asked(name: str, options: Options) -> bool:
    return not options.sets or name in options.sets


def _real(options: Options) -> Iterable[BenchSet]:
    """The real sets that are asked for; each is read when its turn comes."""
    if options.data is None:
        return
    for name, read in REAL_SETS.items():
        if _asked(name, options):
            yield read(options.data, small=options.quick)


def _fronts(data: Path, options: Options) -> Section:
    """The part of the calving fronts, which has scores of its own; trained once, on their training folder."""
    out = options.out / "fronts"
    return fronts.section(data, out, seconds=FRONT_SECONDS, quick=options.quick, kept=options.kept)


def _section(bench: BenchSet, options: Options) -> Section:
    folds = list(bench.folds())
    # Of a quick look the last: the first of debris_hma shows next to no debris in its middle.
    chosen = range(len(folds))[-1:] if options.quick else range(len(folds))
    entrants = _chosen(options)
    budget = BUDGETS[bench.name]
    if options.quick:
        budget = replace(budget, seconds=0.3, least_steps=0.0, least_passes=0.0, side=64)
    cells = []
    with tqdm(total=len(chosen) * len(entrants), desc=bench.name, unit="cell") as bar:
        for entrant in entrants:
            own = _as_wanted(entrant, bench)
            parted = list(own.folds())
            for number in chosen:
                bar.set_postfix_str(f"{entrant.title}, {parted[number].name}")
                cells.append(run_cell(entrant, own, parted[number], budget, options.out / "cells", kept=options.kept))
                bar.update()
    return section_of(_title(bench), _notes(bench, [folds[i] for i in chosen], budget), cells)


def _as_wanted(entrant: Entrant, bench: BenchSet) -> BenchSet:
    """The set in the reflectance that a rule wants."""
    return bench.of_reflectance(builtin_contract(entrant.model, {}).reflectance) if entrant.kind == "rule" else bench


def _chosen(options: Options) -> list[Entrant]:
    """Entrants that are asked for; shipped models are there only if their weights are."""
    asked = [e for e in ENTRANTS if not options.models or {e.kind, e.title, e.model} & set(options.models)]
    return [e for e in asked if e.kind not in ("shipped", "tuned") or e.model in builtin_names()]


def _title(bench: BenchSet) -> str:
    return f"{bench.name} ({'real' if bench.real else 'simulated'})"


def _notes(bench: BenchSet, folds: Sequence[Fold], budget: Budget) -> list[str]:
    return [
        (
            f"labels: {bench.mapping}. Scored is the probability of {' + '.join(bench.positive_classes)}; of a model "
            "without these classes, its glacier probability"
        ),
        f"folds: {', '.join(fold.name for fold in folds)}; {bench.split}",
        *bench.notes,
        (
            f"budget: {budget.seconds:g} s of processor time in one thread for each model and fold; batches of "
            f"{budget.batch} crops of {budget.size} pixels, AdamW with a peak rate of {budget.rate:g}, five classes, "
            f"seed {budget.seed}; a model is trained if that gives it {budget.least_steps:g} steps and "
            f"{budget.least_passes:g} passes over the training pixels or more, by its speed over three steps"
        ),
    ]


def write(found: Sequence[Section], options: Options, command: str) -> Path:
    """Write the table as Markdown and JSON; return the Markdown's path."""
    options.out.mkdir(parents=True, exist_ok=True)
    head = ["# Benchmark", "", f"Made by `{command}` on {_machine()}.", "", _HEAD]
    path = options.out / "benchmark.md"
    path.write_text(markdown(head, found), encoding="utf-8")
    record: dict[str, Any] = {"command": command, "machine": _machine()}
    record["sections"] = [{"title": s.title, "notes": s.notes, **s.record} for s in found]
    (options.out / "benchmark.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return path


_HEAD = """\
One command makes the table: `python -m glaciercube.bench.table --data FOLDER --docs docs/benchmark.md`. Each model and
fold is kept in `out/benchmark` by a hash of the chips, the model and the budget (fronts by model, seconds and seed;
what shipped models are asked in simulated places by their weights and the question), so that a run that was stopped
goes on. Whoever changes the code begins with an empty folder. `--quick` tries all parts in a minute, `--kept` writes
what is there.

FOLDER holds `vinciguerra/` (a static STAC catalogue of Sentinel-2 L1C, `reference/vinciguerra_label_YEAR.tif`),
`debris_hma/` (`imageN.tif`, `labelN.tif`; doi:10.3390/rs14061352), `spectra/` (`sentinel2_sr_pixels.csv`,
`sentinel2_toa_pixels.csv`) and `calving_fronts/` (doi:10.3390/rs11010074). None comes with the package. The labels of
the first two carry no licence: nothing that was fitted on them is shipped.

Real sets come first: a simulated score says little of real ice. Every trained model is given the same layers, crops,
learning rate and processor time (but for one front model, see there); none is chosen by its test fold, none is
calibrated for the set. Scores are means over the folds, at a probability of 0.5. The U-Net with ResNet-34 begins like
the others with random weights, and not with those of ImageNet.

- *IoU ± 1 px* leaves out the pixels that touch one of the other label.
- *best threshold*: IoU at the threshold chosen in sight of the labels, which is no score of the model.
- *ECE*: expected calibration error over all pixels, and over those within 50 m of the label's outlines.
- *weights*: trained parameters with the set's layers and five classes; [architectures](architectures.md) has the
  published counts.
- *s/Mpx*: processor seconds of one date of a million pixels in one thread, with the windows that were trained.
- *training*: processor seconds, optimiser steps, and how often each training pixel was drawn on average.

With such budgets the order of the networks is that of what little training gives, not of what they can reach."""


def _machine() -> str:
    import torch

    name = platform.processor() or platform.machine()
    path = Path("/proc/cpuinfo")
    if path.is_file():
        lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"one thread of {name} ({os.cpu_count()} cores), torch {torch.__version__}"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the real sets (or GLACIERCUBE_REAL_DATA).")
@click.option("--no-real", is_flag=True, help="Leave the real sets out.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/benchmark"),
    show_default=True,
    help="Where cells and table go.",
)
@click.option("--sets", default="", help="Only these, with commas between.")
@click.option("--models", default="", help="Only these titles, names or kinds (rule, scratch, shipped, tuned).")
@click.option("--quick", is_flag=True, help="One fold, next to no training: says only that it works.")
@click.option("--kept", is_flag=True, help="Run nothing: write what earlier runs found.")
@click.option("--docs", type=click.Path(path_type=Path), help="Copy the Markdown there.")
@told
def main(
    *,
    data: Path | None,
    no_real: bool,
    out: Path,
    sets: str,
    models: str,
    quick: bool,
    kept: bool,
    docs: Path | None,
) -> None:
    """Train and score every model on every set, and write the table; a run that was killed goes on."""
    warnings.simplefilter("ignore")
    names = tuple(filter(None, sets.split(",")))
    known = [*REAL_SETS, "calving_fronts", "variants", *sorted(_MADE)]
    for name in names:
        require(name in known, f"the benchmark has no set {name!r}", f"choose among {', '.join(known)}")
    made_alone = bool(names) and _MADE.issuperset(names)
    options = Options(
        None if no_real or made_alone else real_folder(data),
        out,
        names,
        tuple(filter(None, models.split(","))),
        quick=quick,
        kept=kept,
    )
    shown = [f"--{name} {value}" for name, value in (("sets", sets), ("models", models)) if value]
    command = " ".join(["python -m glaciercube.bench.table", *shown, *(["--quick"] if quick else [])])
    path = write(sections(options), options, command)
    if docs is not None:
        shutil.copyfile(path, docs)
    click.echo(path.read_text(encoding="utf-8"), nl=False)


if __name__ == "__main__":
    main()
