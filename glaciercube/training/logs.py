"""What a fit writes down as it goes: a CSV table, and TensorBoard's events where asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glaciercube.errors import ConfigError

__all__ = ["COLUMNS", "Log"]

#: Columns of the table: steps done, mean loss since the row before, learning rate, processor seconds, samples seen, and
#: the loss on the validation chips where it was looked at.
COLUMNS = ("step", "loss", "rate", "seconds", "samples", "validation")


class Log:
    """Rows of a fit.

    Parameters
    ----------
    folder : Path or None
        Where ``log.csv`` and the events go; None writes nothing.
    first : int
        Steps that were done before: rows beyond it, of a run that was killed after its last checkpoint, are removed.
    tensorboard : bool
        Whether to write events, too.

    Raises
    ------
    ConfigError
        If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path | None, first: int, *, tensorboard: bool = False) -> None:
        self._file: Any = None
        self._events: Any = _events(folder, first) if tensorboard and folder is not None else None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.csv"
        kept = _rows(path, first)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS, restval="")
        self._writer.writeheader()
        self._writer.writerows(kept)
        self._file.flush()

    def write(self, row: Mapping[str, float]) -> None:
        """Add a row."""
        if self._file is not None:
            self._writer.writerow({name: f"{value:.6g}" for name, value in row.items()})
            self._file.flush()
        if self._events is not None:
            for name, value in row.items():
                if name != "step":
                    self._events.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Close the files."""
        for each in (self._file, self._events):
            if each is not None:
                each.close()


def _rows(path: Path, first: int) -> list[dict[str, str]]:
    if first == 0 or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if (row.get("step") or "").isdigit()]
    return [{name: row[name] or "" for name in COLUMNS} for row in rows if int(row["step"]) <= first]


def _events(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "events for TensorBoard need the package tensorboard", "pip install 'glaciercube[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder), purge_step=first + 1)
