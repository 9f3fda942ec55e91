"""Chips of the simulated world, kept on disk between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.resources import files
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from glaciercube.cube.terrain import hillshade, terrain_variables
from glaciercube.models.chips import Chip
from glaciercube.models.classes import GROUND
from glaciercube.simulate.sequence import GROUND_CLASSES, SequenceOptions, draw_sequence

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CLOUD_WEIGHT", "chip_from_sequence", "simulated_chips"]

#: A cloud hides the ice from the optical sensors alone: the pixel still teaches, at a fifth of a clear one's weight.
CLOUD_WEIGHT: Final = 0.2
_FLOOR_POWER = 1e-5  # linear backscatter; -50 dB, below the noise floor of Sentinel-1
_AS_THEY_ARE = (
    *("blue", "green", "red", "nir", "swir16", "swir22", "elevation"),
    *("coherence", "elevation_change", "velocity"),
)
# Half precision rounds a reflectance by 0.05 %, backscatter by 0.01 dB and slopes by 0.03 degrees, well under their
# noise; it would round elevation by metres.
_FULL = ("elevation",)


def chip_from_sequence(scene: xr.Dataset) -> Chip:
    """Turn a simulated sequence into a chip, by the code that real cubes go through.

    Parameters
    ----------
    scene : xarray.Dataset
        As from `glaciercube.simulate.sequence.draw_sequence`, (time, y, x).

    Returns
    -------
    Chip
        Every label is one class of `glaciercube.models.classes.GROUND`; clouded pixels weigh `CLOUD_WEIGHT`.
        Attributes: level, sun (elevation in degrees by date), cloud (share by date), family, dem_age (years at the
        first date), loss, latitude.
    """
    values: dict[str, npt.NDArray[Any]] = {str(name): scene[name].to_numpy() for name in scene.data_vars}
    terrain = terrain_variables(values["elevation"], float(scene.attrs["resolution"]))
    lit = hillshade(
        terrain["slope"],
        terrain["aspect_sin"],
        terrain["aspect_cos"],
        sun_azimuth=scene["sun_azimuth"].to_numpy()[:, None, None],
        sun_elevation=scene["sun_elevation"].to_numpy()[:, None, None],
    )
    backscatter = {f"{name}_db": 10.0 * np.log10(np.maximum(values[name], _FLOOR_POWER)) for name in ("vv", "vh")}
    layers = {name: values[name] for name in _AS_THEY_ARE if name in values}
    variables = {**layers, **terrain, "hillshade": lit, **backscatter}
    cloud = np.asarray(values["cloud"], dtype=bool)
    time = scene["time"].to_numpy().astype("datetime64[s]")
    seed = int(scene.attrs["seed"])
    return Chip(
        variables={name: _compact(name, value) for name, value in variables.items()},
        label=_number(values["ground"]),
        labels={name: (name,) for name in GROUND},
        weight=np.where(cloud, CLOUD_WEIGHT, 1.0).astype(np.float32),
        time=time,
        resolution=float(scene.attrs["resolution"]),
        name=f"simulated-{scene.attrs['family']}-{seed}",
        place=f"{scene.attrs['family']}-{seed}",
        centre=(float(scene.attrs["longitude"]), float(scene.attrs["latitude"])),
        glaciers=values["glaciers"].astype(np.int32),
        attributes={
            "level": str(scene.attrs["level"]),
            "sun": [round(float(angle), 2) for angle in scene["sun_elevation"]],
            "cloud": [round(float(share), 4) for share in cloud.mean(axis=(1, 2))],
            "family": str(scene.attrs["family"]),
            "dem_age": float(time[0].astype("datetime64[Y]").astype(int) + 1970 - scene.attrs["dem_year"]),
            "loss": float(scene.attrs["loss"]),
            "latitude": float(scene.attrs["latitude"]),
        },
    )


def simulated_chips(
    seeds: Sequence[int],
    options: SequenceOptions | None = None,
    *,
    folder: Path,
    workers: int = 1,
    progress: bool = True,
) -> list[Chip]:
    """Draw chips of the simulated world in parallel processes, or read those drawn before.

    Parameters
    ----------
    seeds : sequence of int
        One chip each.
    options : SequenceOptions, optional
        Of every chip.
    folder : Path
        Cache; chips of another simulator or of other options are never mistaken for these.
    workers : int
        Processes; 1 draws in this one.
    progress : bool
        Show a progress bar while drawing.

    Returns
    -------
    list of Chip
        In the order of the seeds; variables but elevation in half precision.
    """
    options = options or SequenceOptions()
    key = hashlib.sha256(f"{_simulator_hash()}|{options!r}".encode()).hexdigest()[:16]
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    missing = [seed for seed in dict.fromkeys(seeds) if not (place / f"{seed}.npz").is_file()]
    if workers > 1 and len(missing) > 1:
        # Spawned, not forked: a fork of a process whose libraries run threads can hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = pool.map(_draw_one, missing, repeat(options), repeat(place), chunksize=4)
            _wait(jobs, len(missing), progress=progress)
    else:
        _wait(map(_draw_one, missing, repeat(options), repeat(place)), len(missing), progress=progress)
    return [_read(place / f"{seed}.npz") for seed in seeds]


def _wait(jobs: Iterable[None], total: int, *, progress: bool) -> None:
    for _ in tqdm(jobs, total=total, desc="drawing scenes", unit="scene", disable=not progress):
        pass


def _compact(name: str, value: npt.NDArray[Any]) -> npt.NDArray[np.floating]:
    return value.astype(np.float32 if name in _FULL else np.float16)


def _number(ground: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """From the simulator's order of classes to the models'."""
    table = np.array([GROUND.index(name) for name in GROUND_CLASSES], dtype=np.uint8)
    return np.asarray(table[ground], dtype=np.uint8)


def _draw_one(seed: int, options: SequenceOptions, place: Path) -> None:
    chip = chip_from_sequence(draw_sequence(seed, options))
    facts = {"resolution": chip.resolution, "name": chip.name, "place": chip.place, "centre": chip.centre}
    text = json.dumps({**facts, "attributes": dict(chip.attributes)})
    arrays: dict[str, npt.NDArray[Any]] = {f"in_{name}": value for name, value in chip.variables.items()}
    arrays |= {"label": chip.label, "clear": chip.weight == 1, "time": chip.time, "facts": np.array(text)}
    if chip.glaciers is not None:
        arrays["glaciers"] = chip.glaciers
    part = place / f"{seed}.{os.getpid()}.part"  # two programs may draw the same
    with part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    part.rename(place / f"{seed}.npz")


def _read(path: Path) -> Chip:
    with np.load(path, allow_pickle=False) as stored:
        facts: Mapping[str, Any] = json.loads(str(stored["facts"]))
        return Chip(
            variables={key.removeprefix("in_"): stored[key] for key in stored.files if key.startswith("in_")},
            label=stored["label"],
            labels={name: (name,) for name in GROUND},
            weight=np.where(stored["clear"], 1.0, CLOUD_WEIGHT).astype(np.float32),
            time=stored["time"],
            glaciers=stored["glaciers"],
            **{**facts, "centre": tuple(facts["centre"])},
        )


@cache
def _simulator_hash() -> str:
    """Hash over the files that make a chip: a cached chip must not outlive the code that drew it."""
    digest = hashlib.sha256()
    for package, wanted in (
        ("glaciercube.simulate", None),
        ("glaciercube.cube", ("terrain.py",)),
        ("glaciercube.training", ("simulated.py",)),
    ):
        for entry in sorted(files(package).iterdir(), key=lambda e: e.name):
            if entry.name in wanted if wanted else entry.name.endswith((".py", ".json")):
                digest.update(entry.read_bytes())
    return digest.hexdigest()
