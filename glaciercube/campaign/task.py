"""Tasks: some dates of a unit, with all that is needed to do them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from glaciercube.campaign.plan import Plan, Unit
from glaciercube.campaign.unit import UnitJob, unit_job

__all__ = ["Step", "Task", "tasks"]


@dataclass(frozen=True)
class Task:
    """Some dates of a unit, with all that is needed to do them; can be pickled.

    Attributes
    ----------
    unit : Unit
        The shard and its rows.
    whole : UnitJob
        What the unit's cube is made from, of which these dates are a part.
    name : tuple
        By which tasks of one whole are known.
    places : tuple of int
        Of its rows within the whole.
    contexts : tuple of tuple of int
        Per row, the places that it is made of: its own, and those of the dates that the model looks at beside it.
    times : (time) datetime64[s]
        Its rows.
    keys : tuple of str
        What is recorded with each.
    scenes : tuple of tuple of str
        Per place of the whole, scenes that it depends on, without the ground's.
    days : tuple of float
        Per place of the whole, in days from any day; empty where the model looks at single dates.
    """

    unit: Unit
    whole: UnitJob = field(repr=False)
    name: tuple[Hashable, ...]
    places: tuple[int, ...]
    contexts: tuple[tuple[int, ...], ...] = field(repr=False)
    times: npt.NDArray[np.datetime64]
    keys: tuple[str, ...]
    scenes: tuple[tuple[str, ...], ...] = field(repr=False)
    days: tuple[float, ...] = field(default=(), repr=False)

    @property
    def reads(self) -> tuple[int, ...]:
        """Places of the whole that are read, in order."""
        return tuple(sorted({place for context in self.contexts for place in context}))

    def some(self, chosen: Sequence[int]) -> Task:
        """The same for some of its rows, by their places in it."""
        return replace(
            self,
            unit=replace(self.unit, rows=tuple(self.unit.rows[i] for i in chosen)),
            places=tuple(self.places[i] for i in chosen),
            contexts=tuple(self.contexts[i] for i in chosen),
            times=self.times[list(chosen)],
            keys=tuple(self.keys[i] for i in chosen),
        )


def tasks(plan: Plan, unit: Unit, dates: int, shared: Sequence[str] = ()) -> Iterator[Task]:
    """Cut a unit into tasks of a few dates, which bound memory; one that holds nothing stays whole.

    Parameters
    ----------
    plan : Plan
        The job.
    unit : Unit
        One of its units.
    dates : int
        Rows of a task, at most.
    shared : sequence of str
        Scenes that all rows depend on, beside their own; see `Witnesses`.
    """
    reads = unit.rows if unit.skip else plan.reads(unit.rows)
    place = {row: number for number, row in enumerate(reads)}
    whole = Task(
        unit,
        unit_job(plan, unit),
        (unit.block, unit.rows),
        places=tuple(place[row] for row in unit.rows),
        contexts=tuple(tuple(place[other] for other in plan.reads((row,)) if other in place) for row in unit.rows),
        times=np.array([plan.rows[row].time for row in unit.rows]).astype("datetime64[s]"),
        keys=tuple(plan.unit_keys(unit)),
        scenes=tuple(
            tuple(scene for scene in dict.fromkeys((*plan.scene_ids[row], *shared)) if scene not in plan.ground_ids)
            for row in reads
        ),
        days=() if plan.model.contract.time_context is None else tuple(plan.days[row] for row in reads),
    )
    rows = range(len(unit.rows))
    # What is not read and not predicted takes no memory.
    step = len(rows) if unit.skip else dates
    for start in range(0, len(rows), step):
        yield whole.some(rows[start : start + step])


@dataclass(frozen=True)
class Step:
    """One step of a unit, for the event log.

    Attributes
    ----------
    name : str
        Which.
    began : float
        Seconds since 1970.
    seconds : float
        How long it took.
    bytes : int
        Of what it handed on.
    worker : str
        Address of the worker, or name of the thread.
    """

    name: Literal["read", "predicted", "written"]
    began: float
    seconds: float
    bytes: int
    worker: str
