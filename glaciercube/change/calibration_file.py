"""Calibrations of areas in a file: written, read, and found by model, inputs and kind of area."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from glaciercube.change.conformal import Calibration, Quantity
from glaciercube.errors import ModelError

__all__ = ["find_calibration", "read_calibrations", "write_calibrations"]

_SHIPPED = "calibrations.json"
# Fields that are written also where they are as usual.
_ALWAYS = ("model", "model_hash", "modalities", "every", "scores", "shares")


def read_calibrations(path: str | Path | None = None) -> list[Calibration]:
    """Read calibrations from a file, or those that come with the package.

    Raises
    ------
    ModelError
        If the file cannot be read.
    """
    if path is None:
        return list(_shipped())
    try:
        return _parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is not a file of calibrations ({error})", "write it with write_calibrations"
        ) from error


def write_calibrations(calibrations: Iterable[Calibration], path: str | Path) -> Path:
    """Write calibrations as JSON, one a line."""
    lines = []
    for one in calibrations:
        content = asdict(one)
        # What is as usual is left out.
        usual = {f.name: f.default for f in fields(one) if f.name not in _ALWAYS}
        content = {name: value for name, value in content.items() if name in _ALWAYS or value != usual[name]}
        content |= {name: [round(value, 4) for value in content[name]] for name in ("scores", "shares")}
        lines.append(json.dumps(content, separators=(",", ":")))
    path = Path(path)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return path


def find_calibration(
    model_hash: str,
    modalities: Iterable[str],
    every: str,
    quantity: Quantity = "area",
    *,
    path: str | Path | None = None,
) -> Calibration | None:
    """The calibration made for a model, its inputs and kind of area, or of change; None if there is none."""
    wanted = (model_hash, tuple(sorted(modalities)), every, quantity)
    known = read_calibrations(path)
    return next((one for one in known if (one.model_hash, one.modalities, one.every, one.quantity) == wanted), None)


@cache
def _shipped() -> tuple[Calibration, ...]:
    file = resources.files("glaciercube.change") / _SHIPPED
    return tuple(_parse(file.read_text(encoding="utf-8"))) if file.is_file() else ()


def _parse(text: str) -> list[Calibration]:
    return [Calibration(**{key: _tuples(value) for key, value in one.items()}) for one in json.loads(text)]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
