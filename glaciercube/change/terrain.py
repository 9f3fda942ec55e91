"""Whether maps that were made with terrain may be compared between dates: an old elevation model hides retreat.

`terrain.json` holds, per model, the share of a true loss of ice that was detected with terrain on, off and stale, as
``python -m glaciercube.bench.retreat --record`` measured it.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import xarray as xr

from glaciercube.store import provenance_of

__all__ = [
    "RECORDS",
    "WANTED",
    "TerrainRecord",
    "read_terrain_records",
    "terrain_caveat",
    "warn_of_terrain",
    "write_terrain_record",
]

#: Share of a true loss that must be detected with terrain on, fresh and stale, for it to be used for change.
WANTED: Final = 0.95
#: The records that come with the package.
RECORDS: Final = Path(str(files("glaciercube.change") / "terrain.json"))

Share = tuple[float, float, float]


@dataclass(frozen=True)
class TerrainRecord:
    """What was detected of a loss.

    Attributes
    ----------
    model, model_hash : str
        Which model.
    modalities : tuple of str
        Those of its modalities that are made of elevation.
    loss : float
        Share of the ice that went.
    scenes : int
        Pairs of dates that it was measured on.
    detected : mapping of str to (float, float, float)
        ``fresh``, ``stale``, ``off`` -> of the pixels that lost their ice and were called ice before, the share that
        was called no ice after, with its 95 % interval over scenes.
    area : mapping of str to (float, float, float)
        Likewise the loss of area that was told over the true one.
    """

    model: str
    model_hash: str
    modalities: tuple[str, ...]
    loss: float
    scenes: int
    detected: Mapping[str, Share]
    area: Mapping[str, Share]

    @property
    def usable(self) -> bool:
        """Whether terrain may be used for change: enough is detected with it, be it fresh or stale."""
        return min(self.detected[terrain][0] for terrain in ("fresh", "stale")) >= WANTED


def read_terrain_records(path: Path = RECORDS) -> tuple[TerrainRecord, ...]:
    """Records of a file; none if there is no such file."""
    if not path.is_file():
        return ()
    found = []
    for content in json.loads(path.read_text(encoding="utf-8")):
        shares = {
            name: {terrain: tuple(values) for terrain, values in content[name].items()} for name in ("detected", "area")
        }
        found.append(TerrainRecord(**{**content, **shares, "modalities": tuple(content["modalities"])}))
    return tuple(found)


def write_terrain_record(record: TerrainRecord, path: Path = RECORDS) -> None:
    """Put a record in the place of that of the same model, or add it."""
    others = [other for other in read_terrain_records(path) if other.model != record.model]
    content = [asdict(one) for one in sorted([*others, record], key=lambda one: one.model)]
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    _shipped.cache_clear()


@cache
def _shipped() -> tuple[TerrainRecord, ...]:
    return read_terrain_records()


def terrain_caveat(
    model_hash: str, modalities: Iterable[str], records: Iterable[TerrainRecord] | None = None
) -> str | None:
    """Why maps that a model made with some modalities should not be compared between dates; None if they may be.

    Parameters
    ----------
    model_hash : str
        The model.
    modalities : iterable of str
        What it was given.
    records : iterable of TerrainRecord or None
        Those of the package by default. Of a model without one nothing is known, and nothing said.
    """
    for record in _shipped() if records is None else records:
        used = [name for name in record.modalities if name in set(modalities)]
        if record.model_hash == model_hash and used and not record.usable:
            stale, off = (100 * record.detected[terrain][0] for terrain in ("stale", "off"))
            return (
                f"the maps were made with {', '.join(used)}, and {record.model} then detects {stale:.0f} % of a loss "
                f"of ice under an elevation model from before it ({off:.0f} % without): for change, make a store "
                f"without terrain (leave dem out of sensors)"
            )
    return None


def warn_of_terrain(cube: xr.Dataset, stacklevel: int = 3) -> None:
    """Warn if the maps of a store should not be compared between dates because of terrain."""
    made = provenance_of(cube)
    caveat = terrain_caveat(str(made.get("model_hash", "")), made.get("modalities", ()))
    if caveat:
        warnings.warn(caveat, UserWarning, stacklevel=stacklevel)
