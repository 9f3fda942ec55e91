"""What a process keeps of files on servers, and of what servers asked of it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

__all__ = ["BLOCK", "Cache", "Gates"]

# What is fetched at once at least: headers of cloud-optimised files fit in a few of these.
BLOCK: Final = 1 << 15
# Bytes of all files that this process keeps, so that the header of a file is fetched once for all its cells.
CACHE_BYTES: Final = 64 << 20
# Seconds after which a file is looked at anew.
_FRESH: Final = 600.0


class Cache:
    """Blocks of files, the least lately used dropped first."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._facts: dict[str, tuple[int, str, float]] = {}
        self._lock, self._size = threading.Lock(), 0

    def facts(self, href: str) -> tuple[int, str] | None:
        """Size and validator (ETag or date) of a file, if it was looked at lately."""
        with self._lock:
            size, validator, when = self._facts.get(href, (0, "", -_FRESH))
            return (size, validator) if time.monotonic() - when < _FRESH else None

    def learn(self, href: str, size: int, validator: str) -> None:
        """Keep what was found out of a file."""
        with self._lock:
            self._facts[href] = (size, validator, time.monotonic())

    def get(self, href: str, block: int) -> bytes | None:
        """A block of a file, if it is kept."""
        with self._lock:
            found = self._blocks.get((href, block))
            if found is not None:
                self._blocks.move_to_end((href, block))
            return found

    def put(self, href: str, first: int, content: bytes) -> None:
        """Keep consecutive blocks of a file."""
        with self._lock:
            for index in range(0, len(content), BLOCK):
                key, part = (href, first + index // BLOCK), content[index : index + BLOCK]
                self._size += len(part) - len(self._blocks.pop(key, b""))
                self._blocks[key] = part
            while self._size > CACHE_BYTES:
                self._size -= len(self._blocks.popitem(last=False)[1])

    def drop(self, href: str | None) -> None:
        """Keep nothing of a file, or of any."""
        with self._lock:
            for known in [known for known in self._facts if href in (None, known)]:
                del self._facts[known]
            for key in [key for key in self._blocks if href in (None, key[0])]:
                self._size -= len(self._blocks.pop(key))


class Gates:
    """Servers that asked this process to wait, whichever of its threads they told."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def shut(self, origin: str, seconds: float) -> None:
        """Ask nothing of a server for so long."""
        with self._lock:
            self._until[origin] = max(self._until.get(origin, 0.0), time.monotonic() + seconds)

    def left(self, origin: str) -> float:
        """Seconds until a server may be asked again; negative if it may be now."""
        with self._lock:
            return self._until.get(origin, 0.0) - time.monotonic()
