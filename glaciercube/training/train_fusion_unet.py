"""Train ``fusion-unet`` on the simulated world and write its model folder.

``python -m glaciercube.training.train_fusion_unet --out FOLDER``: under 30 minutes on two cores, from nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import torch

from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.models.fusion_unet import fusion_contract
from glaciercube.models.registry import build_module, load_model, save_model
from glaciercube.simulate.scene import SceneOptions
from glaciercube.training.evaluate import Scores, evaluate, fit_scaling, predict_sample
from glaciercube.training.fit import FitOptions, fit
from glaciercube.training.samples import SUBSETS, Sample, draw_pool

__all__ = ["main"]

# Seeds far apart: no scene is in two sets, whatever their sizes.
_TRAIN_SEED, _CALIBRATION_SEED, _TEST_SEED = 0, 1_000_000, 2_000_000
_CARD = """# {name} {version}

Probability that a pixel is glacier ice, clean or debris-covered, not seasonal snow, from any subset of Sentinel-2
(six bands), Sentinel-1 (VV, VH) and terrain (slope, aspect, curvature, hillshade of the image's sun).

- {parameters:,} weights; receptive field {field} pixels on each side; pixels of {low:.0f} to {high:.0f} m;
  top-of-atmosphere or surface reflectance.
- Content hash `{hash}`; glaciercube {release}, torch {torch}.

## Trained on

A simulated world and nothing else: {train} scenes of {size} x {size} pixels drawn by `glaciercube.simulate`, from seed
{seed} on. Their spectra are drawn from class statistics (snow, shadowed snow, ice, rock and debris, water) of
labelled Sentinel-2 pixels of the Gulkana, South Cascade, Sperry and Wolverine glaciers in summer 2021; see
`glaciercube/simulate/spectra.json` for the figures and their source. No real image and no real outline was used to fit
or to calibrate. Relief, ice, snow, clouds, light and speckle are models of the real ones.

{steps} steps of {batch} samples, focal loss (gamma {gamma}) and Dice loss, AdamW, modality dropout, dihedral and
photometric augmentation; pixels under cloud at a fifth of the weight. The logit is divided by {temperature:.3f} and
shifted by {shift:+.3f}, fitted on {calibration} other scenes. Drawing took {draw_minutes:.1f} and fitting
{fit_minutes:.1f} minutes.

## Scores on simulated scenes that it never saw

{test} scenes, from seed {test_seed} on, clear pixels pooled; `bias` is the expected area over the true one, less one.
They say how well the model knows its own world, and are an upper bound for the real one.

| sensors | IoU | F1 | calibration error | bias |
| --- | --- | --- | --- | --- |
{rows}

The band ratio (red / SWIR > 2.8, blue > 0.15) on the same scenes: IoU {rule.iou:.3f}, F1 {rule.f1:.3f}.

## Known limits

- The terrain of a simulated scene is up to 15 years old and may keep ice that is gone; without an image the terrain
  alone tells little, and its probability is no evidence of change.
- Probabilities are calibrated on simulated scenes; on real ones the best threshold may lie elsewhere.
- Debris-covered ice is told from rock by its neighbourhood, surface texture and terrain, which real debris may not
  share.
{note}"""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Model folder to write.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder that keeps drawn scenes and the checkpoint.")
@click.option("--scenes", default=1400, show_default=True, help="Simulated scenes to train on.")
@click.option("--held-out", default=120, show_default=True, help="Scenes to calibrate on, and as many to score on.")
@click.option("--size", default=160, show_default=True, help="Rows and columns of a scene.")
@click.option("--steps", default=1700, show_default=True, help="Optimiser steps.")
@click.option("--seed", default=0, show_default=True, help="Of the weights and of the order of samples.")
@click.option("--workers", default=2, show_default=True, help="Processes that draw scenes.")
@click.option("--threads", default=2, show_default=True, help="Threads that fit; 1 where other work shares the cores.")
@click.option("--note", type=click.Path(path_type=Path, exists=True), help="Markdown to add to the model card.")
def main(
    *,
    out: Path,
    cache: Path | None,
    scenes: int,
    held_out: int,
    size: int,
    steps: int,
    seed: int,
    workers: int,
    threads: int,
    note: Path | None,
) -> None:
    """Draw scenes, fit, calibrate, score, and write the model folder."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = cache or Path(scratch)
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        contract = fusion_contract()
        started = time.monotonic()
        pools = _pools(contract, folder, scenes=scenes, held_out=held_out, size=size, workers=workers)
        drawn = time.monotonic()
        options = FitOptions(steps=steps, seed=seed)
        chips = [_chip(sample, contract) for sample in pools[0]]
        checkpoint = folder / f"fit-{seed}-{steps}.safetensors"
        module = fit(build_module(contract), contract, chips, options, checkpoint=checkpoint)
        fitted = time.monotonic()
        model = _calibrated(Model.from_module(contract, module), pools[1])
        table = evaluate(model, pools[2], SUBSETS)
        minutes = (drawn - started) / 60, (fitted - drawn) / 60
        card = _card(model, pools, options, table, minutes, size=size, note=note.read_text("utf-8") if note else "")
        save_model(model, out, card=card)
    for name, score in table.items():
        click.echo(f"{name:10s} IoU {score.iou:.3f}  F1 {score.f1:.3f}  ECE {score.ece:.3f}  bias {score.bias:+.3f}")


def _pools(
    contract: Contract, folder: Path, *, scenes: int, held_out: int, size: int, workers: int
) -> tuple[list[Sample], list[Sample], list[Sample]]:
    # One call for all: starting the processes costs more than a hundred scenes.
    pool = draw_pool(
        [*_seeds(_TRAIN_SEED, scenes), *_seeds(_CALIBRATION_SEED, held_out), *_seeds(_TEST_SEED, held_out)],
        contract,
        options=SceneOptions(size=size),
        folder=folder / "scenes",
        workers=workers,
    )
    return pool[:scenes], pool[scenes : scenes + held_out], pool[scenes + held_out :]


def _chip(sample: Sample, contract: Contract) -> Chip:
    variables = {
        name: values[None] if not modality.static else values
        for modality in contract.modalities
        for name, values in zip(modality.variables, sample.inputs[modality.name], strict=True)
    }
    return Chip(
        variables,
        sample.label[None].astype(np.uint8),
        {"other": ("other",), "glacier": ("clean_ice", "debris_covered_ice")},
        sample.weight[None],
        np.array(["2020-07-01"], "datetime64[s]"),
        10.0,
        str(sample.seed),
    )


def _seeds(first: int, count: int) -> range:
    return range(first, first + count)


def _calibrated(model: Model, samples: Sequence[Sample]) -> Model:
    """Model whose temperature and shift minimise the cross-entropy over every subset of sensors together."""
    shown = [(sample, subset) for sample in samples for subset in SUBSETS.values()]
    temperature, shift = fit_scaling(
        [predict_sample(model, sample, subset) for sample, subset in shown],
        [sample.label for sample, _ in shown],
        [sample.weight for sample, _ in shown],
    )
    parameters = dict(model.contract.parameters) | {"temperature": round(temperature, 4), "shift": round(shift, 4)}
    contract = dataclasses.replace(model.contract, parameters=parameters)
    module = build_module(contract)
    module.load_state_dict(model.module.state_dict())
    return Model.from_module(contract, module)


def _card(
    model: Model,
    pools: tuple[Sequence[Sample], Sequence[Sample], Sequence[Sample]],
    options: FitOptions,
    table: Mapping[str, Scores],
    minutes: tuple[float, float],
    *,
    size: int,
    note: str,
) -> str:
    contract = model.contract
    rows = [f"| {k} | {s.iou:.3f} | {s.f1:.3f} | {s.ece:.3f} | {s.bias:+.3f} |" for k, s in table.items()]
    return _CARD.format(
        name=contract.name,
        version=contract.version,
        parameters=sum(p.numel() for p in model.module.parameters()),
        field=contract.receptive_field,
        low=contract.resolution[0],
        high=contract.resolution[1],
        hash=model.hash,
        release=importlib.metadata.version("glaciercube"),
        torch=torch.__version__,
        train=len(pools[0]),
        calibration=len(pools[1]),
        test=len(pools[2]),
        size=size,
        seed=_TRAIN_SEED,
        test_seed=_TEST_SEED,
        steps=options.steps,
        batch=options.batch,
        gamma=options.gamma,
        temperature=contract.parameters["temperature"],
        shift=contract.parameters["shift"],
        draw_minutes=minutes[0],
        fit_minutes=minutes[1],
        rows="\n".join(rows),
        rule=_band_ratio_scores(pools[2], contract),
        note=f"\n{note}" if note else "",
    )


def _band_ratio_scores(samples: Sequence[Sample], contract: Contract) -> Scores:
    """Scores of the rule on the same scenes, whose optical modality has more bands than the rule takes."""
    rule = load_model("band-ratio")
    bands = contract.modality("optical").variables
    index = [bands.index(name) for name in rule.contract.modality("optical").variables]
    cut = [dataclasses.replace(s, inputs={"optical": s.inputs["optical"][index]}) for s in samples]
    return evaluate(rule, cut, {"S2": ("optical",)})["S2"]


if __name__ == "__main__":
    main()
