"""Leaving scenes out: within a block of code, what cannot be read is nothing, if it was said so before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["is_left_out", "leaving_out"]

_left: ContextVar[frozenset[str]] = ContextVar("glaciercube_left_out", default=frozenset())


@contextmanager
def leaving_out(scenes: frozenset[str]) -> Iterator[None]:
    """Read nothing of some scenes: their pixels are "no data", in all bands, so that no half scene enters.

    It holds for reads of this thread and context alone: computations under it must be synchronous
    (``compute(scheduler="synchronous")``).

    Parameters
    ----------
    scenes : frozenset of str
        STAC identifiers.
    """
    token = _left.set(scenes)
    try:
        yield
    finally:
        _left.reset(token)


def is_left_out(scene: str) -> bool:
    """True if nothing is to be read of a scene."""
    return bool(scene) and scene in _left.get()
