"""Front models on the calving fronts of Greenland: ``python -m glaciercube.bench.fronts --data FOLDER --out FOLDER``.

Every model is trained on the training folder with one recipe and one budget of processor time, and scored on the test
folder (Helheim). ``--leave GLACIER`` scores on a glacier of the training folder that is left out of the training
instead, which is how options are chosen, and leaves the test folder alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from glaciercube.bench.front_cells import cell_file, cells_of, keep_trainings
from glaciercube.bench.front_entrants import ENTRANTS, entrants_of
from glaciercube.bench.front_set import TRAIN, front_chips
from glaciercube.bench.front_training import Recipe
from glaciercube.bench.real_sets import real_folder
from glaciercube.bench.report import Section
from glaciercube.sentences import told

__all__ = ["main", "section"]

#: Processor seconds of a front model for each of the benchmark's: the others are trained once per fold.
_SHARE: Final = 10.0
_PUBLISHED = (
    ("U-Net of Mohajerani et al. (2019)", "1.97"),
    ("second hand, Mohajerani et al. (2019)", "1.89"),
)
COLUMNS: Final = (
    "model",
    "mean distance px [95%]",
    "mean distance m [95%]",
    "paired px [95%]",
    "paired, sides given, px [95%]",
    "without front",
    "weights",
    "s/Mpx",
    "steps",
)

#: Processor seconds of each training, and their number, of the front model once more, beyond the benchmark's budget.
LONGER, LONGER_TRAININGS = 900.0, 2

_NOTES: Final = (
    (
        "In brackets: processor seconds of the training; all but one have the same. The rows with more were begun "
        "after the others had been read: a second look at the same ten images."
    ),
    (
        "HED-UNet and AMD-HookNet are published with 100 and 300 passes over the training images, the U-Net with 60 to "
        "100; the steps say how little of that these budgets are. A step is 8 crops."
    ),
    "Trained on Jakobshavn, Kangerlussuaq and Sverdrup (123 chips), scored on images of another glacier.",
    "Labels: the front, and its two sides as the line drawn on to the margins parts them; the U-Net learns the first.",
    "Mean distance: from every pixel of either line to the nearest of the other, over all images (CaFFe).",
    "Paired: both lines walked at the same pace in 1000 steps, without what is nearer than 500 m to their ends.",
    (
        "Sides given, as for the published errors: the line is sought from side to side of the fjord, and 500 m at the "
        "sides are left out. Those of the paper are not published: here the columns where the drawn front begins and "
        "ends."
    ),
    "Images without a probable pixel have no line, and are left out of the means.",
    "Images are seen in three sizes, as they are and mirrored (s/Mpx counts all); 'seen once' is the same without.",
    "Intervals: bootstrap over images. All are of one glacier: they say nothing of others.",
)


def section(
    data: Path | None,
    out: Path,
    *,
    seconds: float,
    quick: bool = False,
    models: Sequence[str] = (),
    kept: bool = False,
) -> Section:
    """The calving fronts' part of the benchmark.

    Parameters
    ----------
    data : Path or None
        Folder of the real sets; without it there are no rows but the published ones.
    out : Path
        Where each trained model and its cell are kept: a second call trains nothing.
    seconds : float
        Processor seconds per model and fold of the benchmark; a front model, which is trained once, has 10 times that.
    quick : bool
        A step each on a few chips, to see that all parts work.
    models : sequence of str
        Names of those entrants alone; where empty, all.
    kept : bool
        Only what was trained and scored before.

    Returns
    -------
    Section
        Two rows for each model, of the mean of all views and of one training that sees images once; the record has the
        cells (`glaciercube.bench.front_cells.run_entrant`).

    Raises
    ------
    ConfigError
        If there is no model of a name, or the folder of the fronts is not as it was published.
    """
    cells = []
    if data is not None and (data / "calving_fronts").is_dir():
        recipe = Recipe(seconds=_SHARE * seconds)
        if kept:
            models = [e.name for e in ENTRANTS if cell_file(out, e, recipe).is_file()]
        if models or not kept:
            cells = cells_of(data, out, replace(recipe, steps=1, batch=2) if quick else recipe, "", models, few=quick)
        longer, best = replace(recipe, seconds=LONGER), ENTRANTS[0]
        there = cell_file(out, best, longer, trainings=LONGER_TRAININGS).is_file()
        if there or not (quick or kept):
            cells += cells_of(data, out, longer, "", (best.name,), trainings=LONGER_TRAININGS)
    return _section(cells, "Helheim (test folder)")


def _section(cells: Sequence[Mapping[str, Any]], title: str) -> Section:
    rows = []
    for cell in cells:
        rows.append(tuple(_row(f"{cell['title']} ({cell['seconds']:.0f} s)", cell)))
        spent = cell["recipe"]["seconds"]
        rows.append(tuple(_row(f"{cell['model']}, one training, seen once ({spent:.0f} s)", cell["once"])))
    blank = ("",) * (len(COLUMNS) - 5)
    rows += [(name, "", "", "", pixels, *blank) for name, pixels in _PUBLISHED]
    return Section(f"Calving fronts: {title}", COLUMNS, tuple(rows), _NOTES, {"cells": list(cells)})


def _row(title: str, cell: Mapping[str, Any]) -> Iterable[str]:
    score = cell["score"]
    yield title
    crossed = "" if score["crossed"] == score["images"] else f" over {score['crossed']} images"
    for key, interval, form, beside in (
        ("distance_px", "interval_px", ".2f", ""),
        ("distance_m", "interval_m", ".0f", ""),
        ("paired_px", "paired_interval_px", ".2f", ""),
        ("between_px", "between_interval_px", ".2f", crossed),
    ):
        if score[key] is None:
            yield "no front"
        else:
            yield f"{score[key]:{form}} [{score[interval][0]:{form}}, {score[interval][1]:{form}}]{beside}"
    yield f"{score['missing']} of {score['images']}"
    yield f"{cell['weights'] / 1e6:.2f} M"
    yield f"{cell['seconds_per_megapixel']:.1f}"
    yield str(cell["steps"])


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder that holds calving_fronts.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where models and the table are written.")
@click.option("--seconds", default=400.0, show_default=True, help="Processor seconds per model.")
@click.option("--steps", type=int, help="No more steps than this.")
@click.option("--seed", default=0, show_default=True)
@click.option("--trainings", default=1, show_default=True, help="From other seeds, whose maps are averaged.")
@click.option("--leave", type=click.Choice(TRAIN), help="Score on this glacier instead of the test folder.")
@click.option("--train-only", is_flag=True, help="Keep the trainings, score nothing.")
@click.option("--models", default="", help="Only these names, with commas between.")
@told
def main(
    *,
    data: Path | None,
    out: Path,
    seconds: float,
    steps: int | None,
    seed: int,
    trainings: int,
    leave: str | None,
    train_only: bool,
    models: str,
) -> None:
    """Train front models, score them on the test folder, and write fronts.md."""
    import torch

    torch.set_num_threads(1)
    folder, names = real_folder(data), tuple(filter(None, models.split(",")))
    recipe = Recipe(seconds=seconds, steps=steps, seed=seed)
    if train_only:
        chips = [chip for chip in front_chips(folder) if chip.place != leave]
        for entrant in entrants_of(names):
            keep_trainings(entrant, chips, recipe, out / "trainings", trainings=trainings)
        return
    cells = cells_of(folder, out, recipe, leave or "", names, trainings=trainings)
    table = _section(cells, f"{leave} (left out)" if leave else "Helheim (test folder)")
    lines = ["| " + " | ".join(row) + " |" for row in (table.columns, ("---",) * len(table.columns), *table.rows)]
    text = "\n".join([f"## {table.title}", "", *lines, "", *(f"- {note}" for note in table.notes), ""])
    (out / f"fronts-{leave}.md" if leave else out / "fronts.md").write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
