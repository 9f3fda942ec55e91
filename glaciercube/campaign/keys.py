"""What is recorded with each shard of what decided its pixels: a key that spells its parts, so that changes have names.

A key has `_SCENES` characters for the scenes, `_PART` for each of `PARTS` and one that says whether the shard was
computed; each is the beginning of a SHA-256 in base64. Two different scenes, or options, are taken for the same by
chance in one of 2^108, or 2^42, cases. No table of keys has to be kept beside a million shards.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["PARTS", "changed", "digest", "make_key", "skipped", "was_skipped"]

PARTS: Final = ("grid", "load", "compose", "mask", "model", "kernel")
_SCENES: Final = 18
_PART: Final = 7
_LENGTH: Final = _SCENES + _PART * len(PARTS) + 1
_COMPUTED, _SKIPPED = "c", "n"


def digest(value: Any) -> str:
    """A short hash of plain values.

    Parameters
    ----------
    value : object
        What JSON can spell; other things by their text.
    """
    return _hash(json.dumps(value, sort_keys=True, default=str).encode())[:_PART]


def make_key(decided: Mapping[str, str], scenes: Iterable[bytes]) -> str:
    """The key of a row where it is computed.

    Parameters
    ----------
    decided : mapping
        `digest` of each of `PARTS`.
    scenes : iterable of bytes
        What decides the pixels of each of its scenes.
    """
    return _hash(b"".join(scenes))[:_SCENES] + "".join(decided[name] for name in PARTS) + _COMPUTED


def skipped(key: str) -> str:
    """The key of a row where it was not computed, since there it holds nothing."""
    return key[:-1] + _SKIPPED


def was_skipped(key: str) -> bool:
    """Whether a key is of a shard that was not computed."""
    return key.endswith(_SKIPPED)


@functools.lru_cache(maxsize=65536)
def changed(old: str, new: str) -> tuple[str, ...]:
    """Names of what differs between two keys, in the order of ``("scenes", *PARTS)``; whether computed is left out.

    A key that was not made here differs in its ``version``.
    """
    if len(old) != _LENGTH or old[-1] not in (_COMPUTED, _SKIPPED):
        return ("version",)
    return tuple(name for name, part in _spans().items() if old[part] != new[part])


@functools.cache
def _spans() -> dict[str, slice]:
    spans = {"scenes": slice(0, _SCENES)}
    for number, name in enumerate(PARTS):
        spans[name] = slice(_SCENES + _PART * number, _SCENES + _PART * (number + 1))
    return spans


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
