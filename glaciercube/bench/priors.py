"""What a prior on change is worth: simulated series with and without it (``python -m glaciercube.bench.priors``)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import click
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from glaciercube.change.priors import PriorOptions, smooth_series
from glaciercube.errors import ConfigError
from glaciercube.evaluation.predict import ice_labels, ice_of, predict_chip
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.region.sun import DAYS_PER_YEAR
from glaciercube.sentences import told
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["event_chip", "interval", "prior_scores", "years_of"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Probability: TypeAlias = npt.NDArray[np.floating[Any]]

#: Scenes that no model or option of the package was fitted on.
SEEDS: Final = range(6_100_000, 6_100_000 + 10_000)
_RESAMPLED = 2000


def years_of(chip: Chip) -> npt.NDArray[np.float64]:
    """Years of the dates since the first."""
    return np.asarray((chip.days - chip.days[0]) / DAYS_PER_YEAR)


def prior_scores(
    chip: Chip, probability: Probability, options: PriorOptions | None, where: BoolArray | None = None
) -> dict[str, float]:
    """Scores of one series: sums, of which ratios are made over series.

    Parameters
    ----------
    chip : Chip
        With its truth; clear pixels count.
    probability : (time, y, x) floating
        Of ice, NaN where undefined.
    options : PriorOptions or None
        None leaves the series as it is.
    where : (y, x) bool or None
        Pixels of an event; all whose ice goes or comes if None.

    Returns
    -------
    dict
        ``hit``, ``either`` (pixels, of IoU per date), ``area_error`` (sum over dates of |area - true area| in pixels),
        ``area`` (true pixels), ``right`` and ``wrong`` (pixels that the prior turned), ``seen``, ``event`` and
        ``told`` (pixels that change between the first and the last date, and those of which both dates are right),
        ``loss_error`` (|loss of area - true loss| between the first and the last date, in pixels).
    """
    true, clear = ice_of(chip), chip.clear
    seen = clear & np.isfinite(probability)
    shown = np.where(seen, probability, np.nan)
    made = shown if options is None else smooth_series(shown, years_of(chip), chip.resolution, options)[0]
    with np.errstate(invalid="ignore"):
        before, after = shown >= 0.5, made >= 0.5
    turned = seen & (before != after)
    areas = (after & seen).sum(axis=(1, 2)), (true & seen).sum(axis=(1, 2))
    ends = seen[0] & seen[-1]
    event = ends & (true[0] != true[-1]) & (True if where is None else where)
    told = event & (after[0] == true[0]) & (after[-1] == true[-1])
    return {
        "hit": float((after & true & seen).sum()),
        "either": float(((after | true) & seen).sum()),
        "area_error": float(abs(areas[0] - areas[1]).sum()),
        "area": float(areas[1].sum()),
        "right": float((turned & (after == true)).sum()),
        "wrong": float((turned & (after != true)).sum()),
        "seen": float(seen.sum()),
        "event": float(event.sum()),
        "told": float(told.sum()),
        "loss_error": float(abs(_loss(after, ends) - _loss(true, ends))),
    }


def _loss(ice: BoolArray, ends: BoolArray) -> float:
    return float((ice[0] & ends).sum() - (ice[-1] & ends).sum())


def interval(
    rows: Sequence[dict[str, float]], top: str, bottom: str, against: Sequence[dict[str, float]] | None = None
) -> tuple[float, float, float]:
    """A ratio of sums over scenes, or how it differs from that of other rows, with a 95 % interval (bootstrap)."""
    picks = np.random.default_rng(0).integers(0, len(rows), (_RESAMPLED, len(rows)))

    def ratio(of: Sequence[dict[str, float]], chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        above, below = (np.array([row[name] for row in of])[chosen].sum(axis=-1) for name in (top, bottom))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(above / below, np.float64)

    drawn, whole = ratio(rows, picks), ratio(rows, np.arange(len(rows)))
    if against is not None:
        drawn, whole = drawn - ratio(against, picks), whole - ratio(against, np.arange(len(rows)))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(whole), float(low), float(high)


def event_chip(chip: Chip, probability: Probability, event: str) -> tuple[Chip, Probability, BoolArray]:
    """Turn a series about, so that its largest glacier surges, calves or falls apart between two of its dates.

    The lowest third of what is ice of the largest glacier at all dates is gone before or after the event. Where it is,
    a date has probabilities that the model gave to other ground without ice on the same date, drawn pixel by pixel.

    Parameters
    ----------
    chip : Chip
        A series with truth and outlines.
    probability : (time, y, x) floating
        Of ice.
    event : {"surge", "calving", "collapse"}
        Ice from the middle date on; no ice from the middle date on; in halves, at the middle date and the next.

    Returns
    -------
    Chip, (time, y, x) floating, (y, x) bool
        The series, its probability, and where the event is.
    """
    rng = np.random.default_rng(zlib.crc32(chip.name.encode()))
    true, glaciers = ice_of(chip), np.asarray(chip.glaciers)
    largest = int(np.argmax(np.bincount(glaciers[glaciers > 0].ravel())))
    body = (glaciers == largest) & true.all(axis=0)
    height = np.asarray(chip.variables["elevation"], np.float64)
    order = np.quantile(height[body], [1 / 6, 1 / 3])
    half, third = body & (height <= order[0]), body & (height <= order[1])
    middle = len(true) // 2
    label, made = chip.label.copy(), probability.copy()
    names = list(chip.labels)
    ground = ~true & (chip.label == names.index("other"))
    for date in range(len(true)):
        gone = {
            "surge": third if date < middle else np.zeros_like(third),
            "calving": third if date >= middle else np.zeros_like(third),
            "collapse": third if date > middle else half if date == middle else np.zeros_like(third),
        }[event]
        bare = probability[date][ground[date] & np.isfinite(probability[date])]
        label[date][gone] = names.index("other")
        made[date][gone] = rng.choice(bare, int(gone.sum())) if bare.size else 0.0
    return Chip(**{**vars(chip), "label": label}), made, third


def _series(model: Model, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Probability]]:
    for chip in tqdm(chips, desc="predicting", unit="series"):
        yield chip, predict_chip(model, chip, classes=ice_labels(chip.labels, of=chip.name), alone=True)


def _line(name: str, rows: Sequence[dict[str, float]], against: Sequence[dict[str, float]] | None = None) -> str:
    pairs = (("hit", "either"), ("area_error", "area"), ("told", "event"), ("loss_error", "event"))
    sign = "+" if against is not None else ""
    found = [interval(rows, *pair, against) for pair in pairs]
    cells = [f"{a:{sign}.3f} ({b:{sign}.3f} to {c:{sign}.3f})" for a, b, c in found]
    turned = sum(row["right"] + row["wrong"] for row in rows)
    share = 100 * turned / sum(row["seen"] for row in rows)
    right = f"{100 * sum(row['right'] for row in rows) / turned:.0f} %" if turned else "-"
    return f"| {name} | {' | '.join(cells)} | {share:.2f} % | {right} |"


def _options(text: str) -> PriorOptions:
    try:
        return PriorOptions(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--options {text} are none of a prior ({error})", "give the fields of PriorOptions as JSON"
        ) from error


@click.command()
@click.option("--model", default="fusion-unet", show_default=True, help="Model or its folder.")
@click.option("--series", default=24, show_default=True)
@click.option("--dates", default=9, show_default=True, help="Of each series.")
@click.option("--size", default=128, show_default=True, help="Pixels a side.")
@click.option("--skip", default=0, show_default=True, help="Seeds to pass over.")
@click.option("--loss", default=0.3, show_default=True, help="Share of the ice that goes.")
@click.option("--options", default="{}", show_default=True, help="PriorOptions as JSON.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("chips"),
    show_default=True,
    help="Keeps drawn scenes.",
)
@told
def main(*, model: str, series: int, dates: int, size: int, skip: int, loss: float, options: str, folder: Path) -> None:
    """Draw series, predict them, and compare them with a prior and without, also where ice surges or calves."""
    prior = _options(options)
    sequence = SequenceOptions(size=size, dates=dates, years=(2016, 2023), resolution=20.0, loss=loss, dem_year=2013.0)
    chips = simulated_chips([SEEDS[skip + n] for n in range(series)], sequence, folder=folder)
    chips = [chip for chip in chips if (ice_of(chip).mean(axis=(1, 2)) > 0.01).all()]
    found = list(_series(load_model(model), chips))
    heads = ("series", "IoU per date", "area error", "change told", "error of the loss", "turned", "rightly")
    click.echo(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for event in ("", "surge", "calving", "collapse"):
        turned = [event_chip(chip, p, event) if event else (chip, p, None) for chip, p in found]
        without = [prior_scores(chip, p, None, where) for chip, p, where in turned]
        smoothed = [prior_scores(chip, p, prior, where) for chip, p, where in turned]
        title = event or f"{100 * loss:.0f} % loss"
        click.echo(_line(title, without))
        click.echo(_line(f"{title}, prior", smoothed))
        click.echo(_line("difference", smoothed, without))


if __name__ == "__main__":
    main()
