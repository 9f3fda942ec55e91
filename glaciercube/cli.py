"""The commands. Every failure ends in one sentence and an exit code that is not 0."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import click

from glaciercube.errors import ConfigError, GlaciercubeError

__all__ = ["main"]

P = ParamSpec("P")


def _told(command: Callable[P, None]) -> Callable[P, None]:
    """Turn our errors into one sentence on stderr and exit code 1."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except GlaciercubeError as error:
            click.echo(f"glaciercube: {error}", err=True)
            sys.exit(1)
        except OSError as error:
            click.echo(f"glaciercube: {error}: check the path, its permissions and the space there.", err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("glaciercube: stopped: run again to go on where it ended.", err=True)
            sys.exit(130)

    return wrapper


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="glaciercube")
def main() -> None:
    """Glacier-probability time series from open satellite archives."""
    # A failed read is told once, by our own sentence.
    logging.getLogger("odc.loader").setLevel(logging.CRITICAL)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for package in ("odc", "affine", "rasterio", "shapely", "zarr", "pystac"):
        warnings.filterwarnings("ignore", module=rf"{package}\b")


def _show_warning(message: Warning | str, *_: Any) -> None:
    click.echo(f"glaciercube: warning: {message}", err=True)


_CONFIG = click.argument("config", type=click.Path(path_type=Path))
_QUIET = click.option("--quiet", is_flag=True, help="No progress bars.")


@main.command()
@_CONFIG
@_QUIET
@_told
def run(config: Path, *, quiet: bool) -> None:
    """Run the job of a CONFIG file; run it again to finish or extend it."""
    from dataclasses import replace

    from glaciercube.campaign import run as run_plan
    from glaciercube.config import load_config

    settings = load_config(config)
    options = replace(settings.run, progress=not quiet)
    plan = settings.plan(progress=not quiet)
    outcome = run_plan(plan, options, settings.as_dict(), cluster=settings.cluster)
    lacking = f" ({outcome.lacking} of them without scenes that could not be read)" if outcome.lacking else ""
    click.echo(f"{outcome.computed} shards computed{lacking}, {outcome.skipped} were done: {outcome.path}")


@main.command()
@_CONFIG
@_QUIET
@_told
def explain(config: Path, *, quiet: bool) -> None:
    """Say what a run of CONFIG would read, compute and write."""
    from glaciercube.campaign import Budget, check_budget
    from glaciercube.campaign import explain as explain_plan
    from glaciercube.config import load_config

    settings = load_config(config)
    plan = settings.plan(check=False, progress=not quiet)
    found = explain_plan(plan, settings.run, Budget(prices=settings.budget.prices))
    click.echo(str(found))
    check_budget(found, settings.budget)


@main.command()
@_CONFIG
@click.option("--save", type=click.Path(path_type=Path), help="Write the scenes to this GeoParquet file.")
@click.option("--calendar", type=click.Path(path_type=Path), help="Draw a calendar of the observations to this file.")
@_told
def find(config: Path, save: Path | None, calendar: Path | None) -> None:
    """Say what CONFIG's search finds, and what is missing."""
    from glaciercube.config import load_config

    settings = load_config(config)
    # A search may take minutes; what would be lost after it is refused before.
    for path in filter(None, (save, calendar)):
        _check_writable(path)
    if calendar is not None:
        _check_picture(calendar)
    region = settings.region.region()
    scenes = settings.find(region)
    click.echo(f"{scenes.completeness(region)}\n")
    click.echo(f"{len(scenes)} scenes in {scenes.source}, fingerprint {scenes.fingerprint[:16]}")
    if save is not None:
        click.echo(f"saved to {scenes.save(save)}")
    if calendar is not None:
        from glaciercube.view import plot_calendar

        _draw(plot_calendar(scenes, region), calendar)


@main.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("outlines", type=click.Path(path_type=Path))
@click.option("--every", type=click.Choice(["observation", "year"]), default="observation", show_default=True)
@click.option("--csv", type=click.Path(path_type=Path), help="Write the series to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the series to this file.")
@_told
def area(store: Path, outlines: Path, every: str, csv: Path | None, plot: Path | None) -> None:
    """Ice area of each of the OUTLINES through time, read from a STORE."""
    from glaciercube.change import area_series
    from glaciercube.region import read_outlines

    frame = read_outlines(outlines)
    series = area_series(store, frame, every)
    click.echo(f"{series['outline'].nunique()} of {len(frame)} outlines meet the grid", err=True)
    click.echo(series.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if series["lower_km2"].isna().all():
        click.echo("no interval: this model and these inputs have no calibration glaciers", err=True)
    if csv is not None:
        series.to_csv(csv, index=False)
        click.echo(f"series: {csv}")
    if plot is not None:
        from glaciercube.view import plot_area

        _draw(plot_area(series, title=f"{store.stem}, ice area within outlines"), plot)


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise ConfigError(f"cannot write to {path} (it is a folder)", "give the name of a file")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write to {path} (there is no folder {path.parent})", "make it, or choose another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(
            f"cannot write to {path} (it may not be written)", "change its permissions, or choose another"
        )


def _check_picture(path: Path) -> None:
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ConfigError("pictures need matplotlib", "pip install 'glaciercube[view]'") from error
    if path.suffix.lstrip(".").lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ConfigError(f"cannot draw to {path}", "end its name in .png, .pdf or .svg")


def _draw(figure: Any, path: Path) -> None:
    _check_picture(path)
    figure.savefig(path)
    click.echo(f"picture: {path}")


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True)
@click.option("--size", type=int, default=256, show_default=True, help="Pixels a side, of 20 m.")
@click.option("--seed", type=int, help="Another world.")
@click.option("--model", default="fusion-unet", show_default=True)
@_QUIET
@_told
def demo(out: Path, size: int, seed: int | None, model: str, *, quiet: bool) -> None:
    """Map a simulated world from its satellite images, and compare with its truth."""
    from glaciercube.demo import run_demo
    from glaciercube.simulate.world import WorldOptions

    def say(text: str) -> None:
        click.echo(f"- {text}", err=True)

    options = WorldOptions(size=size) if seed is None else WorldOptions(size=size, seed=seed)
    result = run_demo(out, options, model=model, progress=not quiet, say=say)
    headings = {
        "year": "year",
        "ice_km2": "ice area (km2)",
        "true_km2": "true area (km2)",
        "low_km2": "90% from",
        "high_km2": "90% to",
        "seen": "seen",
    }
    click.echo("")
    click.echo(result.table.rename(columns=headings).to_string(index=False, float_format=lambda v: f"{v:.2f}"))
    click.echo(f"\nstore    {result.store}\nareas    {result.csv}\npicture  {result.picture}")


@main.command()
@_told
def models() -> None:
    """List the models that come with the package."""
    from glaciercube.models import list_models

    for contract in list_models():
        inputs = ", ".join(m.name if m.required else f"[{m.name}]" for m in contract.modalities)
        click.echo(f"{contract.name}: {inputs}")
        click.echo(click.wrap_text(contract.description, width=100, initial_indent="    ", subsequent_indent="    "))
