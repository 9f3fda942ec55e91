"""The command that keeps stores in order."""

from __future__ import annotations

import click

from glaciercube.cli.base import main, told

__all__ = ["tidy"]


@main.command()
@click.argument("store")
@click.option("--endpoint", default="", help="Address of an S3 server that is not Amazon's.")
@told
def tidy(store: str, endpoint: str) -> None:
    """Clear away what killed runs left behind in a STORE, and nobody will ever read.

    These are chunks that Icechunk never committed, and files on a disk that were not whole yet. Refused while somebody
    writes to the store; what is younger than an hour is left.
    """
    from glaciercube.store import tidy as cleared

    gone = cleared(store, endpoint=endpoint)
    click.echo(f"{gone.objects} objects cleared away, {gone.bytes / 2**20:.1f} MiB")
