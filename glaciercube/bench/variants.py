"""Priors that a network is built with, each trained with it and without: `fusion-unet` from scratch, on real sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from glaciercube.bench.cells import Budget, run_module
from glaciercube.bench.entrants import Entrant, scratch_contract
from glaciercube.bench.real_sets import REAL_SETS, TERRAIN
from glaciercube.bench.report import Section
from glaciercube.bench.sets import BenchSet, Fold
from glaciercube.bench.simulated_set import simulated
from glaciercube.models.base import GlacierModule
from glaciercube.models.contract import Contract
from glaciercube.models.registry import build_module

__all__ = ["TRIALS", "Trial", "Variant", "variants_section"]

_HEADS: Final = ("prior", "set", "network", "IoU by fold (mean over seeds)", "mean IoU", "difference, by seed")


@dataclass(frozen=True)
class Variant:
    """One way to build the network.

    Attributes
    ----------
    name : str
        In the table.
    without : tuple of str
        Groups of the set's layers that are left out.
    instead : mapping of str to tuple of str
        Groups that are added, or take the place of those of the same name.
    parameters : mapping
        Of the contract, beside the usual ones.
    """

    name: str
    without: tuple[str, ...] = ()
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A prior on one set: all variants are compared with the first.

    Attributes
    ----------
    title : str
        What is asked.
    bench : str
        Name of a real set.
    simulated : bool
        Whether to train on simulated scenes, and score all of the set; else on each of its folds.
    budget : Budget
        Of each variant, fold and seed.
    variants : tuple of Variant
        The first is without the prior.
    seeds : tuple of int
        Each is a training of its own.
    """

    title: str
    bench: str
    budget: Budget
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (1, 2)
    simulated: bool = False


def _residual(seconds: float, size: int, *, simulated: bool = False) -> Trial:
    on = "simulated scenes" if simulated else "the other years"
    return Trial(
        f"optical head as a residual on the band ratio's logit, {seconds:g} s on {on}",
        "vinciguerra",
        Budget(seconds=seconds, batch=4, size=size, least_passes=0.0, least_steps=0.0),
        (Variant("without", parameters={"residual": False}), Variant("with")),
        simulated=simulated,
    )


#: Relief is elevation against its surroundings; absolute elevation is what carries over to no other range.
TRIALS: Final = (
    _residual(20.0, 64),
    _residual(2.0, 64),
    _residual(30.0, 128, simulated=True),
    Trial(
        "elevation: relative to its surroundings, or absolute, 20 s on the other tiles",
        "debris_hma",
        Budget(seconds=20.0, batch=4, size=128, least_passes=0.0, least_steps=0.0),
        (
            Variant("neither", without=("relief",)),
            Variant("relative (relief)"),
            Variant("absolute", without=("relief",), instead={"terrain": (*TERRAIN, "elevation")}),
        ),
        seeds=(1,),
    ),
)


def variants_section(data: Path, out: Path, scenes: Path, *, quick: bool = False, kept: bool = False) -> Section:
    """Train what was not trained before, and compare.

    Parameters
    ----------
    data : Path
        Folder of the real sets.
    out : Path
        Where cells are kept.
    scenes : Path
        Where simulated scenes are.
    quick : bool
        One fold of each set, next to no training.
    kept : bool
        Only what was found before.
    """
    rows: list[tuple[str, ...]] = []
    cells: list[dict[str, Any]] = []
    quickly = {"quick": quick, "kept": kept}
    for trial in TRIALS:
        bench = REAL_SETS[trial.bench](data, small=quick)
        worlds = simulated(scenes, small=quick) if trial.simulated else None
        found = trial_cells(trial, bench, out / "cells", worlds, **quickly)
        rows += trial_rows(trial, found)
        cells += found
    return Section(
        "Physics: priors that a network is built with (real)",
        _HEADS,
        tuple(rows),
        (
            (
                "fusion-unet from scratch, with equal processor time for each variant, fold and seed; folds, labels "
                "and layers are those of the sets above, simulated scenes those that the set below trains on"
            ),
            "differences are of the mean IoU over all folds, one for each seed of weights, order and augmentation",
        ),
        {"cells": cells},
    )


def trial_cells(
    trial: Trial,
    bench: BenchSet,
    folder: Path,
    worlds: BenchSet | None = None,
    *,
    quick: bool = False,
    kept: bool = False,
) -> list[dict[str, Any]]:
    """Each variant with each seed on each fold, as `glaciercube.bench.cells.run_module`, with ``variant``, ``seed``."""
    folds = list(bench.folds())[-1:] if quick else list(bench.folds())
    if worlds is not None:
        train = next(worlds.folds()).train
        folds = [Fold("trained on simulated scenes", train, bench.chips)]
    budget = replace(trial.budget, seconds=0.3, side=64) if quick else trial.budget
    found = []
    for seed in trial.seeds[:1] if quick else trial.seeds:
        for fold in folds:
            for variant in trial.variants:
                own = replace(budget, seed=seed)
                entrant = Entrant(f"fusion-unet, {variant.name}", "scratch", "fusion-unet")
                cell = run_module(
                    entrant, bench, fold, own, folder, made=untrained(variant, bench, fold.train, own), kept=kept
                )
                found.append(cell | {"trial": trial.title, "variant": variant.name, "seed": seed})
    return found


def untrained(
    variant: Variant, bench: BenchSet, chips: Sequence[Any], budget: Budget
) -> tuple[Contract, GlacierModule]:
    """Contract and untrained module of a variant."""
    import torch

    layers = {name: group for name, group in bench.modalities.items() if name not in variant.without}
    contract = scratch_contract("fusion-unet", {**layers, **variant.instead}, chips, budget.size)
    contract = replace(contract, parameters={**contract.parameters, **variant.parameters})
    torch.manual_seed(budget.seed)
    return contract, build_module(contract)


def trial_rows(trial: Trial, cells: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of a trial; of what was not run, none."""
    scored = [cell for cell in cells if "scores" in cell]
    scores = {(cell["variant"], cell["seed"], cell["fold"]): float(cell["scores"]["iou"]) for cell in scored}
    folds, seeds = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ("fold", "seed"))
    tables = {}
    for variant in trial.variants:
        values = [[scores.get((variant.name, seed, fold), np.nan) for fold in folds] for seed in seeds]
        tables[variant.name] = np.array(values)
    rows: list[tuple[str, ...]] = []
    first = tables[trial.variants[0].name]
    for number, variant in enumerate(trial.variants):
        table = tables[variant.name]
        if not np.isfinite(table).all():
            continue
        apart = " / ".join(f"{value:+.3f}" for value in (table - first).mean(axis=1)) if number else ""
        by_fold = " / ".join(f"{value:.2f}" for value in table.mean(axis=0))
        head = ("", "") if rows else (trial.title, trial.bench)
        rows.append((*head, variant.name, by_fold, f"{table.mean():.3f}", apart))
    return rows
