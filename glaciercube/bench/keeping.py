"""Answers of a benchmark that are kept, so that what was measured is measured once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glaciercube.errors import ConfigError

__all__ = ["answer_file", "keep", "whole"]


def answer_file(folder: Path, name: str, *asked: Any) -> Path:
    """The file of an answer: its name, and a hash of the ``repr`` of all that was asked."""
    return folder / f"{name}-{hashlib.sha256(repr(asked).encode()).hexdigest()[:24]}.json"


def keep(path: Path, measure: Callable[[], Any], *, kept: bool = False) -> Any:
    """An answer from its file, measured if it is not there.

    Parameters
    ----------
    path : Path
        The file, whose name tells all that was asked; its folder is made.
    measure : callable
        Gives what JSON can hold.
    kept : bool
        Whether only to read: what was not measured is then None.

    Raises
    ------
    ConfigError
        If the file holds no JSON.
    """
    if not path.is_file():
        if kept:
            return None
        text = json.dumps(measure(), indent=1)
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} holds no answer ({error})", "delete it, and it is measured anew") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside another to write to, which takes that one's place at the end: there is all of it, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
