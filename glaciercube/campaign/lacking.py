"""What a unit reads: scenes that can never be read are left out, and it is kept which and why."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from glaciercube.campaign.plan import Plan
from glaciercube.catalog import Scenes
from glaciercube.errors import ReadError
from glaciercube.reading.address import Address
from glaciercube.reading.leaving import leaving_out
from glaciercube.reading.reader import is_readable
from glaciercube.reading.retry import ReadOptions
from glaciercube.sensors import Layer
from glaciercube.store import Missing

__all__ = ["File", "Reading", "Witnesses", "computed", "files_of", "spread"]

# Other scenes that are tried before a place as a whole is said to be out of reach.
_TRIES: Final = 5
# Scenes of each place and collection that are known for that.
_KEPT: Final = 40
# A scene that is refused, and is not when it is asked for again, is read anew so often.
_AGAIN: Final = 3
# Seconds for which a place that was out of reach is not asked again. That it was within reach is never kept: a token
# may end at any time, and what it refuses then is not lost.
_DENIED: Final = 60.0


def computed(part: xr.Dataset) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a dataset, read in this thread."""
    # Units are the parallelism: a read within one must not start another pool.
    loaded = part.compute(scheduler="synchronous")
    return {str(name): variable.to_numpy() for name, variable in loaded.data_vars.items()}


@dataclass(frozen=True)
class File:
    """A band of a scene, where it lies."""

    scene: str
    collection: str
    address: Address
    signing: str


@dataclass(frozen=True)
class Witnesses:
    """Other files of the plan, by which a fault of one scene is told from a fault of its place.

    Attributes
    ----------
    files : tuple of File
        Some of every place and collection, spread over the plan: what is gone may be gone by years or by tiles.
    read : ReadOptions
        How patient reads are.
    shared : tuple of str
        Scenes that all rows depend on, beside their own.
    """

    files: tuple[File, ...]
    read: ReadOptions
    shared: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> Witnesses:
        """Choose them."""
        found: dict[tuple[str, str], dict[str, File]] = {}
        # Of each collection a part, several times what is kept: it may lie in several places.
        for file in files_of(spread(plan.scenes, 4 * _KEPT)):
            found.setdefault((file.address.origin, file.collection), {}).setdefault(file.scene, file)
        chosen = [file for some in found.values() for file in list(some.values())[:: max(1, len(some) // _KEPT)]]
        table = plan.scenes.table
        # The mask of every date then asks the classification of all.
        persistent = plan.compose.mask.recover_ice == "persistent"
        shared = tuple(table["id"][table["sensor"] == "sentinel-2"]) if persistent else ()
        return cls(tuple(chosen), plan.load.read, shared)


def spread(scenes: Scenes, count: int) -> Scenes:
    """So many scenes of each collection at most, evenly over the table: a decade of a mountain range has 100,000."""
    table = scenes.table
    places = [np.asarray(rows) for rows in table.groupby(["sensor", "collection"]).indices.values()]
    chosen = [rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))] for rows in places]
    return replace(scenes, table=table.iloc[np.sort(np.concatenate(chosen))].reset_index(drop=True))


def files_of(scenes: Scenes) -> list[File]:
    """Every band of every scene, where it lies."""
    own = {name: scenes.sensor(name) for name in scenes.sensors}
    files = []
    rows = zip(scenes.items(), scenes.bands(), scenes.table["sensor"], scenes.table["collection"], strict=True)
    for item, bands, name, collection in rows:
        sensor = own[name]
        signing = sensor.signing if isinstance(sensor, Layer) and sensor.signing is not None else scenes.signing
        for band in bands.values():
            address = Address(item.assets[band.asset].href, item.id, band.band, band.inner, options=band.options)
            files.append(File(item.id, str(collection), address, signing))
    return files


class Reading:
    """Reads for a plan; shared by all units of a process.

    Parameters
    ----------
    witnesses : Witnesses
        Of the plan.
    """

    def __init__(self, witnesses: Witnesses) -> None:
        self._witnesses = witnesses
        self._denied: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def compute(
        self, part: xr.Dataset, rows: Sequence[Sequence[str]], own: Scenes, gone: dict[str, Missing]
    ) -> tuple[dict[str, npt.NDArray[Any]], list[tuple[Missing, ...]]]:
        """Compute some rows of a block without the scenes that can never be read.

        Parameters
        ----------
        part : Dataset (time, y, x)
            The rows, lazily.
        rows : sequence of sequence of str
            Per row, all scenes that its pixels depend on, without the ground's.
        own : Scenes
            What the block opens.
        gone : dict
            Scene -> why, of the scenes that this block is made without; more are added here.

        Returns
        -------
        arrays : dict of str to (time, y, x) array
            The pixels.
        missing : list of tuple of Missing
            Per row, the scenes that it was made without.

        Raises
        ------
        ReadError
            If something else could not be read: what may be read later, the ground, or a place as a whole. Where rows
            share scenes beyond their own, also if anything could not be read for several at once: each is then to be
            asked for by itself, since a scene whose bands one of them cannot have may be whole for the others.
        """
        shared = bool(self._witnesses.shared)
        here = {} if shared else gone
        known, again = {scene for scenes in rows for scene in scenes}, 0
        while True:
            try:
                with leaving_out(frozenset(here)):
                    arrays = computed(part)
            except ReadError as error:
                new = error.scene in known and error.scene not in here
                alone = len(rows) == 1 or not shared
                if error.failure == "transient" or not new or not alone or not self._reaches(error, own, here):
                    raise
                if error.failure == "authorisation" and self._readable_after_all(error, own):
                    # The refusal has passed: a token was replaced meanwhile.
                    again += 1
                    if again > _AGAIN:
                        raise
                    continue
                here[error.scene] = Missing(error.scene, error.band, error.failure, error.reason)
            else:
                return arrays, [tuple(here[scene] for scene in scenes if scene in here) for scenes in rows]

    def _reaches(self, error: ReadError, own: Scenes, gone: Collection[str]) -> bool:
        """True if other scenes can be read from the same place now: the fault is then the scene's own.

        A refusal may be one of a token that is good for a collection: there the other scenes must be of the same.
        """
        origin = Address(error.uri).origin
        collections = set(own.table["collection"][own.table["id"] == error.scene].astype(str))
        alike = ",".join(sorted(collections)) if error.failure == "authorisation" else ""
        with self._lock:
            if time.monotonic() < self._denied.get((origin, alike), 0.0):
                return False
        first = {file.scene: file for file in self._witnesses.files if file.address.origin == origin}
        others = [
            file
            for file in first.values()
            if file.scene not in {error.scene, *gone} and (not alike or file.collection in collections)
        ]
        step = max(1, len(others) // _TRIES)
        found = any(self._is_readable(other) for other in others[::step][:_TRIES])
        if not found:
            with self._lock:
                self._denied[origin, alike] = time.monotonic() + _DENIED
        return found

    def _readable_after_all(self, error: ReadError, own: Scenes) -> bool:
        files = [file for file in files_of(own) if (file.scene, file.address.band) == (error.scene, error.band)]
        return bool(files) and all(self._is_readable(file) for file in files)

    def _is_readable(self, file: File) -> bool:
        read = self._witnesses.read
        options = replace(read, attempts=min(read.attempts, 3), budget=min(read.budget, 60.0))
        return is_readable(file.address.uri, file.signing, options)
