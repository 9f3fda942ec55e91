"""Measure the area errors of the shipped models on simulated glaciers.

``python -m glaciercube.training.calibrate_area --out FILE``. Each place is simulated, written as COGs and STAC items,
found, loaded, composed and predicted as a user's data would be. One glacier and one year (or date) of each place gives
one error, so that errors of one scene never count twice.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import xarray as xr

from glaciercube.catalog import find
from glaciercube.change import AreaOptions, Calibration, clear_maps, error_scale, write_calibrations
from glaciercube.cube import compose, load
from glaciercube.errors import EmptySearchError, ModelError
from glaciercube.inference import predict
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.simulate.stac import write_catalog
from glaciercube.simulate.world import World, WorldOptions, simulate_world

__all__ = ["calibrate", "place_scores"]

# Seeds of calibration places; training and the demonstration use others.
FIRST_SEED = 900_000
MODELS = ("fusion-unet", "band-ratio", "ndsi")
# Variables that a user without that sensor, or without known sun angles, does not have.
_WITHOUT = {
    "sentinel-1": ("vv", "vh", "vv_db", "vh_db"),
    "sun": ("hillshade",),
    "dem": ("elevation", "slope", "aspect_sin", "aspect_cos", "curvature", "hillshade"),
    "sentinel-2": ("blue", "green", "red", "nir", "swir16", "swir22", "optical_flags", "hillshade"),
}
_SUBSETS = ((), ("sun",), ("sentinel-1",), ("sentinel-1", "sun"), ("dem",), ("dem", "sentinel-1"), ("sentinel-2",))
_LEAST_CLEAR = 0.3


@dataclass(frozen=True)
class Score:
    """One glacier's error in units of `error_scale`, the share called ice, and what they belong to."""

    model: str
    model_hash: str
    modalities: tuple[str, ...]
    every: str
    value: float
    share: float


def calibrate(places: int, *, workers: int = 2, progress: bool = True) -> list[Calibration]:
    """Measure area errors over many simulated places.

    Parameters
    ----------
    places : int
        How many; each gives at most one error per model, inputs and kind of area.
    workers : int
        Processes.
    progress : bool
        Show a progress bar.
    """
    from tqdm.auto import tqdm

    scores: list[Score] = []
    seeds = range(FIRST_SEED, FIRST_SEED + places)
    # Spawned, since a fork of a process with threads of torch can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for found in tqdm(pool.map(place_scores, seeds), total=places, desc="calibrating", disable=not progress):
            scores += found
    return list(_gather(scores))


def place_scores(seed: int) -> list[Score]:
    """Errors of all models and inputs on one simulated place; empty where it has no glacier to speak of.

    Parameters
    ----------
    seed : int
        Which place.
    """
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, 7])
    first = int(rng.integers(2016, 2020))
    options = WorldOptions(
        seed=seed,
        size=96,
        resolution=float(rng.choice([10, 20, 30])),
        years=(first, first + int(rng.integers(1, 7))),
        latitude=float(rng.choice([-1, 1]) * rng.uniform(25, 72)),
        longitude=float(rng.uniform(-170, 170)),
        cloud=float(rng.uniform(0.1, 0.6)),
        dem_year=first - int(rng.integers(0, 12)),
    )
    world = simulate_world(options)
    if not len(world.outlines):
        return []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The band ratio says that it is meant for top-of-atmosphere reflectance; that is part of what is measured.
        warnings.simplefilter("ignore")
        catalog = write_catalog(world, Path(folder))
        try:
            scenes = find(catalog, world.region, f"{options.years[0]}/{options.years[-1]}")
        except EmptySearchError:
            return []
        cube = compose(load(scenes, world.region)).load()
        return [score for name in MODELS for score in _model_scores(load_model(name), cube, world, seed)]


def _model_scores(model: Model, cube: xr.Dataset, world: World, seed: int) -> Iterator[Score]:
    known: set[tuple[str, ...]] = set()
    for missing in _SUBSETS:
        part = cube.drop_vars([name for sensor in missing for name in _WITHOUT[sensor]], errors="ignore")
        try:
            modalities = tuple(sorted(m.name for m in model.contract.select([str(v) for v in part.data_vars])))
        except ModelError:
            continue  # this model cannot do without that sensor
        if modalities in known:
            continue
        known.add(modalities)
        prediction = predict(part, model).compute(scheduler="synchronous")
        for every in ("observation", "year"):
            found = _one_score(prediction, world, AreaOptions(every=every), seed)
            if found is not None:
                yield Score(model.contract.name, model.hash, modalities, every, *found)


def _one_score(prediction: xr.Dataset, world: World, options: AreaOptions, seed: int) -> tuple[float, float] | None:
    """Error and share of one glacier, drawn by the seed alone, so that all models are measured on the same one."""
    rng = np.random.default_rng([seed, 8])
    labels = world.labels
    glacier = int(rng.integers(1, labels.max() + 1))
    inside = labels == glacier
    maps = list(clear_maps(prediction, options))
    time, probability, _ = maps[int(rng.integers(len(maps)))]
    clear = inside & np.isfinite(probability)
    if clear.sum() < _LEAST_CLEAR * inside.sum():
        return None
    truth = world.truth["ice"].sel(year=time.year).to_numpy()
    estimate = (probability > options.threshold) & clear
    doubt = np.minimum(probability, 1 - probability)[clear].sum()
    error = ((truth & clear).sum() - estimate.sum()) / error_scale(doubt, clear.sum())
    return float(error), float(estimate.sum() / clear.sum())


def _gather(scores: Iterable[Score]) -> Iterator[Calibration]:
    groups: dict[tuple[str, str, tuple[str, ...], str], list[tuple[float, float]]] = {}
    for score in scores:
        key = (score.model, score.model_hash, score.modalities, score.every)
        groups.setdefault(key, []).append((score.value, score.share))
    for key, pairs in sorted(groups.items()):
        values, shares = zip(*sorted(pairs), strict=True)
        yield Calibration(*key, values, shares, source="simulated glaciers, surface reflectance, 10-30 m")


def main() -> None:
    """Run the calibration from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--places", type=int, default=300, help="simulated places (default 300)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    arguments = parser.parse_args()
    write_calibrations(calibrate(arguments.places, workers=arguments.workers), arguments.out)


if __name__ == "__main__":
    main()
