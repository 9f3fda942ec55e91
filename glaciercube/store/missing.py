"""Which scenes a store lacks: they were found and could not be read, and this says where and why."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from glaciercube.errors import StoreError

__all__ = ["MISSING_COLUMNS", "Missing", "MissingRecord", "missing_scenes"]

MISSING_COLUMNS = ("time", "block_y", "block_x", "scene", "band", "failure", "reason")


@dataclass(frozen=True)
class Missing:
    """A scene that a shard was made without.

    Attributes
    ----------
    scene : str
        STAC identifier; none of its bands entered.
    band : str
        The band that could not be read.
    failure : str
        ``"permanent"`` or ``"authorisation"``; see `glaciercube.errors.ReadError`.
    reason : str
        What went wrong, without secrets.
    """

    scene: str
    band: str
    failure: str
    reason: str


class MissingRecord:
    """One small file for each shard of a date that lacks scenes, beside the ledger, where no Zarr reader lists it.

    Parameters
    ----------
    store : Path
        Folder of the store.
    """

    def __init__(self, store: Path) -> None:
        self._folder = store / "provenance" / "missing"

    def write(self, row: str, block: tuple[int, int], missing: Sequence[Missing]) -> None:
        """Say what a shard lacks, in the stead of what was said before; nothing is kept where it lacks nothing."""
        path = self._folder / f"{row.replace(':', '').replace('-', '')}.{block[0]}.{block[1]}.json"
        if not missing:
            path.unlink(missing_ok=True)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {"row": row, "block": list(block), "missing": [asdict(each) for each in missing]}
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(content, sort_keys=True), encoding="utf-8")
        partial.replace(path)

    def __iter__(self) -> Iterator[tuple[str, tuple[int, int], tuple[Missing, ...]]]:
        """Row, shard and what it lacks."""
        for path in sorted(self._folder.glob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            y, x = content["block"]
            yield content["row"], (y, x), tuple(Missing(**each) for each in content["missing"])


def missing_scenes(path: str | Path) -> pd.DataFrame:
    """The scenes that shards of a store were made without.

    Where nothing else was seen of a pixel that day, its ``glacier_probability`` is missing or rests on what the flags
    of ``quality`` say; no value was made up. ``run: {retry_missing: true}`` does these shards again.

    Parameters
    ----------
    path : str or Path
        Folder of the store.

    Returns
    -------
    DataFrame
        A row per shard and scene: ``time`` (row of the store), ``block_y`` and ``block_x`` (shard), ``scene``, ``band``
        (the first that could not be read), ``failure`` (``permanent`` or ``authorisation``) and ``reason``.

    Raises
    ------
    StoreError
        If there is no store.
    """
    folder = Path(path)
    if not (folder / "zarr.json").is_file():
        raise StoreError(f"there is no store at {folder}", "check the path")
    found = [
        (pd.Timestamp(row), *block, each.scene, each.band, each.failure, each.reason)
        for row, block, missing in MissingRecord(folder)
        for each in missing
    ]
    frame = pd.DataFrame(found, columns=list(MISSING_COLUMNS)).astype({"time": "datetime64[s]"})
    return frame.sort_values(list(MISSING_COLUMNS[:4]), ignore_index=True)
