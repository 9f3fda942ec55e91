"""Whether terrain hides retreat: how much of a true loss of ice is detected with terrain on, off and stale.

``python -m glaciercube.bench.retreat`` draws pairs of dates between which a share of the ice goes, and asks a model for
both. The elevation model is of the last date (fresh), of the first (stale) or kept from the model (off).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from glaciercube.bench.priors import ice_of, interval
from glaciercube.change.terrain import RECORDS, TerrainRecord, write_terrain_record
from glaciercube.evaluation.predict import ice_labels, predict_chip
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["STATIC", "loss_scores", "record_of", "retreat_rows", "static_modalities", "verdict"]

#: Variables of an elevation model, which may be older than the images.
STATIC: Final = ("elevation", "slope", "aspect_sin", "aspect_cos", "curvature", "topographic_position", "hillshade")
#: Seeds that nothing in the package was fitted on.
SEEDS: Final = range(6_200_000, 6_210_000)


def static_modalities(model: Model) -> tuple[str, ...]:
    """Modalities of a model that are made of elevation."""
    return tuple(m.name for m in model.contract.modalities if set(m.variables) & set(STATIC))


def loss_scores(model: Model, chip: Chip, without: Sequence[str] = ()) -> dict[str, float]:
    """What a model makes of the loss between the first and the last date of a chip.

    Parameters
    ----------
    model : Model
        Any.
    chip : Chip
        Two dates or more, with the truth.
    without : sequence of str
        Modalities that are kept from the model.

    Returns
    -------
    dict
        Over pixels that are clear at both dates: ``lost`` (that lost their ice), ``ice_before`` (of these, called ice
        at the first date), ``detected`` (of these, called no ice at the last), ``gone`` (of lost, called no ice at the
        last date), ``true_loss`` and ``told_loss`` (change of area), ``hit`` and ``either`` (of IoU, both dates).
    """
    true = ice_of(chip)[[0, -1]]
    probability = predict_chip(model, chip, classes=ice_labels(chip), without=without, alone=True, dates=None)[[0, -1]]
    seen = (np.isfinite(probability) & (chip.weight[[0, -1]] >= 1)).all(axis=0)
    with np.errstate(invalid="ignore"):
        said = probability >= 0.5
    lost = seen & true[0] & ~true[1]
    before = lost & said[0]
    return {
        "lost": float(lost.sum()),
        "ice_before": float(before.sum()),
        "detected": float((before & ~said[1]).sum()),
        "gone": float((lost & ~said[1]).sum()),
        "true_loss": float((seen & true[0]).sum()) - float((seen & true[1]).sum()),
        "told_loss": float((seen & said[0]).sum()) - float((seen & said[1]).sum()),
        "hit": float((seen & said & true).sum()),
        "either": float((seen & (said | true)).sum()),
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
        Of the pairs; ``loss`` and two dates.
    folder : Path
        Cache of chips.

    Returns
    -------
    DataFrame
        Columns ``terrain`` ("fresh", "stale", "off"), ``seed`` and those of `loss_scores`.
    """
    rows = []
    epochs: tuple[tuple[str, Literal["first", "last"]], ...] = (("fresh", "last"), ("stale", "first"), ("off", "first"))
    for terrain, epoch in epochs:
        chips = simulated_chips(seeds, replace(options, dem_year=epoch), folder=folder)
        without = static_modalities(model) if terrain == "off" else ()
        for seed, chip in zip(tqdm(seeds, desc=terrain, unit="scene"), chips, strict=True):
            rows.append({"terrain": terrain, "seed": seed, **loss_scores(model, chip, without)})
    return pd.DataFrame(rows)


def verdict(rows: pd.DataFrame) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Shares by terrain, each with a 95 % interval over scenes.

    Parameters
    ----------
    rows : DataFrame
        From `retreat_rows`.

    Returns
    -------
    dict
        Terrain -> ``pixels`` (of lost pixels that were called ice before, those called no ice after), ``gone`` (of all
        lost pixels, those called no ice after), ``area`` (told loss over true loss, pooled), ``iou``.
    """
    pairs = {
        "pixels": ("detected", "ice_before"),
        "gone": ("gone", "lost"),
        "area": ("told_loss", "true_loss"),
        "iou": ("hit", "either"),
    }
    found = {}
    for terrain, part in rows.groupby("terrain", sort=False):
        records = [{str(key): value for key, value in row.items()} for row in part.to_dict("records")]
        found[str(terrain)] = {name: interval(records, *pair) for name, pair in pairs.items()}
    return found


def record_of(model: Model, rows: pd.DataFrame, loss: float) -> TerrainRecord:
    """What `glaciercube.change` is to know of a model."""
    shares = verdict(rows)
    return TerrainRecord(
        model=model.contract.name,
        model_hash=model.hash,
        modalities=static_modalities(model),
        loss=loss,
        scenes=int(rows["seed"].nunique()),
        detected={terrain: found["pixels"] for terrain, found in shares.items()},
        area={terrain: found["area"] for terrain, found in shares.items()},
    )


def main() -> None:
    """Draw, predict, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fusion-unet")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--loss", type=float, default=0.3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--cloud", type=float, default=0.0)
    parser.add_argument("--skip", type=int, default=0, help="seeds to pass over")
    parser.add_argument("--folder", type=Path, default=Path("chips"))
    parser.add_argument("--record", action="store_true", help="keep the verdict for glaciercube.change")
    given = parser.parse_args()
    options = SequenceOptions(
        size=given.size, resolution=20.0, dates=2, loss=given.loss, cloud_cover=given.cloud, gaps=False
    )
    model = load_model(given.model)
    rows = retreat_rows(model, [SEEDS[given.skip + n] for n in range(given.scenes)], options, given.folder)
    if given.record:
        write_terrain_record(record_of(model, rows, given.loss), RECORDS)
    heads = ("terrain", "pixels detected", "called no ice", "area told / true", "IoU")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for terrain, shares in verdict(rows).items():
        lines.append(
            f"| {terrain} | " + " | ".join(f"{a:.3f} ({b:.3f} to {c:.3f})" for a, b, c in shares.values()) + " |"
        )
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
