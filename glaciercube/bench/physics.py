"""The benchmark's part on physics: the prior on change, terrain under retreat, and corrections of a finished map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

from glaciercube.bench.corrections import CORRECTIONS, SEEDS, correction_scores, scene_options
from glaciercube.bench.keeping import answer_file, keep
from glaciercube.bench.priors import SEEDS as SERIES_SEEDS
from glaciercube.bench.priors import event_chip, interval, prior_scores
from glaciercube.bench.report import Section
from glaciercube.bench.retreat import ANSWERS, FAMILIES, LOSS, MEASURES, SCENES, loss_options, shares_of
from glaciercube.bench.retreat import SEEDS as RETREAT_SEEDS
from glaciercube.change.priors import PriorOptions
from glaciercube.change.terrain import WANTED
from glaciercube.evaluation.predict import ice_labels, ice_of, predict_chip
from glaciercube.models.base import Model
from glaciercube.models.builtin import SHIPPED
from glaciercube.models.chips import Chip
from glaciercube.models.registry import load_model
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["change_section", "corrections_section", "sections", "terrain_section"]

Record: TypeAlias = dict[str, Any]

_EVENTS: Final = ("", "surge", "calving", "collapse")
_PAIRS: Final = (("hit", "either"), ("area_error", "area"), ("told", "event"))


def sections(
    out: Path,
    *,
    quick: bool = False,
    kept: bool = False,
    models: Sequence[str] = tuple(SHIPPED),
    families: Sequence[str] = FAMILIES,
) -> list[Section]:
    """Measure all, or read what was measured before.

    Parameters
    ----------
    out : Path
        Where answers and scenes are kept, by a hash of the model and of what was asked.
    quick : bool
        One small scene of each.
    kept : bool
        Only what was found before.
    models : sequence of str
        Whose maps; the first alone where dates are not compared.
    families : sequence of str
        Of the simulated world.
    """
    loaded = [load_model(name) for name in models]
    return [
        terrain_section(loaded, families, out, quick=quick, kept=kept),
        change_section(loaded[0], families, out, quick=quick, kept=kept),
        corrections_section(loaded[0], families, out, quick=quick, kept=kept),
    ]


def terrain_section(models: Sequence[Model], families: Sequence[str], out: Path, *, quick: bool, kept: bool) -> Section:
    """What terrain does to the detection of retreat."""
    size, count = (48, 1) if quick else (128, SCENES)
    rows: list[tuple[str, ...]] = []
    record: Record = {}
    for model in models:
        for family in families:
            found = shares_of(model, loss_options(family, size=size), out, scenes=count, kept=kept)
            record[f"{model.contract.name}, {family}"] = found
            for terrain, shares in found.items():
                cells = [_cell(shares[name]) for name in MEASURES]
                rows.append((model.contract.name, family, terrain, *cells))
    return Section(
        "Physics: does terrain hide retreat? (simulated, shipped models)",
        ("model", "family", "terrain", "detected", "on bare ground", "of all lost", "kept", "area told / true", "IoU"),
        tuple(rows),
        (
            (
                f"{count} pairs of dates 6 to 12 years apart in each family, between which {100 * LOSS:.0f} % of the "
                f"ice goes, without clouds, seeds from {RETREAT_SEEDS[0]}; intervals of 95 % over scenes"
            ),
            "terrain fresh: an elevation model of the last date; stale: of the first; off: kept from the model",
            (
                "detected: of the pixels that lost their ice and were called ice at the first date, those called no "
                f"ice at the last; {100 * WANTED:.0f} % of it, fresh and stale, is asked before terrain is used for "
                "change; on bare ground: the same where no snow lies at the last date; of all lost: also those that "
                "were never called ice"
            ),
            (
                "kept: of the pixels whose loss is detected without terrain, those called no ice at the last date with "
                "it, too; area: told loss over true loss within the glaciers of the first date"
            ),
        ),
        record,
    )


def change_section(model: Model, families: Sequence[str], out: Path, *, quick: bool, kept: bool) -> Section:
    """The prior on change, on and off."""
    size, count, dates = (48, 1, 4) if quick else (128, 20, 9)
    rows: list[tuple[str, ...]] = []
    record: Record = {"options": asdict(PriorOptions())}
    for family in families:
        options = SequenceOptions(
            size=size, dates=dates, years=(2016, 2023), resolution=20.0, loss=LOSS, dem_year=2013.0, family=family
        )

        def measure(options: SequenceOptions = options) -> Record:
            seeds = [SERIES_SEEDS[20 + n] for n in range(count)]
            return _prior(model, simulated_chips(seeds, options, folder=out / "scenes", progress=False))

        asked = (ANSWERS, "prior", model.hash, options, count, PriorOptions())
        path = answer_file(out / "cells", "physics-prior", *asked)
        record[family] = found = keep(path, measure, kept=kept) or {}
        for event, shown in found.items():
            for name, values in shown.items():
                sign = "+" if name == "difference" else ""
                shown_as = name if sign else f"{name} prior"
                rows.append((event, family, shown_as, *(_cell(value, sign) for value in values)))
    return Section(
        "Physics: the prior on change (simulated)",
        ("series", "family", "shown", "IoU per date", "area error", "change told"),
        tuple(rows),
        (
            (
                f"{model.contract.name}, date by date: {count} series of {dates} dates in 7 years in each family, "
                f"seeds from {SERIES_SEEDS[20]}; {100 * LOSS:.0f} % of the ice goes in all; intervals of 95 %"
            ),
            "surge, calving, collapse: the lowest third of the largest glacier comes or goes at the middle date, too",
            "change told: of the pixels that change (in the event, if any), the share that is right at both ends",
        ),
        record,
    )


def _prior(model: Model, chips: Sequence[Chip]) -> Record:
    """Scores by event, without the prior, with it, and their difference."""
    # Places whose ice all but goes say nothing of it.
    icy = [chip for chip in chips if (ice_of(chip).mean(axis=(1, 2)) > 0.01).all()]
    series = [
        (chip, predict_chip(model, chip, classes=ice_labels(chip.labels, of=chip.name), alone=True)) for chip in icy
    ]
    found: Record = {}
    for event in _EVENTS if series else ():
        told = [event_chip(chip, p, event) if event else (chip, p, None) for chip, p in series]
        plain, prior = (
            [prior_scores(chip, p, chosen, where) for chip, p, where in told] for chosen in (None, PriorOptions())
        )
        found[event or "retreat"] = {
            "without": [interval(plain, *pair) for pair in _PAIRS],
            "with": [interval(prior, *pair) for pair in _PAIRS],
            "difference": [interval(prior, *pair, plain) for pair in _PAIRS],
        }
    return found


def corrections_section(model: Model, families: Sequence[str], out: Path, *, quick: bool, kept: bool) -> Section:
    """Candidates by slope, flow routing, terminus correction and co-registration, each on and off."""
    size, count = (48, 1) if quick else (128, 30)
    rows: list[tuple[str, ...]] = []
    record: Record = {}
    for family in families:
        options = scene_options(family, size=size)

        def measure(options: SequenceOptions = options) -> Record:
            chips = simulated_chips(list(SEEDS[:count]), options, folder=out / "scenes", progress=False)
            scores = [correction_scores(model, chip) for chip in chips]
            pair = ("hit", "either")
            return {
                title: {
                    "without": interval([one[title][0] for one in scores], *pair),
                    "with": interval([one[title][1] for one in scores], *pair),
                    "difference": interval([one[title][1] for one in scores], *pair, [one[title][0] for one in scores]),
                }
                for title in CORRECTIONS
            }

        asked = (ANSWERS, "corrections", model.hash, options, count)
        path = answer_file(out / "cells", "physics-corrections", *asked)
        record[family] = found = keep(path, measure, kept=kept) or {}
        for title, values in found.items():
            cells = (_cell(values[name], "+" if name == "difference" else "") for name in values)
            rows.append((title, family, *cells))
    return Section(
        "Physics: corrections of a map (simulated)",
        ("correction", "family", "IoU without", "IoU with", "difference"),
        tuple(rows),
        (
            (
                f"{model.contract.name}, {count} scenes of one date without clouds in each family, seeds from "
                f"{SEEDS[0]}; intervals of 95 % over scenes"
            ),
            "candidates by slope: no ice above so many degrees; flow routing and terminus: after GlacierNet2",
            (
                "co-registration: the truth is moved by 2 pixels each way, as an outline that lies off, and moved back "
                "by what `outline_shift` measures against the map; IoU is of the map with it"
            ),
        ),
        record,
    )


def _cell(value: Any, sign: str = "") -> str:
    middle, low, high = value
    return f"{middle:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
