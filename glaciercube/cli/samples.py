"""The command that draws samples and writes them as a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glaciercube.cli.base import CONFIG, QUIET, check_picture, draw, main, talk, told
from glaciercube.errors import OutlineError, StoreError

if TYPE_CHECKING:
    from glaciercube.training.exchange import StoredChips
    from glaciercube.training.sampling import SampledChips
    from glaciercube.training.sites import Site

__all__ = ["samples"]


@main.command()
@CONFIG
@click.option("--out", type=click.Path(path_type=Path), help="Write the set to this new folder; else only say it.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw some of the chips to this file.")
@click.option("--title", default="Glacier samples", show_default=True)
@click.option("--licence", default="other", show_default=True, help="SPDX identifier of the whole.")
@click.option("--citation", default="", help="Of images and outlines, as their licences ask.")
@QUIET
@told
def samples(config: Path, out: Path | None, picture: Path | None, *, quiet: bool, **info: str) -> None:
    """Draw labelled chips as CONFIG says, part them by geography, and write them as a set.

    Without --out and --picture no chip is read: only the catalogue, the outlines, and what settles offsets.
    """
    from glaciercube.config import SetConfig, load_config
    from glaciercube.training.exchange import SetInfo, write_set

    talk(quiet=quiet)
    # Chips take minutes; what would be lost after them is refused before.
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(f"there is something at {out}", "give a folder that is new or empty")
    if picture is not None:
        check_picture(picture)
    settings = load_config(config, SetConfig)
    chips = settings.chips()
    left_out = _left_out(chips)
    if not len(chips):
        raise OutlineError(
            f"no chip is drawn ({'; '.join(left_out) or 'the sets are empty'})", "ask for less of them, or widen time"
        )
    # Before they are parted, which too few of them may not bear.
    for message in left_out:
        click.echo(message)
    splits = settings.splits(chips)
    _tell(chips.sites, splits)
    if picture is not None:
        from glaciercube.view import plot_chips

        draw(plot_chips(chips), picture)
    if out is not None:
        named = SetInfo(title=info["title"], licence=info["licence"], citation=info["citation"])
        fingerprint = write_set(chips, out, splits, named, progress=not quiet)
        click.echo(f"set: {out}, fingerprint {fingerprint[:16]}")


def _left_out(chips: SampledChips | StoredChips) -> list[str]:
    """What was left out while chips were drawn, and why; what the inventory had to say has been logged."""
    inventory = getattr(chips, "inventory", None)
    said = inventory.messages if inventory is not None else ()
    return [message for message in getattr(chips, "messages", ()) if message not in said]


def _tell(sites: Sequence[Site], splits: Mapping[str, Sequence[int]]) -> None:
    click.echo("split        chips  places  glacier (km2, chip by chip)")
    for name, indices in splits.items():
        there: list[Any] = [sites[i] for i in indices]
        area = sum(site.area for site in there)
        click.echo(f"{name:<12} {len(there):>5}  {len({site.place for site in there}):>6}  {area:>13.2f}")
    used = sum(len(indices) for indices in splits.values())
    if used < len(sites):
        click.echo(f"{len(sites) - used} of {len(sites)} chips lie within the buffer, and are left out")
