"""What all commands share: the group, errors as sentences, and checks of what they write."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from glaciercube import sentences
from glaciercube.errors import ConfigError

__all__ = [
    "CONFIG",
    "ENDPOINT",
    "QUIET",
    "STORE",
    "check_picture",
    "check_writable",
    "draw",
    "main",
    "store_of",
    "talk",
    "told",
]

if TYPE_CHECKING:
    from glaciercube.store import StoreOptions

P = ParamSpec("P")

CONFIG = click.argument("config", type=click.Path(path_type=Path))
STORE = click.argument("store", metavar="STORE|CONFIG")
ENDPOINT = click.option("--endpoint", default="", help="Address of an S3 server that is not Amazon's.")
QUIET = click.option("--quiet", is_flag=True, help="No progress bars, and only warnings beside the result.")


def told(command: Callable[P, None]) -> Callable[P, None]:
    """Turn errors into one sentence on stderr and exit code 1: what users can mend, and defects of ours."""
    mended = sentences.told(command)

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            mended(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # click's own way to end
        except Exception as error:
            if _traceback_wanted():
                raise
            click.echo(f"glaciercube: {_defect(error)}", err=True)
            sentences.leave(1)

    return wrapper


def _traceback_wanted() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("traceback"))


def _defect(error: Exception) -> str:
    """What none of the rooms foresaw, in a sentence."""
    from glaciercube.catalog import without_secrets

    lines = without_secrets(str(error)).split("\n")
    # Of another process, the text is a trace of that one, which ends with what went wrong.
    said = lines[-1 if "Traceback" in str(error) else 0].strip()
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    # PyTorch and NumPy have classes of their own for it.
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return f"the memory did not suffice ({text}): free some, or ask for less at a time."
    command = click.get_current_context().info_name
    return (
        f"this is a defect of glaciercube ({text}): `glaciercube --traceback {command} ...` shows all of it; please "
        "report that."
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="glaciercube")
@click.option("--traceback", is_flag=True, help="Of a defect of glaciercube, show where in the code it is.")
def main(*, traceback: bool) -> None:
    """Glacier-probability time series from open satellite archives."""
    del traceback  # `told` asks for it
    # What goes wrong is told once, by our own sentence; worker processes of this machine inherit it.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    for name in ("odc.loader", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for package in ("odc", "affine", "rasterio", "shapely", "zarr", "pystac"):
        warnings.filterwarnings("ignore", module=rf"{package}\b")


def _show_warning(message: Warning | str, *_: Any) -> None:
    click.echo(f"glaciercube: warning: {message}", err=True)


class _Lines(logging.Handler):
    """What the package logs, line by line on stderr, above a bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm.auto import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            click.echo(record.getMessage(), err=True)


def talk(*, quiet: bool) -> None:
    """Show what the package logs: its warnings, and unless quiet what it says of a run."""
    log = logging.getLogger("glaciercube")
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        log.addHandler(_Lines())
    log.setLevel(logging.WARNING if quiet else logging.INFO)


def store_of(name: str, endpoint: str) -> StoreOptions:
    """A store by its path, or that of a configuration file."""
    from glaciercube.config import load_config
    from glaciercube.store import StoreOptions

    if name.endswith((".yaml", ".yml")):
        return load_config(name).store
    return StoreOptions(name, endpoint=endpoint)


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before work is done for it.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    if path.is_dir():
        raise ConfigError(f"cannot write to {path} (it is a folder)", "give the name of a file")
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write to {path} (there is no folder {path.parent})", "make it, or choose another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(
            f"cannot write to {path} (it may not be written)", "change its permissions, or choose another"
        )


def check_picture(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before work is done for it.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    check_writable(path)
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise ConfigError("pictures need matplotlib", "pip install 'glaciercube[view]'") from error
    if path.suffix.lstrip(".").lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ConfigError(f"cannot draw to {path}", "end its name in .png, .pdf or .svg")


def draw(figure: Any, path: Path) -> None:
    """Save a picture."""
    figure.savefig(path)
    click.echo(f"picture: {path}")
