"""Whether terrain hides retreat: how much of a true loss of ice is detected with terrain on, off and stale.

``python -m glaciercube.bench.retreat`` draws pairs of dates between which a share of the ice goes, and asks a model for
both. The elevation model is of the last date (fresh), of the first (stale) or kept from the model (off).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import click
import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from glaciercube.bench.keeping import answer_file, keep
from glaciercube.bench.priors import interval
from glaciercube.change.terrain import RECORDS, TERRAIN_VARIABLES, Share, TerrainRecord, write_terrain_record
from glaciercube.evaluation.predict import ice_labels, ice_of, predict_chip
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.sentences import told
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = [
    "ANSWERS",
    "FAMILIES",
    "LOSS",
    "MEASURES",
    "SCENES",
    "Seen",
    "loss_options",
    "loss_scores",
    "record_of",
    "retreat_rows",
    "seen_by",
    "shares_of",
    "static_modalities",
    "verdict",
]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Epoch: TypeAlias = Literal["first", "last"]

#: Seeds that nothing in the package was fitted on, in either family.
SEEDS: Final = range(6_200_000, 6_210_000)
FAMILIES: Final = ("a", "b")
#: Share of the ice that goes.
LOSS: Final = 0.3
#: Raised when kept answers of physics come to mean something else: older ones are then made anew.
ANSWERS: Final = 2
#: Pairs of dates in each family.
SCENES: Final = 60
#: Shares: of which sums of `loss_scores`.
MEASURES: Final = {
    "detected": ("detected", "ice_before"),
    "bare": ("bare_detected", "bare_before"),
    "gone": ("gone", "lost"),
    "kept": ("kept", "plain_detected"),
    "area": ("told_loss", "true_loss"),
    "iou": ("hit", "either"),
}


def static_modalities(model: Model) -> tuple[str, ...]:
    """Modalities of a model that are made of elevation."""
    return tuple(m.name for m in model.contract.modalities if set(m.variables) & set(TERRAIN_VARIABLES))


def loss_options(family: str = "a", *, size: int = 128) -> SequenceOptions:
    """Pairs of dates, 6 to 12 years apart, between which ice goes, without clouds."""
    return SequenceOptions(size=size, resolution=20.0, dates=2, loss=LOSS, cloud_cover=0.0, gaps=False, family=family)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model makes of the first and the last date.

    Attributes
    ----------
    ice : (2, y, x) bool
        Probability of 0.5 or more.
    clear : (y, x) bool
        Pixels that both dates show, and that have a probability at both.
    """

    ice: BoolArray
    clear: BoolArray


def seen_by(model: Model, chip: Chip, without: Sequence[str] = ()) -> Seen:
    """Map the first and the last date of a chip, each by itself, with some modalities kept from the model."""
    probability = predict_chip(
        model, chip, classes=ice_labels(chip.labels, of=chip.name), without=without, alone=True, dates=_ends(chip)
    )
    clear = np.isfinite(probability) & chip.clear[[0, -1]]
    return Seen(np.nan_to_num(probability) >= 0.5, clear[0] & clear[1])


def _ends(chip: Chip) -> list[int]:
    return [0, len(chip.time) - 1]


def loss_scores(chip: Chip, seen: Seen, plain: Seen) -> dict[str, float]:
    """What a map makes of the loss between the first and the last date of a chip: sums of pixels.

    Parameters
    ----------
    chip : Chip
        Two dates or more, with the truth.
    seen : Seen
        The map.
    plain : Seen
        That of the same dates without terrain.

    Returns
    -------
    dict
        Over pixels that are clear at both dates: ``lost`` (that lost their ice), ``ice_before`` (of these, called ice
        at the first date), ``detected`` (of these, called no ice at the last), ``bare_before`` and ``bare_detected``
        (the same where no seasonal snow lies at the last date), ``gone`` (of lost, called no ice at the last date),
        ``plain_detected`` (detected without terrain) and ``kept`` (of these, called no ice at the last date here, too),
        ``true_loss`` and ``told_loss`` (change of area within the glaciers of the first date, as areas are read within
        outlines), ``hit`` and ``either`` (of IoU, both dates).
    """
    true, clear = ice_of(chip)[_ends(chip)], seen.clear & plain.clear
    snow = [number for number, name in enumerate(chip.labels) if name == "seasonal_snow"]
    bare = ~np.isin(chip.label[-1], snow)
    lost = clear & true[0] & ~true[1]
    before, after = lost & seen.ice[0], ~seen.ice[1]
    without = lost & plain.ice[0] & ~plain.ice[1]
    inside = clear & (np.asarray(chip.glaciers) > 0 if chip.glaciers is not None else true[0])
    sums = {
        "lost": lost,
        "ice_before": before,
        "detected": before & after,
        "bare_before": before & bare,
        "bare_detected": before & bare & after,
        "gone": lost & after,
        "plain_detected": without,
        "kept": without & after,
        "hit": clear & seen.ice & true,
        "either": clear & (seen.ice | true),
    }
    areas = {"true_loss": true, "told_loss": seen.ice}
    return {name: float(pixels.sum()) for name, pixels in sums.items()} | {
        name: float((inside & ice[0]).sum()) - float((inside & ice[1]).sum()) for name, ice in areas.items()
    }


def retreat_rows(model: Model, seeds: Sequence[int], options: SequenceOptions, folder: Path) -> pd.DataFrame:
    """Scores of each scene with terrain fresh, stale and off.

    Parameters
    ----------
    model : Model
        Any that does without terrain.
    seeds : sequence of int
        One pair of dates each.
    options : SequenceOptions
        Of the pairs; see `loss_options`.
    folder : Path
        Cache of chips.

    Returns
    -------
    DataFrame
        Columns ``terrain`` ("fresh", "stale", "off"), ``seed`` and those of `loss_scores`.
    """
    hidden = static_modalities(model)
    epochs: tuple[tuple[str, Epoch], ...] = (("fresh", "last"), ("stale", "first"))
    chips = {
        name: simulated_chips(seeds, replace(options, dem_year=epoch), folder=folder, progress=False)
        for name, epoch in epochs
    }
    rows = []
    for number, seed in enumerate(tqdm(seeds, desc=model.contract.name, unit="scene")):
        # The images are the same, whichever elevation model lies beside them.
        plain = seen_by(model, chips["stale"][number], hidden)
        maps = {name: seen_by(model, chips[name][number]) for name, _ in epochs} | {"off": plain}
        for terrain, seen in maps.items():
            rows.append({"terrain": terrain, "seed": seed, **loss_scores(chips["stale"][number], seen, plain)})
    return pd.DataFrame(rows).sort_values(["terrain", "seed"], key=_in_order, ignore_index=True)


def _in_order(column: pd.Series) -> pd.Series:
    return column.map({"fresh": 0, "stale": 1, "off": 2}) if column.name == "terrain" else column


def verdict(rows: pd.DataFrame) -> dict[str, dict[str, Share]]:
    """Shares by terrain, each with a 95 % interval over scenes.

    Parameters
    ----------
    rows : DataFrame
        From `retreat_rows`.

    Returns
    -------
    dict
        Terrain -> ``detected`` (of lost pixels that were called ice before, those called no ice after), ``bare`` (the
        same where no snow lies after), ``gone`` (of all lost pixels, those called no ice after), ``kept`` (of the
        pixels whose loss is detected without terrain, those called no ice after here, too), ``area`` (told loss over
        true loss within the glaciers, all scenes together), ``iou``.
    """
    found = {}
    for terrain, part in rows.groupby("terrain", sort=False):
        records = [{str(key): value for key, value in row.items()} for row in part.to_dict("records")]
        found[str(terrain)] = {name: interval(records, *pair) for name, pair in MEASURES.items()}
    return found


def shares_of(
    model: Model, options: SequenceOptions, out: Path, *, scenes: int = SCENES, kept: bool = False
) -> dict[str, dict[str, Share]]:
    """`verdict` on the first seeds, measured or read from where it was kept.

    Parameters
    ----------
    model : Model
        As of `retreat_rows`.
    options : SequenceOptions
        Of the pairs.
    out : Path
        Where scenes and answers are kept.
    scenes : int
        Pairs of dates.
    kept : bool
        Only what was measured before; empty if nothing was.
    """

    def measure() -> dict[str, Any]:
        return _rounded(verdict(retreat_rows(model, [SEEDS[n] for n in range(scenes)], options, out / "scenes")))

    path = answer_file(out / "cells", "physics-retreat", ANSWERS, "retreat", model.hash, options, scenes)
    found = keep(path, measure, kept=kept) or {}
    return {terrain: {name: tuple(share) for name, share in shares.items()} for terrain, shares in found.items()}


def record_of(model: Model, shares: Mapping[str, Mapping[str, Mapping[str, Share]]], scenes: int) -> TerrainRecord:
    """What `glaciercube.change` is to know of a model, from its shares by family."""
    return TerrainRecord(model.contract.name, model.hash, static_modalities(model), LOSS, scenes, shares)


def _rounded(found: dict[str, dict[str, Share]]) -> dict[str, dict[str, Share]]:
    return {
        terrain: {name: (round(a, 4), round(b, 4), round(c, 4)) for name, (a, b, c) in shares.items()}
        for terrain, shares in found.items()
    }


@click.command()
@click.option("--model", default="fusion-unet", show_default=True, help="Model or its folder.")
@click.option("--scenes", default=SCENES, show_default=True, help="Pairs of dates in each family.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/benchmark/physics"),
    show_default=True,
    help="Where scenes and answers go.",
)
@click.option("--record", is_flag=True, help="Keep the verdict for glaciercube.change.")
@told
def main(*, model: str, scenes: int, out: Path, record: bool) -> None:
    """Draw, predict, print a table; keep the record."""
    loaded = load_model(model)
    found = {family: shares_of(loaded, loss_options(family), out, scenes=scenes) for family in FAMILIES}
    if record:
        write_terrain_record(record_of(loaded, found, scenes), RECORDS)
    heads = ("family", "terrain", *MEASURES)
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for family, by_terrain in found.items():
        for terrain, shares in by_terrain.items():
            cells = [f"{a:.3f} ({b:.3f} to {c:.3f})" for a, b, c in shares.values()]
            lines.append(f"| {family} | {terrain} | {' | '.join(cells)} |")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
