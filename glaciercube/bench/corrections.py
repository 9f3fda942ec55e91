"""What may be done to a finished map, and whether it gains: slope limits, flow routing, terminus, co-registration.

``python -m glaciercube.bench.corrections`` prints what limits of slope keep of the true ice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import click
import numpy as np
import numpy.typing as npt

from glaciercube.bench.flow import drainage, fed_terminus, with_accumulation
from glaciercube.cube.coregister import outline_shift
from glaciercube.evaluation.predict import ice_labels, ice_of, predict_chip
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.sentences import told
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["CORRECTIONS", "SEEDS", "SLOPES", "correction_scores", "scene_options"]

BoolArray: TypeAlias = npt.NDArray[np.bool_]
Sums: TypeAlias = dict[str, float]

#: Seeds that nothing in the package was fitted on.
SEEDS: Final = range(6_300_000, 6_310_000)
#: Degrees above which there is taken to be no ice.
SLOPES: Final = (40.0, 50.0)
# NDSI from which GlacierNet2 takes ground for snow.
_SNOW: Final = 0.7
# Pixels by which the truth is moved, down and right.
_MOVED: Final = (2, 2)
_FLOW: Final = (
    "flow routing: snow that drains into ice",
    "terminus: ice that no ice feeds",
    "flow routing and terminus",
)
_SHIFT: Final = "co-registration of outlines"
#: All of them, in order.
CORRECTIONS: Final = (*(f"candidates by slope: none above {slope:.0f} degrees" for slope in SLOPES), *_FLOW, _SHIFT)


def scene_options(family: str = "a", *, size: int = 128) -> SequenceOptions:
    """Scenes of one date without clouds."""
    return SequenceOptions(size=size, dates=1, resolution=20.0, cloud_cover=0.0, gaps=False, family=family)


def correction_scores(model: Model, chip: Chip) -> dict[str, tuple[Sums, Sums]]:
    """Overlap (``hit``, ``either``) of a chip's first date with the truth, without each correction and with it."""
    probability = predict_chip(model, chip, classes=ice_labels(chip.labels, of=chip.name), dates=[0])[0]
    mapped, true = np.nan_to_num(probability) >= 0.5, ice_of(chip)[0]
    steep = np.asarray(chip.variables["slope"], np.float64)
    as_mapped = _overlap(mapped, true)
    maps = [mapped & ~(steep > slope) for slope in SLOPES] + _flowed(mapped, chip)
    found = {title: (as_mapped, _overlap(made, true)) for title, made in zip(CORRECTIONS[:-1], maps, strict=True)}
    moved = np.roll(true, _MOVED, (0, 1))
    shift = outline_shift(np.asarray(probability, np.float64), moved, chip.resolution)
    # Whole pixels, up and left again; where nothing can be told nothing is moved.
    back = [0 if np.isnan(off) else round(off / chip.resolution) for off in (shift.y, -shift.x)]
    inner = (slice(4, -4), slice(4, -4))
    found[_SHIFT] = (
        _overlap(mapped[inner], moved[inner]),
        _overlap(mapped[inner], np.roll(moved, (back[0], back[1]), (0, 1))[inner]),
    )
    return found


def _flowed(mapped: BoolArray, chip: Chip) -> list[BoolArray]:
    """The map with each of the corrections by flow."""
    green, short = (np.asarray(chip.variables[name][0], np.float64) for name in ("green", "swir16"))
    with np.errstate(invalid="ignore", divide="ignore"):
        snow = (green - short) / (green + short) > _SNOW
    drains = drainage(np.asarray(chip.variables["elevation"], np.float64))
    fed = fed_terminus(mapped, drains)
    return [with_accumulation(mapped, snow, drains), fed, with_accumulation(fed, snow, drains)]


def _overlap(made: BoolArray, true: BoolArray) -> Sums:
    return {"hit": float((made & true).sum()), "either": float((made | true).sum())}


@click.command()
@click.option("--scenes", default=30, show_default=True, help="Of each family.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/benchmark/physics"),
    show_default=True,
    help="Where scenes go.",
)
@told
def main(*, scenes: int, out: Path) -> None:
    """Print the share of the true ice, and of all ground, that limits of slope keep."""
    click.echo("| family | no ice above | true ice kept | ground left out |\n|---|---|---|---|")
    for family in ("a", "b"):
        chips = simulated_chips(list(SEEDS[:scenes]), scene_options(family), folder=out / "scenes")
        slope = np.concatenate([np.asarray(chip.variables["slope"], np.float64).ravel() for chip in chips])
        ice = np.concatenate([ice_of(chip)[0].ravel() for chip in chips])
        for limit in (30.0, 40.0, 50.0, 60.0):
            flat = slope <= limit
            click.echo(f"| {family} | {limit:.0f} degrees | {flat[ice].mean():.1%} | {(~flat).mean():.1%} |")


if __name__ == "__main__":
    main()
