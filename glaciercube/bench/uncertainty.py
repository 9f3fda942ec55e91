"""Whether adapted batch statistics, dropout at prediction and ensembles help: on real scenes and on simulated ones.

``python -m glaciercube.bench.uncertainty --data FOLDER --cache FOLDER``: the model as it is, adapted to each scene with
several shares, with dropout at several rates, and, of several ``--member`` folders, each and their ensemble. Real:
Vinciguerra, three summers. Simulated: scenes of the other family of generators, all sensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from glaciercube.bench.real_sets import vinciguerra
from glaciercube.evaluation.predict import PredictOptions, cases_of
from glaciercube.evaluation.reliability import NEAR, pixels_of, reliability
from glaciercube.evaluation.segmentation import segmentation
from glaciercube.models import load_model
from glaciercube.models.adapt import adapt, block_of
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.models.dropout import with_dropout
from glaciercube.models.ensemble import ensemble
from glaciercube.sentences import told
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["FIRST_SEED", "row", "table"]

#: Seeds of the simulated scenes, of family b.
FIRST_SEED = 6_300_000
SHARES = (0.1, 0.3, 0.5, 1.0)
RATES = (0.05, 0.1)
PASSES = 10


def table(model: Model, sets: Sequence[tuple[Sequence[Chip], PredictOptions]], members: Sequence[Model] = ()) -> str:
    """Markdown: a row per way of predicting, a cell per set."""
    ways: list[tuple[str, Callable[[Chip], Model]]] = [("as it is", lambda _: model)]
    ways += [(f"statistics adapted, {share:.0%}", _adapted(model, share)) for share in SHARES]
    for rate in RATES:
        dropped = with_dropout(model, passes=PASSES, rate=rate)
        ways.append((f"dropout {rate:.0%}, {PASSES} passes", _always(dropped)))
    for number, member in enumerate(members, start=1):
        ways.append((f"member {number}", _always(member)))
    if len(members) > 1:
        ways.append((f"ensemble of {len(members)}", _always(ensemble(members))))
    return "\n".join(f"| {name} | {' | '.join(row(way, *each) for each in sets)} |" for name, way in ways)


def row(way: Callable[[Chip], Model], chips: Sequence[Chip], options: PredictOptions) -> str:
    """IoU, calibration errors and Brier score of one way on one set."""
    cases = [case for chip in chips for case in cases_of(way(chip), [chip], options)]
    near = reliability(*pixels_of(cases, near=NEAR))
    all_ = reliability(*pixels_of(cases))
    return f"{segmentation(cases, 0.5).pooled.iou:.3f} | {all_.ece:.3f} | {near.ece:.3f} | {all_.brier:.4f}"


def _adapted(model: Model, share: float) -> Callable[[Chip], Model]:
    return lambda chip: adapt(model, [block_of(model, chip)], share=share)


def _always(model: Model) -> Callable[[Chip], Model]:
    return lambda _: model


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder of the real sets.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder that keeps drawn scenes.")
@click.option("--model", default="fusion-unet", show_default=True, help="Model or its folder.")
@click.option("--member", "members", multiple=True, help="Folder of a member of the ensemble; repeat it.")
@click.option("--scenes", default=30, show_default=True, help="Simulated scenes.")
@told
def main(*, data: Path | None, cache: Path, model: str, members: tuple[str, ...], scenes: int) -> None:
    """Print the table."""
    import torch

    torch.set_num_threads(1)
    # What may be refused comes before what takes long.
    whole, parts = load_model(model), [load_model(each) for each in members]
    sets: list[tuple[Sequence[Chip], PredictOptions]] = []
    names = []
    if data is not None:
        sets.append((vinciguerra(data / "vinciguerra").chips, PredictOptions(positive=("glacier",))))
        names.append("Vinciguerra")
    seeds = range(FIRST_SEED, FIRST_SEED + scenes)
    sets.append((simulated_chips(seeds, SequenceOptions(size=160, family="b"), folder=cache), PredictOptions()))
    names.append("simulated, family b")
    columns = [f"{name} {what}" for name in names for what in ("IoU", "ECE", f"ECE within {NEAR:.0f} m", "Brier")]
    click.echo(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    click.echo(table(whole, sets, parts))


if __name__ == "__main__":
    main()
