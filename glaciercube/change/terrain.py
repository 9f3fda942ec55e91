"""Whether maps that were made with terrain may be compared between dates: an old elevation model hides retreat.

`terrain.json` holds, per model and by its hash, the share of a true loss of ice that was detected with terrain on, off
and stale, as ``python -m glaciercube.bench.retreat --record`` measured it. Where less than `WANTED` is detected, maps
that were made with terrain are not compared between dates unless that is asked for; of a model without a record it is
said that it was not measured.
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
from typing import Any, Final, Literal

import xarray as xr

from glaciercube.errors import StoreError
from glaciercube.store import provenance_of

__all__ = [
    "MADE",
    "RECORDS",
    "TERRAIN_VARIABLES",
    "WANTED",
    "TerrainRecord",
    "TerrainUse",
    "TerrainWarning",
    "check_terrain",
    "read_terrain_records",
    "terrain_use",
    "warn_of_terrain",
    "write_terrain_record",
]

#: Share of a true loss that must be detected with terrain on, fresh and stale, for it to be used for change.
WANTED: Final = 0.95
#: The records that come with the package.
RECORDS: Final = Path(str(files("glaciercube.change") / "terrain.json"))
#: Variables of an elevation model, which may be older than the images.
TERRAIN_VARIABLES: Final = (
    *("elevation", "slope", "aspect_sin", "aspect_cos", "curvature", "profile_curvature", "ruggedness"),
    *("topographic_position", "hillshade"),
)
#: Attribute that says of a cube without provenance what its observations were made with, as JSON.
MADE: Final = "observed_with"
# Modalities that are made of elevation, by the names that the package gives them: for stores that tell no variables.
_MODALITIES: Final = ("terrain", "relief", "illumination", "dem")
_REMEDY: Final = (
    "make a store without terrain (leave dem out of sensors) and compare that, or compare these maps all the same with "
    "allow_terrain=True (--allow-terrain)"
)

Share = tuple[float, float, float]
State = Literal["none", "shown", "hidden", "unmeasured"]


class TerrainWarning(UserWarning):
    """Maps of several dates were made with an elevation model that may hide how they differ."""


@dataclass(frozen=True)
class TerrainRecord:
    """What was detected of a loss.

    Attributes
    ----------
    model, model_hash : str
        Which model; the hash is what counts.
    modalities : tuple of str
        Those of its modalities that are made of elevation.
    loss : float
        Share of the ice that went.
    scenes : int
        Pairs of dates that it was measured on, in each family.
    shares : mapping of str to mapping of str to mapping of str to (float, float, float)
        Family of the simulated world -> ``fresh``, ``stale``, ``off`` -> measure -> share with its 95 % interval over
        scenes. Measures as of `glaciercube.bench.retreat.verdict`; ``detected`` is the one that counts.
    """

    model: str
    model_hash: str
    modalities: tuple[str, ...]
    loss: float
    scenes: int
    shares: Mapping[str, Mapping[str, Mapping[str, Share]]]

    def detected(self, terrain: str) -> float:
        """Of the pixels that lost their ice and were called ice before, the share called no ice after; the least."""
        return min(family[terrain]["detected"][0] for family in self.shares.values())

    @property
    def usable(self) -> bool:
        """Whether terrain may be used for change: enough is detected with it, be it fresh or stale."""
        return min(self.detected("fresh"), self.detected("stale")) >= WANTED


@dataclass(frozen=True)
class TerrainUse:
    """What is known of the use of terrain for change.

    Attributes
    ----------
    state : {"none", "shown", "hidden", "unmeasured"}
        No terrain was used, or nothing says how the maps were made; terrain was used and enough of a loss is detected;
        or too little is; or that was never measured for this model.
    used : tuple of str
        Modalities that are made of elevation.
    text : str
        A sentence on it, empty where nothing is wrong.
    """

    state: State
    used: tuple[str, ...] = ()
    text: str = ""


def read_terrain_records(path: Path = RECORDS) -> tuple[TerrainRecord, ...]:
    """Records of a file; none if there is no such file."""
    if not path.is_file():
        return ()
    found = []
    for content in json.loads(path.read_text(encoding="utf-8")):
        shares = {
            family: {
                terrain: {name: tuple(values) for name, values in measures.items()}
                for terrain, measures in terrains.items()
            }
            for family, terrains in content["shares"].items()
        }
        found.append(TerrainRecord(**{**content, "shares": shares, "modalities": tuple(content["modalities"])}))
    return tuple(found)


def write_terrain_record(record: TerrainRecord, path: Path = RECORDS) -> None:
    """Put a record in the place of that of the same weights, or add it."""
    others = [other for other in read_terrain_records(path) if other.model_hash != record.model_hash]
    content = [asdict(one) for one in sorted([*others, record], key=lambda one: (one.model, one.model_hash))]
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    _shipped.cache_clear()


@cache
def _shipped() -> tuple[TerrainRecord, ...]:
    return read_terrain_records()


def terrain_use(cube: xr.Dataset, records: Iterable[TerrainRecord] | None = None) -> TerrainUse:
    """Whether maps were made with terrain, and whether that hides change.

    Parameters
    ----------
    cube : Dataset
        A store, a prediction, or what `with_prior` made of one.
    records : iterable of TerrainRecord or None
        Those of the package by default.
    """
    made = provenance_of(cube)
    if "modalities" not in made:
        made = json.loads(made.get(MADE, "{}"))
    named, given = str(made.get("model", "the model")), [str(name) for name in made.get("modalities", ())]
    known = {record.model_hash: record for record in (_shipped() if records is None else records)}
    record = known.get(str(made.get("model_hash", "")))
    if record is None:
        return _unmeasured(named, given, made.get("variables"))
    used = tuple(name for name in record.modalities if name in given)
    if not used or record.usable:
        return TerrainUse("shown" if used else "none", used)
    fresh, stale, off = (f"{100 * record.detected(terrain):.0f} %" for terrain in ("fresh", "stale", "off"))
    text = (
        f"the maps were made with {', '.join(used)}, and so {named} detects {fresh} of a true loss of ice under "
        f"an elevation model of the last date and {stale} under one from before the loss ({off} without terrain), "
        f"where {100 * WANTED:.0f} % are wanted"
    )
    return TerrainUse("hidden", used, text)


def _unmeasured(model: str, modalities: Iterable[str], variables: Any) -> TerrainUse:
    """Of a model without a record: by the variables where they are told, else by the names of its modalities."""
    known = (*TERRAIN_VARIABLES, *_MODALITIES)
    used = tuple(n for n in modalities if n in known) or tuple(str(v) for v in variables or () if v in known)
    if not used:
        return TerrainUse("none")
    text = (
        f"the maps were made with {', '.join(used)}, and whether that hides change was not measured for these weights "
        f"of {model}: python -m glaciercube.bench.retreat --record measures it, and a store without dem in its sensors "
        "has no such doubt"
    )
    return TerrainUse("unmeasured", used, text)


def check_terrain(cube: xr.Dataset, *, allow: bool = False, stacklevel: int = 3) -> None:
    """Refuse, or warn of, a comparison of dates that terrain may spoil.

    Parameters
    ----------
    cube : Dataset
        As of `terrain_use`.
    allow : bool
        Whether to warn only where a model is known to hide change under terrain.
    stacklevel : int
        Of the warning.

    Raises
    ------
    StoreError
        If the model is known to hide change under terrain, unless that is allowed.

    Warns
    -----
    TerrainWarning
        If it is allowed, or was not measured.
    """
    use = terrain_use(cube)
    if use.state == "hidden" and not allow:
        raise StoreError(use.text, _REMEDY)
    if use.text:
        warnings.warn(use.text, TerrainWarning, stacklevel=stacklevel)


def warn_of_terrain(cube: xr.Dataset, stacklevel: int = 3) -> None:
    """Warn if the dates of a series should not be compared because of terrain, or nobody knows."""
    use = terrain_use(cube)
    if use.text:
        advice = ": each date is as good as it gets, their differences are not" if use.state == "hidden" else ""
        warnings.warn(use.text + advice, TerrainWarning, stacklevel=stacklevel)
