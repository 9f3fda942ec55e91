"""The benchmark's part on physics: the prior on change, and what terrain does to the detection of retreat."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from glaciercube.bench.priors import SEEDS, event_chip, ice_of, interval, prior_scores
from glaciercube.bench.report import Section
from glaciercube.bench.retreat import SEEDS as RETREAT_SEEDS
from glaciercube.bench.retreat import retreat_rows, verdict
from glaciercube.change.priors import PriorOptions
from glaciercube.evaluation.predict import ice_labels, predict_chip
from glaciercube.models.base import Model
from glaciercube.models.registry import load_model
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["section"]

_FORMAT: Final = 1
_LOSS: Final = 0.3
_EVENTS: Final = ("", "surge", "calving", "collapse")
_PAIRS: Final = (("hit", "either"), ("area_error", "area"), ("told", "event"))


def section(
    out: Path, *, quick: bool = False, kept: bool = False, model: str = "fusion-unet", scenes: int = 60
) -> Section:
    """Measure both, or read what was measured before.

    Parameters
    ----------
    out : Path
        Where answers and scenes are kept.
    quick : bool
        One small series and pair.
    kept : bool
        Only what was found before.
    model : str
        Whose maps.
    scenes : int
        Pairs of dates; series are a third as many.
    """
    chosen = load_model(model)
    size, scenes = (48, 1) if quick else (128, scenes)
    text = repr((_FORMAT, chosen.hash, size, scenes, PriorOptions()))
    path = out / "cells" / f"physics-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if path.is_file():
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    elif kept:
        record = {}
    else:
        folder = out / "scenes"
        record = {
            "prior": _prior(chosen, folder, size, max(scenes // 3, 1), dates=4 if quick else 9),
            "retreat": _retreat(chosen, folder, size, scenes),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")
        record = json.loads(path.read_text(encoding="utf-8"))
    return Section(
        "Physics: the prior on change, and terrain under retreat (simulated)",
        ("question", "shown", "IoU per date", "area error", "change told"),
        tuple(_rows(record)),
        (
            f"series: {max(scenes // 3, 1)} of {4 if quick else 9} dates in 7 years, seeds from {SEEDS[20]}",
            f"pairs of dates: {scenes}, seeds from {RETREAT_SEEDS[0]}; {100 * _LOSS:.0f} % of the ice goes in all",
            "change told: of the pixels that change (in the event, if any), the share that is right at both ends",
            "under terrain: of lost pixels that were called ice before, the share that is called no ice after",
            "terrain fresh: of the last date; stale: of the first; off: kept from the model; intervals of 95 %",
        ),
        record,
    )


def _prior(model: Model, folder: Path, size: int, count: int, *, dates: int) -> dict[str, Any]:
    """Scores by event, without the prior, with it, and their difference."""
    options = SequenceOptions(size=size, dates=dates, years=(2016, 2023), resolution=20.0, loss=_LOSS, dem_year=2013.0)
    chips = simulated_chips([SEEDS[20 + n] for n in range(count)], options, folder=folder)
    # Places whose ice all but goes say nothing of it.
    series = [(chip, predict_chip(model, chip, classes=ice_labels(chip), alone=True)) for chip in chips if _icy(chip)]
    found: dict[str, Any] = {"options": asdict(PriorOptions()), "series": len(series), "events": {}}
    for event in _EVENTS if series else ():
        told = [event_chip(chip, p, event) if event else (chip, p, None) for chip, p in series]
        plain, prior = (
            [prior_scores(chip, p, chosen, where) for chip, p, where in told] for chosen in (None, PriorOptions())
        )
        found["events"][event or "retreat"] = {
            "without": [interval(plain, *pair) for pair in _PAIRS],
            "with": [interval(prior, *pair) for pair in _PAIRS],
            "difference": [interval(prior, *pair, plain) for pair in _PAIRS],
        }
    return found


def _icy(chip: Any) -> bool:
    return bool((ice_of(chip).mean(axis=(1, 2)) > 0.01).all())


def _retreat(model: Model, folder: Path, size: int, count: int) -> dict[str, Any]:
    options = SequenceOptions(size=size, resolution=20.0, dates=2, loss=_LOSS, cloud_cover=0.0, gaps=False)
    found = verdict(retreat_rows(model, [RETREAT_SEEDS[n] for n in range(count)], options, folder))
    return {terrain: dict(shares) for terrain, shares in found.items()}


def _rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for event, shown in record.get("prior", {}).get("events", {}).items():
        for name, values in shown.items():
            sign = "+" if name == "difference" else ""
            cells = [_cell(value, sign) for value in values]
            rows.append((f"prior on change: {event}", f"{name} prior" if not sign else name, *cells))
    for terrain, shares in record.get("retreat", {}).items():
        told = _cell(shares["pixels"])
        rows.append((f"a loss of {100 * _LOSS:.0f} %", f"terrain {terrain}", _cell(shares["iou"]), "-", told))
    return rows


def _cell(value: Any, sign: str = "") -> str:
    middle, low, high = value
    return f"{middle:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"
