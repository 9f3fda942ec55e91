"""What a store remembers of the plan that it was made by: the frozen search, and what each date was made of.

``plan.json`` names the snapshot of scenes (GeoParquet) beside it; both lie among the store's records and go where it
goes. A run whose configuration asks for the same search takes that snapshot, on whatever day and machine it is.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from odc.geo.geobox import GeoBox

from glaciercube.campaign.plan import Plan
from glaciercube.campaign.planning import decisions_of
from glaciercube.catalog import Scenes
from glaciercube.errors import StoreError
from glaciercube.store import (
    PLANNED,
    UNFINISHED,
    Records,
    StoreOptions,
    open_reader,
    open_records,
    open_store,
    provenance_of,
)

__all__ = ["Memory", "freeze", "remembered"]

_PLAN: Final = "plan.json"
# Parts of a request that say what was made of its ``time``, and when; and with ``time`` those in which one search
# differs from another that it goes on from.
_MADE: Final = ("searched", "asked")
_WHEN: Final = ("time", *_MADE)
# What chooses companions, of `glaciercube.campaign.keys.PARTS`.
_CHOOSING: Final = ("load", "compose")


@dataclass(frozen=True)
class Memory:
    """What a store remembers.

    Attributes
    ----------
    scenes : Scenes or None
        As they were frozen.
    request : mapping or None
        What was searched for; ``time`` as the configuration had it, ``searched`` as it was searched, ``asked`` when.
    decided : mapping
        Hashes of the options of that plan.
    made_of : mapping
        Row label -> identifiers of the scenes that it is, or is to be, made of.
    said : mapping
        What the store says while rows are made anew (`glaciercube.campaign.provenance.standing`).
    """

    scenes: Scenes | None
    request: Mapping[str, Any] | None
    decided: Mapping[str, str]
    made_of: Mapping[str, Sequence[str]]
    said: Mapping[str, Any]

    @property
    def stored(self) -> Mapping[str, Sequence[str]]:
        """As ``made_of``, of what is stored: a row that is being made anew stands here with its earlier scenes."""
        return dict(self.said.get("scenes", {}))

    def answers(self, request: Mapping[str, Any]) -> bool:
        """Whether the frozen scenes are the answer to a search."""
        return self.scenes is not None and _without(self.request, *_MADE) == _without(request, *_MADE)

    def continues(self, request: Mapping[str, Any] | None) -> bool:
        """Whether a search goes on from the frozen one: it differs in time alone."""
        return self.scenes is not None and _without(self.request, *_WHEN) == _without(request, *_WHEN)

    def goes_on(self, request: Mapping[str, Any] | None, found: Scenes) -> bool:
        """Whether found scenes go on from the frozen ones; a program's have no request, and are told by themselves."""
        return self.continues(request) or (self.request is None and self.is_of(found))

    def is_of(self, found: Scenes) -> bool:
        """Whether other scenes are of the same catalogue and sensors as the frozen ones."""
        known = self.scenes
        return known is not None and (known.source, known.sensors) == (found.source, found.sensors)

    def keeps(self, scenes: Scenes, decided: Mapping[str, str]) -> Mapping[str, Sequence[str]] | None:
        """What dates were made of, if companions are chosen in the same way still."""
        same = self.scenes is not None and self.scenes.sensors == scenes.sensors
        same = same and all(self.decided.get(name) == decided[name] for name in _CHOOSING)
        return self.made_of if same else None


def remembered(store: StoreOptions, geobox: GeoBox) -> Memory | None:
    """What a store remembers; None if there is none yet.

    Parameters
    ----------
    store : StoreOptions
        Where it is.
    geobox : GeoBox
        The grid that it must have.

    Raises
    ------
    GridMismatchError
        If a store of another grid is there.
    StoreError
        If something else is there, or it cannot be read.
    """
    if open_reader(store, geobox) is None:
        return None
    made = provenance_of(open_store(store.path, endpoint=store.endpoint))
    said: dict[str, Any] = {name: made[name] for name in ("scenes", PLANNED, UNFINISHED) if name in made}
    made_of = {**said.get("scenes", {}), **said.get(PLANNED, {})}
    records = open_records(store)
    known = _plan(records)
    data = records.get(str(known["scenes"])) if known else None
    if data is None:
        return Memory(None, None, {}, made_of, said)
    return Memory(_unpacked(data), known["request"], known["decided"], made_of, said)


def freeze(records: Records, plan: Plan) -> None:
    """Keep a plan's scenes, for the runs that come; to be called by the store's writer.

    Parameters
    ----------
    records : Records
        Of the plan's store.
    plan : Plan
        What is run.
    """
    decided = decisions_of(plan.region, plan.model, plan.load, plan.compose)
    wanted = {"request": _plain(plan.request), "decided": decided, "content": _content(plan.scenes)}
    known = _plan(records)
    if known and {name: known.get(name) for name in wanted} == wanted:
        return
    data = _packed(plan.scenes)
    name = f"scenes-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    records.put(name, data)
    # What names it comes after it, and what is no longer named goes last.
    records.put(_PLAN, json.dumps({**wanted, "scenes": name}).encode())
    for other in records.names():
        if other.startswith("scenes-") and other != name:
            records.delete(other)


def _plan(records: Records) -> dict[str, Any]:
    data = records.get(_PLAN)
    try:
        found = json.loads(data) if data is not None else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) and {"request", "decided", "scenes"} <= set(found) else {}


def _content(scenes: Scenes) -> str:
    """A hash of scenes with all that is said of them, among it where their files are."""
    found = hashlib.sha256()
    for text in scenes.decisive():
        found.update(text)
    for name in ("notes", "item"):
        for text in scenes.table[name]:
            found.update(text.encode())
    return found.hexdigest()


def _packed(scenes: Scenes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return scenes.save(Path(folder) / "scenes.parquet").read_bytes()


def _unpacked(data: bytes) -> Scenes:
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scenes.parquet"
            path.write_bytes(data)
            return Scenes.load(path)
    except OSError as error:
        raise StoreError(f"cannot unpack the store's scenes ({error.strerror})", "free space in TMPDIR") from None


def _without(request: Mapping[str, Any] | None, *names: str) -> Any:
    plain = _plain(request)
    return None if plain is None else {name: value for name, value in plain.items() if name not in names}


def _plain(request: Mapping[str, Any] | None) -> Any:
    return None if request is None else json.loads(json.dumps(dict(request), default=str))
