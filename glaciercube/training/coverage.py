"""Check shipped intervals on glaciers of another world: how often they hold, with seeds fixed beforehand.

``python -m glaciercube.training.coverage --cache FOLDER --out FILE``. 500 scenes of the other family of generators,
of which one glacier each is drawn, so that the glaciers are independent and the count of those inside their 90%
interval is binomial. The last check of the shipped intervals is kept in ``docs/coverage.json``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np

from glaciercube.change import Calibration, find_calibration
from glaciercube.change.correlation import area_std
from glaciercube.errors import ModelError
from glaciercube.evaluation.jsonable import jsonable
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.sentences import told
from glaciercube.training.area_errors import AreaError, Maps, area_errors, maps_of, modalities_of, without
from glaciercube.training.calibrate_area import MAIN, draw_chips

__all__ = ["FAMILY", "FIRST_SEED", "Coverage", "calibration_hash", "check", "coverage", "table"]

#: Seeds of the check, chosen before any of it was drawn.
FIRST_SEED = 5_200_000
#: Family of generators: not that of training or calibration.
FAMILY = "b"
LEVEL = 0.9
MODELS = ("fusion-unet", "fusion-unet-time", "band-ratio")
#: Limits of size classes, km2.
SIZES = (0.0, 0.1, 0.5, 1.0, 5.0, np.inf)
# After the point, in the record.
_DIGITS = 6


@dataclass(frozen=True)
class Coverage:
    """How often intervals hold.

    Attributes
    ----------
    model, model_hash : str
        Which model.
    calibration : str
        Fingerprint of the calibration, see `calibration_hash`.
    modalities : tuple of str
        Inputs.
    quantity, every : str
        What the intervals are of.
    glaciers, inside : int
        How many, and how many within their interval.
    below, above : int
        True values below and above the interval.
    p_value : float
        Of a binomial test, two-sided, against the level.
    width : float
        Median width of the interval over the outline's area.
    spread : float
        Root mean square of (true - expected area) / standard deviation of correlated pixels, over single dates; 1 where
        that is right. NaN where it was not measured.
    independent : float
        The same where each pixel errs for itself.
    without_reserve : (int, float)
        How many are within their interval, and its median width, if the interval has no reserve for places unlike those
        of its calibration.
    sizes : dict of str to (int, int, float)
        By size class of the outline: glaciers, inside, and the mean of the absolute error of the area over the outline.
    """

    model: str
    model_hash: str
    calibration: str
    modalities: tuple[str, ...]
    quantity: str
    every: str
    glaciers: int
    inside: int
    below: int
    above: int
    p_value: float
    width: float
    spread: float
    independent: float
    without_reserve: tuple[int, float]
    sizes: dict[str, tuple[int, int, float]]


@dataclass(frozen=True)
class _Held:
    """One glacier against its interval."""

    error: AreaError
    low: float
    high: float
    bare: tuple[float, float]
    ratio: float
    alone: float


def check(
    model: Model,
    chips: Iterable[Chip],
    missing: Sequence[str],
    *,
    path: Path | None = None,
    level: float = LEVEL,
) -> Iterator[Coverage]:
    """Hold a model's intervals against one glacier of each chip, for every kind of area and change.

    Parameters
    ----------
    model : Model
        Whose intervals.
    chips : iterable of Chip
        Independent scenes with `glaciers`; one glacier of each is drawn.
    missing : sequence of str
        Sensors that the model is not shown, as of `glaciercube.training.area_errors.without`.
    path : Path or None
        Calibrations; None for those shipped.
    level : float
        Of the intervals.

    Yields
    ------
    Coverage
        For areas and changes, of single dates and of years.

    Raises
    ------
    ModelError
        If the model has no calibration for these inputs.
    """
    held: dict[tuple[str, str], list[_Held]] = {}
    modalities: tuple[str, ...] = ()
    for order, chip in enumerate(chips):
        shown = without(chip, missing)
        modalities = modalities_of(model, shown) or ()
        if not modalities or chip.glaciers is None:
            continue
        maps = maps_of(model, shown)
        rng = np.random.default_rng([FIRST_SEED, order])
        found: dict[tuple[str, str], list[AreaError]] = {}
        for error in area_errors(chip, maps, rng):
            found.setdefault((error.quantity, error.every), []).append(error)
        for (quantity, every), errors in sorted(found.items()):
            calibration = find_calibration(model.hash, modalities, every, errors[0].quantity, path=path)
            if calibration is None:
                raise ModelError(
                    f"model {model.contract.name!r} has no calibration of {quantity} every {every}",
                    "measure it with glaciercube.training.calibrate_area",
                )
            drawn = errors[int(np.random.default_rng([FIRST_SEED, order, 1]).integers(len(errors)))]
            held.setdefault((quantity, every), []).append(_hold(calibration, drawn, chip, maps, level))
    for (_, every), each in held.items():
        used = find_calibration(model.hash, modalities, every, each[0].error.quantity, path=path)
        if used is not None:
            yield coverage(used, each, level)


def coverage(used: Calibration, held: Sequence[_Held], level: float = LEVEL) -> Coverage:
    """Sum up glaciers that were held against the intervals of a calibration."""
    from scipy.stats import binomtest

    below = sum(one.error.true < one.low for one in held)
    above = sum(one.error.true > one.high for one in held)
    inside = len(held) - below - above
    ratios, alone = (np.array([getattr(one, name) for one in held]) for name in ("ratio", "alone"))
    sizes = {}
    for low, high in pairwise(SIZES):
        here = [one for one in held if low <= one.error.outline < high]
        good = sum(one.low <= one.error.true <= one.high for one in here)
        errors = [abs(one.error.true - one.error.said) / one.error.outline for one in here]
        sizes[f"{low:g}-{high:g} km2"] = (len(here), good, round(float(np.mean(errors)), 4) if here else float("nan"))
    return Coverage(
        model=used.model,
        model_hash=used.model_hash,
        calibration=calibration_hash(used),
        modalities=used.modalities,
        quantity=used.quantity,
        every=used.every,
        glaciers=len(held),
        inside=inside,
        below=below,
        above=above,
        p_value=float(binomtest(inside, len(held), level).pvalue),
        width=float(np.median([(one.high - one.low) / one.error.outline for one in held])),
        spread=float(np.sqrt(np.mean(ratios**2))),
        independent=float(np.sqrt(np.mean(alone**2))),
        without_reserve=(
            sum(one.bare[0] <= one.error.true <= one.bare[1] for one in held),
            float(np.median([(one.bare[1] - one.bare[0]) / one.error.outline for one in held])),
        ),
        sizes=sizes,
    )


def calibration_hash(one: Calibration) -> str:
    """Fingerprint of what an interval is made of: the errors, their groups, and the reserve."""
    scores, shares = ([round(value, 4) for value in values] for values in (one.scores, one.shares))
    text = json.dumps([scores, shares, one.scenes, one.ranges, one.reserve])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of a record as Markdown."""
    lines = [
        "| model, inputs | 90 % interval of | inside | coverage | binomial p | true below, above | median width |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kind = f"{row['quantity']}, {'a year' if row['every'] == 'year' else 'a date'}"
        kind = kind if row["quantity"] == "area" else kind.replace("a year", "two years").replace("a date", "two dates")
        lines.append(
            f"| `{row['model']}`, {_inputs(row['modalities'])} | {kind} | {row['inside']} of {row['glaciers']} | "
            f"{row['inside'] / row['glaciers']:.3f} | {row['p_value']:.2g} | {row['below']}, {row['above']} | "
            f"{row['width']:.2f} |"
        )
    return "\n".join(lines)


def _inputs(modalities: Sequence[str]) -> str:
    if list(modalities) == ["optical"]:
        return "optical"
    return "all" if "radar" in modalities else "no radar"


def _hold(calibration: Calibration, error: AreaError, chip: Chip, maps: Maps, level: float) -> _Held:
    """Interval of the clear part of a glacier: what is hidden has bounds of its own, which always hold."""
    lower, upper = _interval(calibration, error, level)
    bare = _interval(replace(calibration, reserve=0.0), error, level)
    ratio = alone = float("nan")
    correlation = calibration.pixel_correlation
    if correlation is not None and chip.glaciers is not None:
        p = np.where(chip.glaciers == error.glacier, maps.probability[0], np.nan)
        seen = np.isfinite(p)
        off = float(maps.ice[0][seen].sum() - p[seen].sum()) * chip.resolution**2 / 1e6
        std = area_std(p, chip.resolution, correlation)
        single = float(np.sqrt((p[seen] * (1 - p[seen])).sum())) * chip.resolution**2 / 1e6
        ratio, alone = (off / std if std else 0.0), off / max(single, 1e-9)
    return _Held(error, lower, upper, bare, ratio, alone)


def _interval(calibration: Calibration, error: AreaError, level: float) -> tuple[float, float]:
    low, high = calibration.quantiles(level, error.share)
    # As in `Calibration.interval`: the estimate itself stays inside.
    return error.said + min(low, 0.0) * error.scale, error.said + max(high, 0.0) * error.scale


@click.command()
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder that keeps drawn scenes.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write.")
@click.option("--calibrations", type=click.Path(path_type=Path), help="Others than those shipped.")
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True, help="Models or their folders.")
@click.option("--scenes", default=500, show_default=True, help="Simulated scenes, one glacier each.")
@click.option("--inputs", default=len(MAIN), show_default=True, help="Sets of inputs: all, no radar, optical alone.")
@click.option("--family", default=FAMILY, show_default=True, help="Family of generators.")
@click.option("--draw", is_flag=True, help="Draw the scenes and stop.")
@told
def main(
    *,
    cache: Path,
    out: Path | None,
    calibrations: Path | None,
    models: tuple[str, ...],
    scenes: int,
    inputs: int,
    family: str,
    draw: bool,
) -> None:
    """Report how often the intervals of areas and changes hold on simulated glaciers of another world."""
    import torch

    torch.set_num_threads(1)
    if draw:
        click.echo(f"{sum(1 for _ in draw_chips(FIRST_SEED, scenes, cache, family=family))} scenes in {cache}")
        return
    rows: list[Coverage] = []
    for model in (load_model(name) for name in models):
        done: set[tuple[str, ...] | None] = {None}
        for missing in MAIN[:inputs]:
            first = next(draw_chips(FIRST_SEED, scenes, cache, family=family))
            modalities = modalities_of(model, without(first, missing))
            # Models that take less than is shown would meet the same inputs several times.
            if modalities in done:
                continue
            done.add(modalities)
            chips = draw_chips(FIRST_SEED, scenes, cache, family=family)
            found = list(check(model, chips, missing, path=calibrations))
            rows += found
            click.echo(table(jsonable(one, _DIGITS) for one in found))
    if out is not None:
        record = {
            "family": family,
            "seeds": [FIRST_SEED, FIRST_SEED + scenes],
            "level": LEVEL,
            "rows": [jsonable(one, _DIGITS) for one in rows],
        }
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
