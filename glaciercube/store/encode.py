"""Shards as bytes: encoded here, so that what is stored, and its checksum, are known before it leaves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

__all__ = ["one_row", "shard_bytes"]


def one_row(metadata: bytes) -> bytes:
    """Metadata (``zarr.json``) of an array that is like another and has one row.

    Parameters
    ----------
    metadata : bytes
        Of an array (time, y, x).
    """
    content = json.loads(metadata)
    content["shape"][0] = 1
    return json.dumps(content).encode()


def shard_bytes(
    metadata: bytes, y: slice, x: slice, block: tuple[int, int], values: npt.NDArray[np.uint8]
) -> bytes | None:
    """One shard as it is stored.

    Parameters
    ----------
    metadata : bytes
        From `one_row`.
    y, x : slice
        Its pixels on the grid.
    block : (int, int)
        Its row and column.
    values : (y, x) uint8
        Its pixels.

    Returns
    -------
    bytes or None
        None where all is fill: nothing is stored then.
    """
    held: dict[str, Any] = {"zarr.json": default_buffer_prototype().buffer.from_bytes(metadata)}
    zarr.open_array(MemoryStore(held), mode="r+")[0, y, x] = values
    buffer = held.get(f"c/0/{block[0]}/{block[1]}")
    return None if buffer is None else bytes(buffer.to_bytes())
