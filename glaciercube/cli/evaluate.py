"""Commands that score: a model on a set of chips, a store against a label."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glaciercube.cli.base import ENDPOINT, STORE, main, store_of, told
from glaciercube.errors import ConfigError

if TYPE_CHECKING:
    from glaciercube.evaluation.report import Report

__all__ = ["evaluate"]

_RASTERS = (".tif", ".tiff", ".vrt", ".img", ".jp2", ".asc")
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for report.md, report.json and reliability.png; made, and files of these names are replaced.",
)
_THRESHOLD = click.option("--threshold", default=0.5, show_default=True, help="Probability above which it is ice.")
_MARGIN = click.option("--margin", default=100.0, show_default=True, help="Metres around a glacier that are its own.")


@main.group()
def evaluate() -> None:
    """Score a model on labelled chips, or a finished store against a label."""


@evaluate.command()
@click.argument("model")
@click.argument("chips", metavar="SET", type=click.Path(path_type=Path))
@_OUT
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Part of the set; all by default.")
@click.option("--find", "positive", multiple=True, help="Label to be found; repeat it. Those that are ice by default.")
@click.option("--without", multiple=True, help="Input (modality) that is kept from the model; repeat it.")
@click.option("--alone", is_flag=True, help="Show each date by itself, also to models that look at several.")
@click.option("--where", type=click.Choice(["clear", "hidden", "all"]), default="clear", show_default=True)
@click.option("--sensors", is_flag=True, help="Score it again with fewer sensors, each left out and each alone.")
@_THRESHOLD
@_MARGIN
@told
def model(model: str, chips: Path, out: Path, split: Any, threshold: float, margin: float, **shown: Any) -> None:
    """Score a MODEL (its name or folder) on a SET of chips.

    SET is a folder as the training exports it; see docs/samples.md. Give a set of other glaciers than those that the
    model was trained on.
    """
    from glaciercube.evaluation.predict import PredictOptions
    from glaciercube.evaluation.run import EvaluateOptions, evaluate_model
    from glaciercube.models import load_model
    from glaciercube.training.exchange import read_set

    _check_folder(out)
    sensors = shown.pop("sensors")
    options = EvaluateOptions(threshold, margin, PredictOptions(**shown), sensors=sensors)
    loaded = load_model(model)
    found = read_set(chips, split=split)
    source = f"{chips.name}, {split}" if split else chips.name
    _tell(evaluate_model(loaded, found, options, source=source), out)


@evaluate.command()
@STORE
@click.argument("label", type=click.Path(path_type=Path))
@ENDPOINT
@_OUT
@click.option("--label-date", required=True, metavar="DATE", help="Day that LABEL shows.")
@click.option("--image-date", "dates", multiple=True, metavar="DATE", help="Day of an image to compare; repeat it.")
@click.option(
    "--within", default=45.0, show_default=True, help="Days between image and label, where no image is named."
)
@click.option("--known", type=click.Path(path_type=Path), help="Polygons inside which LABEL outlines every glacier.")
@click.option("--nodata-is-ground", is_flag=True, help="The nodata of a raster is no ice, and not unknown.")
@click.option("--ice", multiple=True, type=int, default=(1,), show_default=True, help="Value of ice in a raster.")
@_THRESHOLD
@_MARGIN
@told
def store(
    *,
    store: str,
    label: Path,
    endpoint: str,
    out: Path,
    label_date: str,
    dates: tuple[str, ...],
    within: float,
    known: Path | None,
    ice: tuple[int, ...],
    nodata_is_ground: bool,
    threshold: float,
    margin: float,
) -> None:
    """Score a STORE (or that of a CONFIG file) against outlines or a raster of ice.

    Outlines may be of any CRS. A raster must lie on the pixels of the store; its nodata is not compared, unless it
    --nodata-is-ground. Which image is
    compared with the label is what --image-date says, or all images --within so many days of --label-date; the report
    names them with the days between.
    """
    from glaciercube.evaluation.references import outline_reference, raster_reference
    from glaciercube.evaluation.run import EvaluateOptions, evaluate_store
    from glaciercube.evaluation.stores import StoreCaseOptions, day_of
    from glaciercube.store import open_store

    _check_folder(out)
    day_of(label_date)
    rows, options = StoreCaseOptions(dates, within), EvaluateOptions(threshold, margin)
    place = store_of(store, endpoint)
    cube = open_store(place.path, endpoint=place.endpoint)
    if label.suffix.lower() in _RASTERS:
        if known is not None:
            raise ConfigError("--known is for outlines", "let the raster's nodata say where its label is not known")
        reference = raster_reference(cube, label, ice=ice, nodata_is_ground=nodata_is_ground)
    else:
        reference = outline_reference(cube, label, within=known)
    _tell(evaluate_store(cube, reference, label_date, rows, options, source=str(place.path)), out)


def _check_folder(out: Path) -> None:
    """Refuse a folder that cannot be made, and missing matplotlib, before work is done; nothing is made yet."""
    from glaciercube.cli.base import check_picture

    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"cannot write to {out} ({there} is a file)", "give the name of a folder")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"cannot write to {out} ({there} may not be written)", "change it, or choose another")
    check_picture(there / "reliability.png")


def _tell(report: Report, out: Path) -> None:
    from glaciercube.evaluation.report import write_report

    written = write_report(report, out)
    overlap, near = report.overlap, report.near_calibration
    click.echo(
        f"{len(report.images)} images, {overlap.pooled.pixels:,} pixels: IoU {overlap.pooled.iou:.3f}, "
        f"{overlap.tolerant.iou:.3f} with a pixel's tolerance, F1 {overlap.pooled.f1:.3f}, "
        f"ECE {report.calibration.ece:.3f}, {near.ece:.3f} within {report.near:g} m of the outlines"
    )
    click.echo(f"report: {written['markdown']}")
