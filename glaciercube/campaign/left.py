"""What is left to do of a plan, and why: never computed, changed (and what), lost, failed, made without some scenes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from glaciercube.campaign.failed import Failed, known_failures
from glaciercube.campaign.keys import PARTS, changed, was_skipped
from glaciercube.campaign.memory import remembered
from glaciercube.campaign.options import RunOptions
from glaciercube.campaign.plan import Plan
from glaciercube.store import Store, open_reader

__all__ = ["Left", "what_is_left"]

Bool = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint16]

# What may differ, as bits; and what else may be the matter.
_CHANGES: Final = ("scenes", *PARTS, "version", "candidates")
_BITS: Final = {name: 1 << number for number, name in enumerate(_CHANGES)}
_STATES: Final = tuple(1 << number for number in range(len(_CHANGES), len(_CHANGES) + 4))
_NEVER, _LOST, _LACKING, _FAILED = _STATES
# Bits of shards that were made in another way, whatever of.
_OTHERWISE: Final = np.uint16(sum(_BITS[name] for name in (*PARTS, "version")))
# Dates of changed scenes that are told with their scenes.
_TOLD: Final = 3
_WORDS: Final = {
    "grid": "the grid",
    "load": "load options",
    "compose": "compose options",
    "mask": "mask options",
    "model": "the model",
    "kernel": "glaciercube's kernel",
    "version": "glaciercube's version",
    "candidates": "which shards are candidates",
}


@dataclass(frozen=True)
class Left:
    """What is left to do.

    Attributes
    ----------
    todo : (block, row) bool
        Which shards.
    finished : (block, row) bool
        Which shards are done as the plan wants them.
    work : (block, row) bool
        Which shards of the plan hold anything; of the others it is only recorded that they do not.
    reasons : mapping of str to int
        Why, in words -> how many shards.
    details : tuple of str
        Scenes that changed, for the first dates.
    otherwise : mapping of str to int
        What changed since, in words -> how many shards the store holds that were made before (with another model ...).
    before : frozenset of str
        Labels of dates of which the store holds shards that were made of other scenes.
    """

    todo: Bool
    finished: Bool
    work: Bool
    reasons: Mapping[str, int]
    details: tuple[str, ...] = ()
    otherwise: Mapping[str, int] = field(default_factory=dict)
    before: frozenset[str] = frozenset()

    @property
    def shards(self) -> int:
        """How many are computed."""
        return int((self.todo & self.work).sum())

    @property
    def empty(self) -> int:
        """How many hold nothing, which has not been recorded yet."""
        return int(self.todo.sum()) - self.shards

    @property
    def done(self) -> int:
        """How many are done."""
        return int(self.finished.sum())

    def lines(self) -> list[str]:
        """The same in words."""
        lines = [f"{self.shards} shard{'s' * (self.shards != 1)} to compute, {self.done} done"]
        lines += [f"  {count}: {why}" for why, count in sorted(self.reasons.items(), key=lambda each: -each[1])]
        lines += [f"    {text}" for text in self.details]
        if self.empty:
            lines.append(f"  {self.empty} more hold nothing (no candidates), which is only written down")
        return lines


def what_is_left(
    plan: Plan,
    options: RunOptions | None = None,
    store: Store | None = None,
    failed: Iterable[Failed] | None = None,
    made_of: Mapping[str, Sequence[str]] | None = None,
) -> Left:
    """Hold a plan against its store.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    options : RunOptions or None
        How the store is checked, and what is done again.
    store : Store or None
        The plan's, if it is open already.
    failed : iterable of Failed or None
        What failed before; as the store remembers it by default.
    made_of : mapping or None
        Row label -> scenes that it was made of, by which changed scenes are named; as the store remembers it by
        default.
    """
    options = options or RunOptions()
    store = store or open_reader(plan.store, plan.region.geobox)
    codes, lookup = np.full((len(plan.blocks), len(plan.rows)), _NEVER, np.uint16), _Lookup(plan)
    if store is not None:
        _read(plan, store, options, codes, lookup)
        failed = known_failures(plan.store) if failed is None else failed
        if made_of is None:
            memory = remembered(plan.store, plan.region.geobox)
            made_of = memory.stored if memory else {}
    failures = np.zeros(codes.shape, np.bool_)
    for one in failed or ():
        place = lookup.place(one.row, one.block)
        if place is not None:
            failures[place] = True
    finished = codes == 0
    otherwise = _counts(codes[(codes & _OTHERWISE) > 0] & _OTHERWISE)
    before = frozenset(plan.labels[row] for row in np.flatnonzero(((codes & _BITS["scenes"]) > 0).any(axis=0)))
    codes[failures & ~finished] |= _FAILED
    if options.only_failed:
        wanted = failures | ((codes & _LACKING) > 0) if options.retry_missing else failures
        codes[~wanted] = 0
    todo = codes != 0
    details = tuple(_details(plan, codes, made_of or {}))
    return Left(todo, finished, plan.work, _counts(codes[todo & plan.work]), details, otherwise, before)


class _Lookup:
    """Where a shard of the store is in the plan."""

    def __init__(self, plan: Plan) -> None:
        self._rows = {label: row for row, label in enumerate(plan.labels)}
        self._blocks = plan.blocks

    def place(self, label: str, block: tuple[int, int]) -> tuple[int, int] | None:
        row, number = self._rows.get(label), self._blocks.number(block)
        return None if row is None or number is None else (number, row)


def _read(plan: Plan, store: Store, options: RunOptions, codes: Codes, lookup: _Lookup) -> None:
    """Fill in what a store holds; 0 is done."""
    work = plan.work
    recorded = store.done("none")
    for label, block, key in recorded:
        place = lookup.place(label, block)
        if place is not None:
            code = sum(_BITS[name] for name in changed(key, plan.keys[place[1]]))
            # What was computed before is as good where there is nothing.
            codes[place] = code | (_BITS["candidates"] if was_skipped(key) and work[place] else 0)
    if options.check != "none":
        there = store.done(options.check)
        if len(there) < len(recorded):
            codes[_without(there, codes, lookup)] |= _LOST
    if options.retry_missing:
        codes[_without(store.done("none", lacking=False), codes, lookup)] |= _LACKING


def _without(done: Iterable[tuple[str, tuple[int, int], str]], codes: Codes, lookup: _Lookup) -> Bool:
    """Shards that were recorded, and are not among these."""
    lost: Bool = (codes & _NEVER) == 0
    for label, block, _ in done:
        place = lookup.place(label, block)
        if place is not None:
            lost[place] = False
    return lost


def _counts(codes: Codes) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        why = _why(int(code))
        counts[why] = counts.get(why, 0) + int(count)
    return counts


def _why(code: int) -> str:
    """The first that applies, in this order."""
    if code & _FAILED:
        return "failed before"
    if code & _NEVER:
        return "never computed"
    if code & _LOST:
        return "lost or damaged in the store"
    names = [_WORDS[name] for name, bit in _BITS.items() if code & bit and name != "scenes"]
    if names:
        return f"changed: {', '.join(['scenes'] * bool(code & _BITS['scenes']) + names)}"
    if code & _BITS["scenes"]:
        return "scenes changed"
    return "made without some scenes, asked for again"


def _details(plan: Plan, codes: Codes, made_of: Mapping[str, Sequence[str]]) -> Iterable[str]:
    changes = np.atleast_1d(((codes & _BITS["scenes"]) > 0).any(axis=0))
    # A shard that a run was about to write anew is not marked any more: what it was made of is known all the same.
    for row in np.flatnonzero((codes > 0).any(axis=0) & ~changes).tolist():
        changes[row] = list(made_of.get(plan.labels[row], plan.scene_ids[row])) != list(plan.scene_ids[row])
    rows = np.flatnonzero(changes)
    for row in rows[:_TOLD].tolist():
        label, now = plan.labels[row], plan.scene_ids[row]
        before = made_of.get(label, now)
        new, gone = [name for name in now if name not in before], [name for name in before if name not in now]
        if new and gone:
            told = f"{_some(new)} instead of {_some(gone)}"
        elif new or gone:
            told = f"{_some(new)} is new" if new else f"{_some(gone)} is gone"
        elif plan.contexts[row] != (row,):
            told = "a date that it looks at, or what is said of its scenes"
        else:
            told = "what is said of its scenes (such as their sun, bands or offset)"
        yield f"{label}: {told}"
    if len(rows) > _TOLD:
        yield f"and {len(rows) - _TOLD} more dates"


def _some(names: Sequence[Any]) -> str:
    return f"{names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
