"""From an item, as a provider words it, to what glaciercube relies on: bands, offset, level, and where to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pystac

from glaciercube.catalog.profiles import CollectionProfile, Profile
from glaciercube.errors import BandError
from glaciercube.sensors import BandSource, Published, SceneFacts, Sensor, resolve_bands, stated

__all__ = ["resolve"]

_REMOVED = "earthsearch:boa_offset_applied"


def resolve(
    item: pystac.Item, sensor: Sensor, extra: Iterable[str] = (), profile: Profile | None = None, collection: str = ""
) -> tuple[SceneFacts, dict[str, BandSource]]:
    """Decide how a scene is to be used.

    The item is changed: hrefs become those that are read, and projection fields that the provider gets wrong go.

    Parameters
    ----------
    item : pystac.Item
        A scene.
    sensor : Sensor
        Of which sensor.
    extra : iterable of str
        Names of bands beyond those that are read by default.
    profile : Profile or None
        Of the provider; without one, what the item says and the sensor's own names must do.
    collection : str
        The collection that was searched.

    Raises
    ------
    BandError
        If the scene cannot be used.
    """
    rules = (profile.collections.get(collection) if profile else None) or CollectionProfile(sensor.name)
    if rules.sensor != sensor.name:
        rules = rules.only_places()
    _mend(item, rules)
    facts = sensor.facts(item)
    bands = resolve_bands(item, sensor, extra, rules.bands, rules.common)
    offset, notes = _offset(item, facts, bands, rules)
    if profile is not None:
        options = {name: profile.options_for(item.assets[band.asset].href) for name, band in bands.items()}
        bands = {name: dataclasses.replace(band, options=options[name]) for name, band in bands.items()}
    return dataclasses.replace(facts, offset=offset, notes=notes, level=rules.level or facts.level), bands


def _mend(item: pystac.Item, rules: CollectionProfile) -> None:
    for name in rules.distrust:
        item.properties.pop(name, None)
    for asset in item.assets.values():
        for name in rules.distrust:
            asset.extra_fields.pop(name, None)
        other = (asset.extra_fields.get("alternate") or {}).get(rules.alternate) or {}
        asset.href = str(other.get("href", asset.href))
        for start, instead in rules.hrefs.items():
            if asset.href.startswith(start):
                asset.href = instead + asset.href.removeprefix(start)


def _offset(
    item: pystac.Item, facts: SceneFacts, bands: Mapping[str, BandSource], rules: CollectionProfile
) -> tuple[float, dict[str, Any]]:
    """The offset by the provider's policy, and what was read to decide."""
    notes = dict(facts.notes)
    given = _one({_published(rules, band).offset for band in bands.values() if not band.categorical}, item)
    if given is not None:
        return given, {**notes, "offset_policy": "profile"}
    by_baseline = float(notes.get("offset_by_baseline", facts.offset))
    if rules.offset == "baseline":
        chosen = by_baseline
    elif rules.offset == "removed-if-flag":
        chosen = 0.0 if item.properties.get(_REMOVED) is True else by_baseline
    elif rules.offset == "declared":
        said = [stated(item, band.asset, band.inner).get("offset") for band in bands.values() if not band.categorical]
        declared = _one({None if value is None else float(value) for value in said}, item)
        chosen = by_baseline if declared is None else declared
    elif rules.offset == "none":
        chosen = 0.0
    else:
        return facts.offset, notes
    return chosen, {**notes, "offset_policy": rules.offset}


def _published(rules: CollectionProfile, band: BandSource) -> Published:
    choices = rules.bands.get(band.band, ())
    return next((c for c in choices if (c.asset, c.inner) == (band.asset, band.inner)), Published(band.asset))


def _one(values: set[float | None], item: pystac.Item) -> float | None:
    if len(values) > 1:
        raise BandError(
            f"scene {item.id} gives its bands different offsets", "leave it out: bands of one scene are read as one"
        )
    return next(iter(values), None)
