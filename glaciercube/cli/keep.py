"""The command that keeps stores in order."""

from __future__ import annotations

import click

from glaciercube.cli.base import ENDPOINT, STORE, main, store_of, told

__all__ = ["tidy"]


@main.command()
@STORE
@ENDPOINT
@told
def tidy(store: str, endpoint: str) -> None:
    """Clear away what killed runs left behind in a STORE (or that of a CONFIG file), and nobody will ever read.

    These are chunks that Icechunk never committed, and files on a disk that were not whole yet. Refused while somebody
    writes to the store; what is younger than an hour is left.
    """
    from glaciercube.store import tidy as cleared

    options = store_of(store, endpoint)
    gone = cleared(options.path, endpoint=options.endpoint)
    click.echo(f"{gone.objects} objects cleared away, {gone.bytes / 2**20:.1f} MiB")
