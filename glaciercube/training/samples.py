"""Samples: scenes of the simulated world as a model's inputs, kept on disk between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from glaciercube.cube.terrain import hillshade, terrain_variables
from glaciercube.models.contract import Contract
from glaciercube.simulate.scene import SceneOptions, draw_scene

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SUBSETS", "FloatArray", "Sample", "draw_pool", "sample_from_scene"]

FloatArray: TypeAlias = npt.NDArray[np.float32]

#: Subsets of sensors that a model may meet, by the modalities that each gives; terrain brings the hillshade with it
#: where there is an image whose sun is known.
SUBSETS: Mapping[str, tuple[str, ...]] = {
    "S2": ("optical",),
    "S2+DEM": ("optical", "illumination", "terrain"),
    "S1": ("radar",),
    "S1+DEM": ("radar", "terrain"),
    "S2+S1": ("optical", "radar"),
    "S2+S1+DEM": ("optical", "illumination", "radar", "terrain"),
    "DEM": ("terrain",),
}

# A cloud hides the ice from the optical sensors alone: the pixel still teaches, at a fifth of a clear one's weight.
CLOUD_WEIGHT = 0.2
_FLOOR_POWER = 1e-5  # linear backscatter; -50 dB, below the noise floor of Sentinel-1


@dataclass(frozen=True)
class Sample:
    """One scene as a model's inputs, with its truth.

    Attributes
    ----------
    inputs : mapping of str to (channel, y, x) float32
        By modality, in the physical units of the contract, NaN where missing. Rounded to half precision on disk
        and in a pool: 0.05% of a reflectance, 0.01 dB, well under the noise of either.
    label : (y, x) bool
        Glacier ice, clean or debris-covered.
    weight : (y, x) float32
        Weight of each pixel in the loss.
    seed : int
        What the scene was drawn from.
    """

    inputs: Mapping[str, npt.NDArray[np.floating]]
    label: npt.NDArray[np.bool_]
    weight: FloatArray
    seed: int


def sample_from_scene(scene: xr.Dataset, contract: Contract, seed: int) -> Sample:
    """Turn a simulated scene into a model's inputs, by the code that real cubes go through.

    Parameters
    ----------
    scene : xarray.Dataset
        As from `glaciercube.simulate.scene.draw_scene`, (y, x).
    contract : Contract
        Which variables, in which order.
    seed : int
        Kept with the sample.
    """
    values: dict[str, npt.NDArray[np.floating]] = {str(name): scene[name].to_numpy() for name in scene.data_vars}
    terrain = terrain_variables(values["elevation"], float(scene.attrs["resolution"]))
    values |= terrain
    values["hillshade"] = hillshade(
        terrain["slope"],
        terrain["aspect_sin"],
        terrain["aspect_cos"],
        sun_azimuth=float(scene.attrs["sun_azimuth"]),
        sun_elevation=float(scene.attrs["sun_elevation"]),
    )
    values |= {f"{name}_db": 10.0 * np.log10(np.maximum(values[name], _FLOOR_POWER)) for name in ("vv", "vh")}
    inputs = {
        modality.name: np.stack([values[name] for name in modality.variables]).astype(np.float32)
        for modality in contract.select(values)
    }
    clear = ~np.asarray(values["cloud"], dtype=bool)
    return Sample(
        inputs=inputs,
        label=np.asarray(values["glacier"], dtype=bool),
        weight=np.where(clear, 1.0, CLOUD_WEIGHT).astype(np.float32),
        seed=seed,
    )


def draw_pool(
    seeds: Sequence[int],
    contract: Contract,
    *,
    options: SceneOptions,
    folder: Path,
    workers: int = 2,
) -> list[Sample]:
    """Draw scenes in parallel processes, or read those drawn before.

    Parameters
    ----------
    seeds : sequence of int
        One scene each.
    contract : Contract
        Whose inputs to make.
    options : SceneOptions
        Of every scene.
    folder : Path
        Cache; scenes of another simulator, option or contract are never mistaken for these.
    workers : int
        Processes.

    Returns
    -------
    list of Sample
        In the order of the seeds.
    """
    key = hashlib.sha256(f"{_simulator_hash()}|{options!r}|{contract.modalities!r}".encode()).hexdigest()[:16]
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in seeds if not (place / f"{seed}.npz").is_file()]
    if missing:
        # Spawned, not forked: a fork of a process whose libraries run threads can hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = pool.map(
                _draw_one, missing, [contract] * len(missing), [options] * len(missing), [place] * len(missing)
            )
            for _ in tqdm(jobs, total=len(missing), desc="drawing scenes", unit="scene"):
                pass
    return [_read(place / f"{seed}.npz", seed) for seed in seeds]


def _draw_one(seed: int, contract: Contract, options: SceneOptions, place: Path) -> None:
    sample = sample_from_scene(draw_scene(seed, options), contract, seed)
    part = place / f"{seed}.part"
    arrays: dict[str, npt.NDArray[np.generic]] = {
        f"in_{name}": values.astype(np.float16) for name, values in sample.inputs.items()
    }
    arrays |= {"label": sample.label, "weight": sample.weight}
    with part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    part.rename(place / f"{seed}.npz")


def _read(path: Path, seed: int) -> Sample:
    with np.load(path, allow_pickle=False) as stored:
        inputs = {key.removeprefix("in_"): stored[key] for key in stored.files if key.startswith("in_")}
        return Sample(inputs=inputs, label=stored["label"], weight=stored["weight"], seed=seed)


@cache
def _simulator_hash() -> str:
    """Hash over the simulator's own files: a cached scene must not outlive the code that drew it."""
    digest = hashlib.sha256()
    for package in ("glaciercube.simulate", "glaciercube.training"):
        for entry in sorted(files(package).iterdir(), key=lambda e: e.name):
            wanted = entry.name.endswith((".py", ".json")) and package.endswith("simulate")
            if wanted or entry.name == "samples.py":
                digest.update(entry.read_bytes())
    return digest.hexdigest()
