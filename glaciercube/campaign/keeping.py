"""Dates that are stored keep the companions that they were made with, whatever a later search found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.catalog import Scenes
from glaciercube.cube import Row
from glaciercube.store import row_label

__all__ = ["Kept", "keep_companions"]

Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """A time axis on which older rows are as they were.

    Attributes
    ----------
    rows : tuple of Row
        The time axis.
    picked : tuple of array of int
        Per row, the scenes that it is made of, as places in the table.
    alone : frozenset of int
        Rows that leave out scenes which others would let in: each is read by itself.
    """

    rows: tuple[Row, ...]
    picked: tuple[Indices, ...]
    alone: frozenset[int] = frozenset()


def keep_companions(
    scenes: Scenes, free: Kept, made_of: Mapping[str, Sequence[str]], plan: Callable[[Scenes], Sequence[Row]]
) -> Kept:
    """Give rows whose leading scenes are still the same the companions that they had.

    A row keeps them if the scenes of the sensor that leads it are those it was made of, and all of its other scenes are
    still known. One whose own scenes changed is composed anew, of what is known now.

    Parameters
    ----------
    scenes : Scenes
        All that are known now.
    free : Kept
        Rows as these scenes would make them.
    made_of : mapping
        Row label -> identifiers of the scenes that it was made of.
    plan : callable
        Some of the scenes -> the rows that they make.
    """
    table = scenes.table
    nodes = np.array([scenes.sensor(name).node for name in scenes.sensors])
    still = np.array([scenes.sensor(name).static for name in scenes.sensors])
    number = {name: index for index, name in enumerate(scenes.sensors)}
    sensor = np.array([number[name] for name in table["sensor"]], np.int64)
    times = table["time"].to_numpy().astype("datetime64[ms]")
    place = {name: index for index, name in enumerate(table["id"])}
    rows, picked, alone = list(free.rows), list(free.picked), set(free.alone)
    for index, row in enumerate(free.rows):
        before = made_of.get(row_label(row.time))
        if before is None:
            continue
        known = np.array(sorted(place[name] for name in before if name in place), np.int64)
        now = free.picked[index]
        ground = now[still[sensor[now]]]
        moving = known[~still[sensor[known]]]
        lost = len(known) < len(before)
        wanted = np.union1d(ground, moving)
        if lost or np.array_equal(wanted, now):
            continue
        leading = next(iter(row.members), "")
        own = np.array(row.members.get(leading, ())).astype("datetime64[ms]")

        def of_its_own(places: Indices, leading: str = leading, own: npt.NDArray[np.datetime64] = own) -> Indices:
            mine: npt.NDArray[np.bool_] = (nodes[sensor[places]] == leading) & np.isin(times[places], own)
            found: Indices = places[mine]
            return found

        if not np.array_equal(of_its_own(moving), of_its_own(now)):
            continue
        some = replace(scenes, table=table.iloc[wanted].reset_index(drop=True))
        again = next((one for one in plan(some) if one.time == row.time), None)
        if again is not None:
            rows[index], picked[index] = again, wanted
            alone.add(index)
    return Kept(tuple(rows), tuple(picked), frozenset(alone))
