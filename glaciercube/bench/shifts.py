"""How well shifts are found: images and outlines moved by known steps (``python -m glaciercube.bench.shifts``)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.cube.coregister import image_shift, outline_shift
from glaciercube.sentences import told

__all__ = ["errors_of_images", "errors_of_outlines"]


def errors_of_images(
    images: npt.NDArray[np.floating[Any]], resolution: float, *, tries: int = 20, seed: int = 0
) -> dict[str, npt.NDArray[np.float64]]:
    """Move images by up to 5 pixels and look for the shift: errors in pixels.

    Parameters
    ----------
    images : (time, y, x) floating
        One band at several dates, NaN where missing.
    resolution : float
        Pixel size in metres.
    tries : int
        Moves.
    seed : int
        Of the moves.

    Returns
    -------
    dict
        ``same date``: against the image itself, moved; ``other date``: of the moved against another date, less what
        both lie apart unmoved; ``apart``: what the dates are found to lie apart; each with ``... score``.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"same date": [], "other date": [], "apart": [], "score": []}
    for _ in range(tries):
        one, other = rng.choice(len(images), 2, replace=False)
        down, right = rng.uniform(-5, 5, 2)
        filled = np.where(np.isfinite(images[one]), images[one], np.nanmedian(images[one]))
        moved = ndimage.shift(filled, (down, right), order=3, mode="nearest")
        own, apart = image_shift(moved, images[one], resolution), image_shift(images[one], images[other], resolution)
        across = image_shift(moved, images[other], resolution)
        found["same date"].append(np.hypot(own.x / resolution - right, own.y / resolution + down))
        steps = (across.x - apart.x) / resolution - right, (across.y - apart.y) / resolution + down
        found["other date"].append(float(np.hypot(*steps)))
        found["apart"].append(float(np.hypot(apart.x, apart.y)) / resolution)
        found["score"].append(across.score)
    return {name: np.array(values) for name, values in found.items()}


def errors_of_outlines(
    values: npt.NDArray[np.floating[Any]], inside: npt.NDArray[np.bool_], resolution: float, *, tries: int = 20
) -> npt.NDArray[np.float64]:
    """Move an outline by whole pixels and look for the shift, less what it is found to lie off unmoved: pixels."""
    rng = np.random.default_rng(0)
    start = outline_shift(values, inside, resolution)
    errors = []
    for _ in range(tries):
        down, right = rng.integers(-4, 5, 2)
        found = outline_shift(values, np.roll(inside, (down, right), (0, 1)), resolution)
        errors.append(np.hypot((found.x - start.x) / resolution - right, (found.y - start.y) / resolution + down))
    return np.array(errors)


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@told
def main(*, data: Path) -> None:
    """Measure on Khumbu's four dates and its outlines: DATA holds its catalogue and reference."""
    from glaciercube.catalog import find
    from glaciercube.change.maps import mask_of
    from glaciercube.cube import compose, load
    from glaciercube.region import Region, read_outlines

    region = Region.from_bbox((86.785, 27.955, 86.845, 27.995), resolution=20)
    scenes = find(str(data / "catalog.json"), region, "2024", ["sentinel-2"])
    with warnings.catch_warnings():
        # An offset does not shift anything.
        warnings.simplefilter("ignore", UserWarning)
        cube = compose(load(scenes, region)).compute()
    for name, errors in errors_of_images(cube["nir"].to_numpy(), 20.0).items():
        click.echo(f"{name}: median {np.median(errors):.2f}, 90 % below {np.quantile(errors, 0.9):.2f}")
    outlines = read_outlines(data / "reference" / "rgi60_everest_86.gpkg").to_crs(str(region.geobox.crs))
    inside = mask_of(outlines.geometry.union_all(), region.geobox)
    ratio = np.log(cube["red"].to_numpy() / np.maximum(cube["swir16"].to_numpy(), 1e-3))
    for date, values in zip(cube["time"].to_numpy(), ratio, strict=True):
        shift, errors = outline_shift(values, inside, 20.0), errors_of_outlines(values, inside, 20.0)
        click.echo(
            f"outlines, {str(date)[:10]}: lie off by {shift.x:.0f} m east, {shift.y:.0f} m north "
            f"(gain {shift.score:.2f}); moves are found to {np.median(errors):.2f} pixels"
        )


if __name__ == "__main__":
    main()
