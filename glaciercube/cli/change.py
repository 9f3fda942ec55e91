"""The command that says how much area was lost or won between two times."""

from __future__ import annotations

from pathlib import Path

import click

from glaciercube.cli.base import ENDPOINT, STORE, check_writable, main, store_of, told

__all__ = ["change"]


@main.command()
@STORE
@click.argument("outlines", type=click.Path(path_type=Path))
@click.argument("first")
@click.argument("last")
@ENDPOINT
@click.option("--every", type=click.Choice(["observation", "year"]), default="year", show_default=True)
@click.option("--total", is_flag=True, help="The sum over all outlines, whose errors are correlated.")
@click.option("--allow-terrain", is_flag=True, help="Also if the model is known to hide change under terrain.")
@click.option("--csv", type=click.Path(path_type=Path), help="Write the table to this file.")
@told
def change(
    *,
    store: str,
    outlines: Path,
    first: str,
    last: str,
    endpoint: str,
    every: str,
    total: bool,
    allow_terrain: bool,
    csv: Path | None,
) -> None:
    """Change of the ice area of each of the OUTLINES from FIRST to LAST (years, or dates with --every observation)."""
    from glaciercube.change import AreaOptions, area_change, regional_change
    from glaciercube.region import read_outlines
    from glaciercube.store import open_store

    if csv is not None:
        check_writable(csv)
    options = store_of(store, endpoint)
    cube = open_store(options.path, endpoint=options.endpoint)
    read = AreaOptions(every=every)  # type: ignore[arg-type]
    table = area_change(cube, read_outlines(outlines), first, last, read, allow_terrain=allow_terrain)
    if table["lower_km2"].isna().all():
        click.echo("no interval: this model and these inputs have no calibration glaciers", err=True)
    shown = regional_change(table) if total else table
    click.echo(shown.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if csv is not None:
        shown.to_csv(csv, index=False)
        click.echo(f"table: {csv}")
