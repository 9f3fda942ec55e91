"""What is said of a Sentinel-2 scene's reflectance offset, by whom, and how a store keeps that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from glaciercube.catalog import Scenes
from glaciercube.sensors.sentinel2 import BASELINE_OFFSET

__all__ = [
    "FAILED",
    "SENSOR",
    "are_contradicted",
    "declared_offset",
    "looked_at",
    "offset_records",
    "with_records",
]

SENSOR: Final = "sentinel-2"
# How the reason of a look that failed begins; it is taken again another time.
FAILED: Final = "cannot"


def offset_records(scenes: Scenes) -> dict[str, dict[str, Any]]:
    """What decided the offset of each Sentinel-2 scene, for a store's provenance.

    Parameters
    ----------
    scenes : Scenes
        Settled or not.

    Returns
    -------
    dict
        Identifier -> ``offset``, ``baseline`` (its number), ``by_baseline``, ``by_provider``, and ``by_data`` if the
        pixels were looked at (None: they do not tell).
    """
    records = {}
    for row in scenes.of(SENSOR).table.itertuples():
        notes = json.loads(str(row.notes))
        records[str(row.id)] = {"offset": float(row.offset), **_said(notes)}
        if looked_at(notes):
            records[str(row.id)]["by_data"] = notes["offset_by_data"]
    return records


def with_records(scenes: Scenes, records: Any) -> Scenes:
    """Settle scenes by what their pixels showed another time, so that they need not be read again.

    Parameters
    ----------
    scenes : Scenes
        From `glaciercube.catalog.find`.
    records : mapping
        As `offset_records` gives it. One that is of a scene of another baseline or of another word of the provider's,
        or that makes no sense, does not count.
    """
    table = scenes.table.copy()
    for index in table.index[table["sensor"] == SENSOR] if isinstance(records, Mapping) else ():
        record, notes = records.get(table.at[index, "id"]), json.loads(table.at[index, "notes"])
        if not isinstance(record, Mapping) or record.get("by_data", "") not in (None, 0.0, BASELINE_OFFSET):
            continue
        if looked_at(notes) or any(record.get(name, "") != value for name, value in _said(notes).items()):
            continue
        notes.pop("offset_undecided", None)
        declared, by_data = declared_offset(notes, table.at[index, "offset"]), record["by_data"]
        table.at[index, "notes"] = json.dumps({**notes, "offset_by_data": by_data}, sort_keys=True)
        table.at[index, "offset"] = declared if by_data is None else float(by_data)
    return replace(scenes, table=table)


def are_contradicted(scenes: Scenes) -> bool:
    """True if there are Sentinel-2 scenes whose provider and baseline disagree, and whose pixels were not asked."""
    for text in scenes.of(SENSOR).table["notes"]:
        notes = json.loads(text)
        said = _said(notes)
        asked = "offset_by_data" in notes or said["by_provider"] is None
        if not asked and said["by_provider"] != said["by_baseline"]:
            return True
    return False


def looked_at(notes: Mapping[str, Any]) -> bool:
    """True if the pixels of a scene were looked at, whether they told or not."""
    return "offset_by_data" in notes and not str(notes.get("offset_undecided", "")).startswith(FAILED)


def _said(notes: Mapping[str, Any]) -> dict[str, float | None]:
    """What is declared of a scene: while this stays, so does what its pixels show."""
    names = {"baseline": "baseline", "by_baseline": "offset_by_baseline", "by_provider": "offset_by_provider"}
    return {name: notes.get(note) for name, note in names.items()}


def declared_offset(notes: Mapping[str, Any], otherwise: float) -> float:
    """The offset by what is declared: the provider's word, else the baseline's."""
    said = _said(notes)
    found = (said["by_provider"], said["by_baseline"], otherwise)
    return next(float(value) for value in found if value is not None)
