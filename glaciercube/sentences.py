"""Errors as sentences: what a command says where its user can mend what is wrong."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from glaciercube.errors import GlaciercubeError

__all__ = ["leave", "told"]

P = ParamSpec("P")


def told(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors that a user can mend into one sentence on stderr and exit code 1; defects of ours pass through."""

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
            leave(130)

    return wrapper


def leave(code: int) -> None:
    """Exit; at once where threads still wait for a server that nobody needs any more."""
    if any(thread.name.startswith("glaciercube") and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
