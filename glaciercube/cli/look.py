"""Commands that look: at an archive, at a store, at a simulated world."""

from __future__ import annotations

from pathlib import Path, PurePath

import click

from glaciercube.cli.base import (
    CONFIG,
    ENDPOINT,
    QUIET,
    STORE,
    check_picture,
    check_writable,
    draw,
    main,
    store_of,
    told,
)

__all__ = ["area", "demo", "find", "models"]


@main.command()
@CONFIG
@click.option("--save", type=click.Path(path_type=Path), help="Write the scenes to this GeoParquet file.")
@click.option("--calendar", type=click.Path(path_type=Path), help="Draw a calendar of the observations to this file.")
@told
def find(config: Path, save: Path | None, calendar: Path | None) -> None:
    """Say what CONFIG's search finds, and what is missing."""
    from glaciercube.config import load_config

    settings = load_config(config)
    # A search may take minutes; what would be lost after it is refused before.
    if save is not None:
        check_writable(save)
    if calendar is not None:
        check_picture(calendar)
    region = settings.region.region()
    scenes = settings.find(region)
    click.echo(f"{scenes.completeness(region)}\n")
    click.echo(f"{len(scenes)} scenes in {scenes.source}, fingerprint {scenes.fingerprint[:16]}")
    if save is not None:
        click.echo(f"saved to {scenes.save(save)}")
    if calendar is not None:
        from glaciercube.view import plot_calendar

        draw(plot_calendar(scenes, region), calendar)


@main.command()
@STORE
@click.argument("outlines", type=click.Path(path_type=Path))
@ENDPOINT
@click.option("--every", type=click.Choice(["observation", "year"]), default="observation", show_default=True)
@click.option("--csv", type=click.Path(path_type=Path), help="Write the series to this file.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the series to this file.")
@click.option("--prior", is_flag=True, help="Let margins move no faster than ice does, and say what that overrules.")
@told
def area(
    *, store: str, outlines: Path, endpoint: str, every: str, csv: Path | None, plot: Path | None, prior: bool
) -> None:
    """Ice area of each of the OUTLINES through time, read from a STORE (or that of a CONFIG file)."""
    from glaciercube.change import area_series, prior_report, with_prior
    from glaciercube.region import read_outlines
    from glaciercube.store import UNFINISHED, open_store, provenance_of

    # What would be lost after minutes of reading is refused before.
    if csv is not None:
        check_writable(csv)
    if plot is not None:
        check_picture(plot)

    options = store_of(store, endpoint)
    cube = open_store(options.path, endpoint=options.endpoint)
    frame = read_outlines(outlines)
    read = with_prior(cube) if prior else cube
    series = area_series(read, frame, every)
    click.echo(f"{series['outline'].nunique()} of {len(frame)} outlines meet the grid", err=True)
    click.echo(series.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if prior:
        click.echo("what the prior overruled (no interval is known with it):", err=True)
        report = prior_report(read)
        click.echo(report.to_string(index=False, float_format=lambda value: f"{value:.3f}"), err=True)
        if csv is not None:
            report.to_csv(csv.with_name(f"{csv.stem}.prior{csv.suffix}"), index=False)
    elif series["lower_km2"].isna().all() and UNFINISHED not in provenance_of(cube):
        click.echo("no interval: this model and these inputs have no calibration glaciers", err=True)
    if csv is not None:
        series.to_csv(csv, index=False)
        click.echo(f"series: {csv}")
    if plot is not None:
        from glaciercube.view import plot_area

        draw(plot_area(series, title=f"{PurePath(options.path).stem}, ice area within outlines"), plot)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True)
@click.option("--size", type=int, default=256, show_default=True, help="Pixels a side, of 20 m.")
@click.option("--seed", type=int, help="Another world.")
@click.option("--model", default="fusion-unet", show_default=True)
@QUIET
@told
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
@told
def models() -> None:
    """List the models that come with the package."""
    from glaciercube.models import list_models

    for contract in list_models():
        inputs = ", ".join(m.name if m.required else f"[{m.name}]" for m in contract.modalities)
        click.echo(f"{contract.name}: {inputs}")
        click.echo(click.wrap_text(contract.description, width=100, initial_indent="    ", subsequent_indent="    "))
