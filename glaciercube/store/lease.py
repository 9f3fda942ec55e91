"""The lease: one writer at a time, known by name, whose death is noticed.

Each lease is a file of its own with a number, made only if there is none of that number; the highest is in force. So
nothing but "make if absent" is asked of the disk or server, whoever takes over cannot be overtaken, and a writer that
slept through it sees a higher number before its next write.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from glaciercube.errors import GlaciercubeError, StoreError
from glaciercube.store.objects import Location, Objects, clear_errors

__all__ = ["Holder", "Lease", "Ticket"]

_log = logging.getLogger(__name__)

# Seconds that a lease lasts without a heartbeat; how often it is renewed; by how much clocks may disagree.
DURATION: Final = 120.0
_RENEWALS: Final = 4
SKEW: Final = 30.0
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Holder:
    """Who writes.

    Attributes
    ----------
    host, user : str
        Where and as whom.
    pid : int
        Process.
    machine : str
        Boot of the machine and namespace of its processes: within it, a pid says whether the process lives.
    born : str
        When the process began, by which it is told from a later one of the same pid.
    token : str
        Drawn for this lease.
    since, until : float
        When it was taken and when it ends unless renewed, seconds since 1970.
    released : bool
        It was given back.
    """

    host: str
    user: str
    pid: int
    machine: str
    born: str
    token: str
    since: float
    until: float
    released: bool = False

    @classmethod
    def here(cls, now: float, duration: float) -> Holder:
        """Of the process that asks."""
        pid = os.getpid()
        return cls(
            socket.gethostname(), _user(), pid, _machine(), _born(pid), secrets.token_hex(8), now, now + duration
        )

    @property
    def dead(self) -> bool:
        """True if it is known to have ended: it ran here, and does not any more."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) not in {self.born, _UNKNOWN}

    def __str__(self) -> str:
        this = ", this process" if (self.pid, self.born, self.machine) == _self() else ""
        until = datetime.fromtimestamp(self.until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.user}@{self.host} (pid {self.pid}{this}) until {until}"


@dataclass(frozen=True)
class Ticket:
    """A share in somebody's lease, for workers; can be pickled.

    Attributes
    ----------
    location : Location
        The store, or what the lease lies beside.
    folder : str
        Where leases lie in it.
    number : int
        Which lease.
    """

    location: Location
    folder: str
    number: int

    def check(self) -> None:
        """See that the lease is still in force; to be asked before every write.

        Raises
        ------
        StoreError
            If somebody else has taken it over, or it was given back.

        Notes
        -----
        Nothing guards the write between this and its end. On a server it may be repeated for twice
        `glaciercube.store.objects.RETRIES`, 4 min, and so end after another writer took over: at once where it was
        told to, or 120 s and 30 s after the last heartbeat. What is relied on then: such a write is of one whole
        shard; if the other has committed this shard, its etag or size is not the ledger's any more, so that
        ``done("size")`` does not count it and the next run makes it again; if not, the other writes over it. On a disk
        nothing is repeated, and a write lasts as long as the disk takes. On Icechunk what is written late is never
        seen: chunks have names of their own, and the commit is refused.
        """
        objects = self.location.objects()
        with clear_errors(self.location.path):
            latest = max(_numbers(objects, self.folder), default=0)
            known = _read(objects, self.folder, latest)
            if latest != self.number:
                raise _lost(self.location.path, known)
            if known is not None and known.released:
                raise StoreError(f"the store {self.location.path} was closed by its writer", "open it again")


class Lease:
    """The right to write, renewed by a thread of its own for as long as the process lives.

    Parameters
    ----------
    location : Location
        The store.
    folder : str
        Where its leases lie.
    duration : float
        Seconds that it lasts without a heartbeat.
    takeover : bool
        Take it from whoever has it.

    Raises
    ------
    StoreError
        If somebody else writes; if the server cannot keep two from taking it.
    """

    def __init__(self, location: Location, folder: str, *, duration: float = DURATION, takeover: bool = False) -> None:
        self._location, self._folder, self._duration = location, folder, duration
        objects = location.objects()
        with clear_errors(location.path):
            self.number, holder = self._take(objects, takeover)
        self._held = _Held(location, objects, _key(folder, self.number), holder)
        # Given back, too, when nobody holds on to it any more, and when the process ends in order.
        self._end = weakref.finalize(self, self._held.release)
        beat = (weakref.ref(self), self._held.ended, duration / _RENEWALS)
        threading.Thread(target=_beat, args=beat, daemon=True, name="glaciercube-lease").start()

    @property
    def ticket(self) -> Ticket:
        """A share for workers."""
        return Ticket(self._location, self._folder, self.number)

    def check(self) -> None:
        """See that the lease is still in force.

        Raises
        ------
        StoreError
            If it was given back, or somebody else has taken it over.
        """
        if self._held.ended.is_set():
            raise StoreError(f"the store {self._location.path} was closed", "open it again")
        self.ticket.check()

    def renew(self) -> None:
        """Say that this process still writes.

        Raises
        ------
        StoreError
            If somebody else has taken it over.
        """
        self.check()
        self._held.write(until=time.time() + self._duration)

    def release(self) -> None:
        """Give it back; may be called again."""
        self._end()

    def _take(self, objects: Objects, takeover: bool) -> tuple[int, Holder]:
        numbers = sorted(_numbers(objects, self._folder))
        latest = numbers[-1] if numbers else 0
        known = _read(objects, self._folder, latest) if latest else None
        free = known is None or known.released or known.dead or time.time() > known.until + SKEW
        if known is not None and not (free or takeover):
            raise _held(self._location.path, known)
        if known is not None and not known.released:
            _log.warning("the store %s is taken over from %s", self._location.path, known)
        holder, number = Holder.here(time.time(), self._duration), latest + 1
        try:
            objects.create(_key(self._folder, number), _text(holder))
        except FileExistsError:
            raise _held(self._location.path, _read(objects, self._folder, number)) from None
        self._see_that_it_was_made_once(objects, number, holder)
        for old in numbers:
            objects.delete(_key(self._folder, old))
        return number, holder

    def _see_that_it_was_made_once(self, objects: Objects, number: int, holder: Holder) -> None:
        try:
            objects.create(_key(self._folder, number), _text(replace(holder, token="second")))  # noqa: S106
        except FileExistsError:
            pass
        else:
            objects.delete(_key(self._folder, number))
            raise StoreError(
                f"the server of {self._location.path} does not honour If-None-Match, so that two could write at once",
                "use a server that does (Amazon's, SeaweedFS), or a folder",
            )
        # Numbers below the highest are deleted: who read the list long ago may have made one of those.
        if (latest := max(_numbers(objects, self._folder))) != number:
            objects.delete(_key(self._folder, number))
            raise _held(self._location.path, _read(objects, self._folder, latest))


class _Held:
    """A lease's file; does not know the lease, so that it can be given back when that is gone."""

    def __init__(self, location: Location, objects: Objects, key: str, holder: Holder) -> None:
        self.location, self.objects, self.key, self.holder = location, objects, key, holder
        self.ended, self._lock = threading.Event(), threading.Lock()

    def write(self, **changed: Any) -> None:
        with clear_errors(self.location.path), self._lock:
            if not self.ended.is_set() or "released" in changed:
                self.holder = replace(self.holder, **changed)
                self.objects.put(self.key, _text(self.holder))

    def release(self) -> None:
        self.ended.set()
        # A disk that is full says so elsewhere.
        with suppress(GlaciercubeError):
            self.write(released=True)


def _beat(lease: weakref.ref[Lease], ended: threading.Event, pause: float) -> None:
    while not ended.wait(pause):
        held = lease()
        if held is None:
            return
        try:
            held.renew()
        except GlaciercubeError as error:
            # It is not lost by that: `check` tells before the next write.
            _log.debug("the lease could not be renewed: %s", error)
        del held


def _numbers(objects: Objects, folder: str) -> set[int]:
    names = (entry.key.rpartition("/")[2].removesuffix(".json") for entry in objects.list(folder))
    return {int(name) for name in names if name.isdigit()}


def _key(folder: str, number: int) -> str:
    return f"{folder}/{number:010d}.json"


def _text(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), sort_keys=True).encode()


def _read(objects: Objects, folder: str, number: int) -> Holder | None:
    """Who holds it; None if that cannot be read, which nobody could ever mend."""
    try:
        return Holder(**json.loads(objects.get(_key(folder, number))))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _held(path: str, holder: Holder | None) -> StoreError:
    return StoreError(
        f"the store {path} is being written by {holder or 'somebody else'}",
        "wait until that run ends; if it has died, take the store over (run: {takeover: true})",
    )


def _lost(path: str, holder: Holder | None) -> StoreError:
    return StoreError(
        f"the store {path} was taken over by {holder or 'somebody else'}",
        "let that run end; what was finished here before is kept",
    )


def _self() -> tuple[int, str, str]:
    return os.getpid(), _born(os.getpid()), _machine()


def _machine() -> str:
    """Boot and namespace of processes, and the host; empty where a pid of another process says nothing."""
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}.{Path('/proc/self/ns/pid').readlink()}.{host}"
    except OSError:
        return host if os.name == "posix" and not Path("/proc").exists() else ""


def _born(pid: int) -> str:
    """When a process began, in ticks since the boot; `_UNKNOWN` if it lives and that is not said; empty if it ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        # Other users' processes may be hidden.
        return _UNKNOWN if _lives(pid) else ""
    # Field 22; the second is the program's name in brackets, which may hold anything. A zombie writes no more.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _lives(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else "somebody"
