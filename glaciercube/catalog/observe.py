"""From scenes to observations: duplicates go, parts of one pass share a label."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import pystac

from glaciercube.sensors import BandSource, SceneFacts, item_time

__all__ = ["Scene", "observations", "without_duplicates"]

# Slices of one pass follow each other within minutes; the next pass of one orbit is days away, and the satellite's next
# pass over a pole an hour and a half.
_ONE_PASS: Final = dt.timedelta(minutes=20)


@dataclass(frozen=True)
class Scene:
    """An item with what was decided of it.

    Attributes
    ----------
    item : pystac.Item
        As it was found.
    collection : str
        Where.
    facts : SceneFacts
        What it says of itself.
    bands : mapping
        Band name -> source.
    """

    item: pystac.Item
    collection: str
    facts: SceneFacts
    bands: Mapping[str, BandSource]

    @property
    def began(self) -> dt.datetime:
        """Start of the datatake where it is known, else the acquisition (UTC)."""
        return self.facts.began or item_time(self.item)


def without_duplicates(scenes: Iterable[Scene]) -> tuple[list[Scene], list[tuple[Scene, Scene]]]:
    """Keep one of the scenes that show the same ground at the same moment.

    Of one level, datatake and tile the newest processing baseline wins, wherever it was found. Parts of it (of two
    ground stations) complete each other, and all stay; of one part the scene processed last, and of equals the one
    whose collection was named first.

    Parameters
    ----------
    scenes : iterable of Scene
        In order of preference among equals.

    Returns
    -------
    kept : list of Scene
        One of each.
    lost : list of (Scene, Scene)
        Each other scene, with the one that is read instead.
    """
    everything = list(scenes)
    best: dict[tuple[str, str], Scene] = {}
    for scene in everything:
        key = (scene.facts.level, scene.facts.key)
        if key not in best or best[key].facts.rank < scene.facts.rank:
            best[key] = scene
    newest: dict[tuple[str, str, str], Scene] = {}
    for scene in everything:
        key = (scene.facts.level, scene.facts.key)
        # Parts of one baseline complete each other, so only the baseline ranks across parts.
        if scene.facts.rank[:1] == best[key].facts.rank[:1]:
            known = newest.get((*key, scene.facts.part))
            if known is None or known.facts.rank < scene.facts.rank:
                newest[*key, scene.facts.part] = scene
    kept = {id(scene) for scene in newest.values()}
    lost = [
        (
            scene,
            newest.get(
                (scene.facts.level, scene.facts.key, scene.facts.part), best[scene.facts.level, scene.facts.key]
            ),
        )
        for scene in everything
        if id(scene) not in kept
    ]
    return [scene for scene in everything if id(scene) in kept], lost


def observations(scenes: Iterable[Scene], longitude: float) -> list[tuple[str, str]]:
    """The solar day and the observation of each scene.

    The day is that of mean solar time at the region (15 degrees of longitude to the hour), at the start of the pass:
    one that crosses midnight, solar or UTC, stays one observation.

    Parameters
    ----------
    scenes : iterable of Scene
        Of one sensor.
    longitude : float
        Of the region's middle, in degrees.

    Returns
    -------
    list of (str, str)
        ISO date and name of the observation, in the scenes' order.
    """
    everything = list(scenes)
    labels: dict[int, tuple[str, str]] = {}
    last: dict[str, tuple[dt.datetime, tuple[str, str]]] = {}
    for index in sorted(range(len(everything)), key=lambda i: (everything[i].began, everything[i].item.id)):
        began, overpass = everything[index].began, everything[index].facts.overpass
        before = last.get(overpass)
        if overpass and before is not None and began - before[0] <= _ONE_PASS:
            labels[index] = before[1]
        else:
            day = (began + dt.timedelta(hours=longitude / 15.0)).date().isoformat()
            labels[index] = (day, f"{day}/{overpass}")
        last[overpass] = (began, labels[index])
    return [labels[index] for index in range(len(everything))]
