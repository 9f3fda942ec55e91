"""Scenes that shards were made without: they were found and could not be read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MISSING_COLUMNS", "Missing"]

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
