"""Front models trained and scored: trainings and scores are kept, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from glaciercube.bench.front_entrants import Entrant, entrants_of
from glaciercube.bench.front_set import fjord_sides, front_chips
from glaciercube.bench.front_training import Recipe, Trained, train
from glaciercube.bench.keeping import keep, whole
from glaciercube.bench.scoring import seconds_per_megapixel
from glaciercube.change.fronts import FrontOptions
from glaciercube.evaluation.front_cases import front_cases
from glaciercube.evaluation.fronts import FrontCase, score_fronts
from glaciercube.evaluation.jsonable import jsonable
from glaciercube.models.architectures.segmenter import Segmenter
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.models.ensemble import ensemble
from glaciercube.models.registry import save_model
from glaciercube.models.views import with_views

__all__ = ["cell_file", "cells_of", "keep_trainings", "run_entrant"]


def cell_file(out: Path, entrant: Entrant, recipe: Recipe, leave: str = "", trainings: int = 1) -> Path:
    """Where the cell of a model is kept; its folder has the same name without the suffix."""
    key = f"{entrant.name}-{leave or 'test'}-{recipe.seconds:.0f}s-{recipe.steps or 'all'}-{recipe.seed}"
    return out / f"{key}{f'-{trainings}' if trainings > 1 else ''}.json"


def cells_of(
    data: Path,
    out: Path,
    recipe: Recipe,
    leave: str = "",
    models: Sequence[str] = (),
    *,
    few: bool = False,
    trainings: int = 1,
) -> list[dict[str, Any]]:
    """Cells of some models, trained and scored, or read from where they were kept.

    Parameters
    ----------
    data : Path
        That holds ``calving_fronts``.
    out : Path
        Where cells, models and (in ``trainings``) trainings are kept.
    recipe : Recipe
        Of all of them; their crops are their own.
    leave : str
        A glacier of the training folder that is left out of the training and scored; else the test folder is scored.
    models : sequence of str
        Names; where empty, all.
    few : bool
        A few chips alone.
    trainings : int
        Of each model, from other seeds, whose maps are averaged.

    Returns
    -------
    list of dict
        As `run_entrant` gives them.

    Raises
    ------
    ConfigError
        If there is no model of a name, or the folder does not hold the set.
    """
    chips = front_chips(data)
    train_on = [chip for chip in chips if chip.place != leave]
    test_on = [chip for chip in chips if chip.place == leave] if leave else list(front_chips(data, "test"))
    if few:
        train_on, test_on = train_on[::20], test_on[:2]
    cells = []
    for entrant in entrants_of(models):
        path = cell_file(out, entrant, recipe, leave, trainings)

        def measure(entrant: Entrant = entrant, path: Path = path) -> Any:
            made, cell = run_entrant(entrant, train_on, test_on, recipe, trainings=trainings, kept=out / "trainings")
            if entrant.name != "plain-unet":  # of the benchmark alone: no folder says how to build it
                save_model(made, path.with_suffix(""))
            return jsonable(cell)

        cells.append(keep(path, measure))
    return cells


def run_entrant(
    entrant: Entrant,
    train_on: Sequence[Chip],
    test_on: Sequence[Chip],
    recipe: Recipe,
    *,
    trainings: int = 1,
    kept: Path | None = None,
) -> tuple[Model, dict[str, Any]]:
    """Train an entrant, once or several times from other seeds, and score the mean of what they say.

    Each training is kept in the folder ``kept``, and one that is there is not repeated.

    Returns
    -------
    (Model, dict)
        What was scored: the mean over trainings and views, as one model. Its cell: scores, also of its first training
        seeing images once as they are; weights, seconds per megapixel, steps, and the found fronts.
    """
    made = keep_trainings(entrant, train_on, recipe, kept, trainings=trainings)
    first, options = made[0][0], FrontOptions()
    mean = ensemble([model for model, _ in made], name=f"{entrant.name}-mean") if trainings > 1 else first
    mean = with_views(mean) if first.contract.windows is None else mean

    def found(model: Model) -> list[FrontCase]:
        return front_cases(model, test_on, options=options, sides=fjord_sides)

    cases = found(mean)
    return mean, {
        "model": entrant.name,
        "title": entrant.title + (f", mean of {trainings} trainings" if trainings > 1 else ""),
        "score": asdict(score_fronts(cases)),
        "weights": mean.module.parameter_count,
        "seconds_per_megapixel": seconds_per_megapixel(mean),
        "steps": sum(trained.steps for _, trained in made),
        "seconds": sum(trained.seconds for _, trained in made),
        "once": {
            "score": asdict(score_fronts(found(first))),
            "weights": first.module.parameter_count,
            "seconds_per_megapixel": seconds_per_megapixel(first),
            "steps": made[0][1].steps,
        },
        "recipe": asdict(recipe),
        "threshold": options.threshold,
        "fronts": {case.name: np.asarray(case.found).tolist() for case in cases},
        "between": {case.name: np.asarray(case.between).tolist() for case in cases},
    }


def keep_trainings(
    entrant: Entrant, chips: Sequence[Chip], recipe: Recipe, folder: Path | None, *, trainings: int = 1
) -> list[tuple[Model, Trained]]:
    """Train an entrant from so many seeds, that of the recipe first; what the folder holds is not repeated."""
    return [
        _trained(entrant, chips, replace(recipe, size=entrant.size, seed=seed), folder)
        for seed in range(recipe.seed, recipe.seed + trainings)
    ]


def _trained(entrant: Entrant, chips: Sequence[Chip], recipe: Recipe, folder: Path | None) -> tuple[Model, Trained]:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    torch.manual_seed(recipe.seed)
    contract, module = entrant.contract(), entrant.module()
    if folder is None:
        made = _train(entrant, module, contract, chips, recipe)
        return Model.from_module(contract, made.module), made
    asked = json.dumps([asdict(recipe), sorted(chip.name for chip in chips)])
    path = folder / f"{entrant.name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}.safetensors"
    if path.is_file():
        module.load_state_dict(load_file(path))
        with safe_open(path, "pt") as opened:
            told_of = opened.metadata()
        made = Trained(module, int(told_of["steps"]), float(told_of["seconds"]))
    else:
        made = _train(entrant, module, contract, chips, recipe)
        weights = {name: each.contiguous() for name, each in made.module.state_dict().items()}
        with whole(path) as part:
            save_file(weights, part, {"steps": str(made.steps), "seconds": str(made.seconds)})
    return Model.from_module(contract, made.module), made


def _train(entrant: Entrant, module: Segmenter, contract: Contract, chips: Sequence[Chip], recipe: Recipe) -> Trained:
    form = "{desc} {percentage:.0f}% {elapsed} {postfix}"
    with tqdm(total=1.0, desc=entrant.title, bar_format=form, mininterval=10.0) as bar:

        def told(done: float, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(done - bar.n)

        return train(module, contract, chips, recipe, told)
