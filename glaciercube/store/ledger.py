"""The ledger: which shard of which date was written, from what, with which checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "Mark", "checksum"]


@dataclass(frozen=True)
class Mark:
    """Proof that one shard of one date is done.

    Attributes
    ----------
    row : str
        The row's time, ISO 8601 to the second.
    block : (int, int)
        Row and column of the shard.
    key : str
        Hash over everything that decides its pixels.
    files : dict
        Path of each shard file relative to the store -> SHA-256 (hex); ``""`` where all is fill and no file exists.
    missing : tuple of dict
        The fields of `Missing` for each scene that it was made without.
    """

    row: str
    block: tuple[int, int]
    key: str
    files: dict[str, str]
    missing: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """File name of the mark."""
        return f"{self.row.replace(':', '').replace('-', '')}.{self.block[0]}.{self.block[1]}.json"


class Ledger:
    """Marks beside the data, each written after the shards that it vouches for; what is not marked is not done.

    Parameters
    ----------
    folder : Path
        Where the marks lie. Zarr readers never list it: it lies inside an array's folder.
    store : Path
        Root of the store.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self._folder, self._store = folder, store

    @classmethod
    def of(cls, store: Path) -> Ledger:
        """The ledger of a store.

        Parameters
        ----------
        store : Path
            Root of the store.
        """
        # The provenance variable is a scalar array, whose folder no Zarr reader lists.
        return cls(store / "provenance" / "ledger", store)

    def marks(self) -> dict[tuple[str, tuple[int, int]], Mark]:
        """All marks by row and block; a mark that cannot be read is as good as none."""
        found = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                mark = Mark(
                    content["row"],
                    tuple(content["block"]),
                    content["key"],
                    content["files"],
                    tuple(content.get("missing", ())),
                )
            except (OSError, ValueError, KeyError, TypeError):
                continue
            found[mark.row, mark.block] = mark
        return found

    def write(self, mark: Mark) -> None:
        """Write a mark atomically, after its shards are on disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / mark.name
        partial = target.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            content = asdict(mark)
            if not mark.missing:
                del content["missing"]
            json.dump(content, file, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)

    def remove(self, row: str, block: tuple[int, int]) -> None:
        """Withdraw a mark, before its shards are written anew."""
        (self._folder / Mark(row, block, "", {}).name).unlink(missing_ok=True)

    def holds(self, mark: Mark) -> bool:
        """True if every shard that the mark vouches for is there with its checksum."""
        return all(checksum(self._store / path) == digest for path, digest in mark.files.items())

    def sign(
        self,
        row: str,
        block: tuple[int, int],
        key: str,
        files: Iterable[str],
        missing: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Mark a shard done with the checksums of its files as they are now."""
        sums = {path: checksum(self._store / path) for path in files}
        self.write(Mark(row, block, key, sums, tuple(missing)))


def checksum(path: Path) -> str:
    """SHA-256 (hex) of a file; empty if there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
