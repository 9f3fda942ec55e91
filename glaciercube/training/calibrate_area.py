"""Measure the errors of area, and of its change, of models on simulated glaciers: the shipped intervals.

``python -m glaciercube.training.calibrate_area --out FILE --cache FOLDER``. Scenes are of the training world's family
of generators and of other mountains than any training: 420 places at two to five dates, over 1,000 glaciers. All
glaciers of a scene count, each by its share of it. Levels are raised by what the worst part of the scenes asks for
(`glaciercube.training.reserve`). ``--draw`` only draws the scenes, which takes most of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from glaciercube.change import Calibration, fit_correlation, read_calibrations, scene_correlation, write_calibrations
from glaciercube.change.conformal import Quantity, raised_level
from glaciercube.models import load_model
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.sentences import told
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.area_errors import AreaError, Maps, area_errors, maps_of, modalities_of, without
from glaciercube.training.reserve import shortfalls, traits_of, worst
from glaciercube.training.simulated import simulated_chips

__all__ = ["FAMILY", "FIRST_SEED", "MAIN", "OTHERS", "Measured", "calibrations", "draw_chips", "measure", "reserves"]

#: Seeds of calibration scenes; training, tests and the demonstration use others.
FIRST_SEED = 4_000_000
FAMILY = "a"
#: What users lack of every scene: nothing but layers of their own, also radar, also the elevation model.
MAIN: Sequence[tuple[str, ...]] = (("layers",), ("layers", "sentinel-1"), ("layers", "sentinel-1", "dem"))
#: What else is calibrated, and not checked in another world.
OTHERS: Sequence[tuple[str, ...]] = (
    (),
    ("layers", "sun"),
    ("layers", "sentinel-1", "sun"),
    ("layers", "dem"),
    ("layers", "sentinel-2"),
)
MODELS = ("fusion-unet", "fusion-unet-time", "band-ratio", "ndsi")
_FIRST_YEAR, _LAST_YEAR = 2016, 2024
# Scenes whose pixels the correlation is fitted to.
_PIXEL_SCENES = 80
_SOURCE = "simulated glaciers of family {family}, surface and top-of-atmosphere reflectance, 10-30 m"


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one model with one set of inputs."""

    model: Model
    modalities: tuple[str, ...]
    errors: list[AreaError]
    pixels: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], float]]
    traits: dict[str, dict[str, float]] = field(default_factory=dict)


def draw_chips(first: int, count: int, folder: Path, *, family: str = FAMILY, workers: int = 1) -> Iterator[Chip]:
    """Draw scenes, or read those drawn before: two of three as the world draws them, one with a change of eight years.

    Parameters
    ----------
    first, count : int
        Seed of the first scene, and how many; the others' seeds follow it.
    folder : Path
        Keeps what is drawn.
    family : str
        Family of generators.
    workers : int
        Processes that draw.

    Yields
    ------
    Chip
        Of 160 pixels of 10 to 30 m, at two to five dates.
    """
    usual = SequenceOptions(size=160, dates=(2, 5), family=family)
    long = SequenceOptions(size=160, dates=(2, 5), years=(_FIRST_YEAR, _LAST_YEAR), family=family)
    split = first + (2 * count) // 3
    for options, seeds in ((usual, range(first, split)), (long, range(split, first + count))):
        if workers > 1:
            simulated_chips(seeds, options, folder=folder, workers=workers)
        for seed in seeds:
            yield from simulated_chips([seed], options, folder=folder, progress=False)


def measure(
    models: Sequence[Model],
    chips: Iterable[Chip],
    subsets: Sequence[tuple[str, ...]] = (*MAIN, *OTHERS),
) -> list[Measured]:
    """Errors of models with several sets of inputs, on chips that are read once.

    Parameters
    ----------
    models : sequence of Model
        Any.
    chips : iterable of Chip
        With `glaciers`, of places that no weight was fitted on.
    subsets : sequence of tuple of str
        Sensors that are left out, one set after the other (`glaciercube.training.area_errors.without`). A set that
        leaves a model the inputs of one before is passed over, as is one with which it cannot predict.

    Returns
    -------
    list of Measured
        One per model and inputs.

    Raises
    ------
    ModelError
        If a chip has no glaciers.
    """
    found: dict[tuple[str, tuple[str, ...]], Measured] = {}
    for order, chip in enumerate(chips):
        traits = traits_of(chip)
        for model in models:
            done: set[tuple[str, ...]] = set()
            for missing in subsets:
                shown = without(chip, missing)
                modalities = modalities_of(model, shown)
                if modalities is None or modalities in done:
                    continue
                done.add(modalities)
                maps = maps_of(model, shown)
                key = (model.hash, modalities)
                entry = found.setdefault(key, Measured(model, modalities, [], []))
                # The same glaciers, dates and years for every model and set of inputs.
                entry.errors.extend(area_errors(chip, maps, np.random.default_rng([FIRST_SEED, order])))
                entry.traits[chip.place or chip.name] = traits
                if len(entry.pixels) < _PIXEL_SCENES and missing in MAIN:
                    entry.pixels.extend(_within_outlines(maps, chip))
    return list(found.values())


def reserves(measured: Iterable[Measured]) -> dict[str, tuple[float, str]]:
    """By the model's hash: the reserve for places unlike the scenes, and the part of the scenes that asks for it.

    Of all kinds of area and change together, and of those sets of inputs that were measured on every scene.
    """
    found: dict[str, list[Measured]] = {}
    for entry in measured:
        found.setdefault(entry.model.hash, []).append(entry)
    return {
        key: worst(
            shortfalls(errors, entry.traits)
            for entry in entries
            if len(entry.traits) == max(len(one.traits) for one in entries)
            for errors in _by_kind(entry).values()
        )
        for key, entries in found.items()
    }


def _by_kind(entry: Measured) -> dict[tuple[Quantity, str], list[AreaError]]:
    kinds: dict[tuple[Quantity, str], list[AreaError]] = {}
    for error in entry.errors:
        kinds.setdefault((error.quantity, error.every), []).append(error)
    return dict(sorted(kinds.items()))


def calibrations(measured: Sequence[Measured], *, family: str = FAMILY) -> Iterator[Calibration]:
    """Calibrations of what was measured, one for each kind of area and of change."""
    reserve = {key: round(radius, 5) for key, (radius, _) in reserves(measured).items()}
    for entry in measured:
        correlation = fit_correlation(entry.pixels) if entry.pixels else None
        variogram = (
            tuple(
                (round(r, 1) if np.isfinite(r) else -1.0, round(s, 4))
                for r, s in zip(correlation.ranges, correlation.sills, strict=True)
            )
            if correlation
            else ()
        )
        for (quantity, every), mine in _by_kind(entry).items():
            numbers: Mapping[str, int] = {name: i for i, name in enumerate(dict.fromkeys(e.scene for e in mine))}
            scenes = tuple(numbers[error.scene] for error in mine)
            scores = tuple(float(error.score) for error in mine)
            yield Calibration(
                model=entry.model.contract.name,
                model_hash=entry.model.hash,
                modalities=entry.modalities,
                every=every,
                scores=scores,
                shares=tuple(error.share for error in mine),
                source=_SOURCE.format(family=family),
                scenes=scenes,
                quantity=quantity,
                correlation=round(scene_correlation(scores, scenes), 4),
                reserve=reserve[entry.model.hash],
                variogram=variogram if quantity == "area" else (),
                reflectance="either",
            )


def _within_outlines(maps: Maps, chip: Chip) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], float]]:
    """The first date, where there are glaciers: easy ground around them has no errors to speak of."""
    if chip.glaciers is None or not (chip.glaciers > 0).any():
        return []
    inside = np.where(chip.glaciers > 0, maps.probability[0], np.nan).astype(np.float32)
    return [(inside, maps.ice[0], chip.resolution)]


@click.command()
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write, or to add to.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder that keeps drawn scenes.")
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True, help="Models or their folders.")
@click.option("--scenes", default=420, show_default=True, help="Simulated scenes.")
@click.option("--workers", default=1, show_default=True, help="Processes that draw scenes.")
@click.option("--draw", is_flag=True, help="Draw the scenes and stop.")
@told
def main(*, out: Path | None, cache: Path, models: tuple[str, ...], scenes: int, workers: int, draw: bool) -> None:
    """Measure area errors of models on simulated glaciers, and write the calibrations of their intervals."""
    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    chips = draw_chips(FIRST_SEED, scenes, cache, workers=workers)
    if draw or out is None:
        click.echo(f"{sum(1 for _ in chips)} scenes in {cache}")
        return
    loaded = [load_model(name) for name in models]
    measured = measure(loaded, tqdm(chips, total=scenes, desc="calibrating", unit="scene"))
    made = list(calibrations(measured))
    for model in loaded:
        radius, part = reserves(measured)[model.hash]
        click.echo(f"{model.contract.name}: 90 % is read at {raised_level(0.9, radius):.1%} (worst part: {part})")
    names = {one.model for one in made}
    kept = [one for one in read_calibrations(out) if one.model not in names] if out.is_file() else []
    write_calibrations([*kept, *made], out)
    for one in made:
        click.echo(
            f"{one.model} {'+'.join(one.modalities)} {one.quantity} every {one.every}: {len(one.scores)} glaciers of "
            f"{len(set(one.scenes))} scenes, correlation within a scene {one.correlation:.2f}"
        )


if __name__ == "__main__":
    main()
