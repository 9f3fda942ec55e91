"""The command that trains a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glaciercube.cli.base import CONFIG, QUIET, main, talk, told

if TYPE_CHECKING:
    from glaciercube.trainconfig import TrainConfig

__all__ = ["train"]


@main.command()
@CONFIG
@click.option("--out", type=click.Path(path_type=Path), help="Model folder to write, instead of the configuration's.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder that keeps simulated chips.")
@click.option("--fold", help="Which fold, from 1 on, or all; instead of the configuration's.")
@click.option("--processes", type=int, help="Processes on this machine; by default one per GPU.")
@QUIET
@told
def train(
    config: Path, out: Path | None, cache: Path | None, fold: str | None, processes: int | None, *, quiet: bool
) -> None:
    """Train a model as CONFIG says, and write its folder.

    Run it again to go on where it was stopped. Under torchrun, every process runs this command.
    """
    from glaciercube.training.launch import launch

    talk(quiet=quiet)
    given = {"out": out and str(out), "cache": cache and str(cache), "fold": fold and _fold(fold)}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = _settings(config, changes)
    launch(_work, (config, changes, quiet), processes)
    if settings.out and (Path(settings.out) / "README.md").is_file():
        click.echo(f"model: {settings.out}")


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdigit():
        raise click.BadParameter("give a number, or all", param_hint="--fold")
    return text if text == "all" else int(text)


def _settings(config: Path, changes: dict[str, Any]) -> TrainConfig:
    from glaciercube.config import load_config
    from glaciercube.trainconfig import TrainConfig

    return dataclasses.replace(load_config(config, TrainConfig), **changes)


def _work(config: Path, changes: dict[str, Any], quiet: bool) -> None:
    """What every process does."""
    from glaciercube.training.run import train as run

    settings = _settings(config, changes)
    for done in run(settings, settings.cube, progress=not quiet):
        for name, report in done.reports.items():
            pooled = report.overlap.pooled
            click.echo(f"{name}: IoU {pooled.iou:.3f}, F1 {pooled.f1:.3f}, ECE {report.calibration.ece:.3f}")
