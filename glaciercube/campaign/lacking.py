"""What a unit reads: scenes that can never be read are left out, and it is kept which and why."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy.typing as npt
import xarray as xr

from glaciercube.campaign.plan import Plan
from glaciercube.errors import ReadError
from glaciercube.reading.address import Address
from glaciercube.reading.leaving import leaving_out
from glaciercube.reading.reader import is_readable
from glaciercube.sensors import Layer
from glaciercube.store import Missing

__all__ = ["Reading", "computed"]

# Other scenes that are tried before a place as a whole is said to be out of reach.
_TRIES: Final = 5
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
class _File:
    """A band of a scene, where it lies."""

    scene: str
    collection: str
    address: Address
    signing: str


class Reading:
    """Reads for a plan; shared by all units of a process.

    Parameters
    ----------
    plan : Plan
        Whose scenes.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        table = plan.scenes.table
        static = {name for name in plan.scenes.sensors if plan.scenes.sensor(name).static}
        moving = [name not in static for name in table["sensor"]]
        self._moving = frozenset(table["id"][moving])
        # What every date depends on, beside its own scenes: the mask then asks the classification of all.
        persistent = plan.compose.mask.recover_ice == "persistent"
        self._shared = tuple(table["id"][table["sensor"] == "sentinel-2"]) if persistent else ()
        self._denied: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def compute(
        self, part: xr.Dataset, rows: Sequence[int], gone: dict[str, Missing]
    ) -> tuple[dict[str, npt.NDArray[Any]], list[list[Missing]]]:
        """Compute some rows of a block without the scenes that can never be read.

        Parameters
        ----------
        part : Dataset (time, y, x)
            The rows, lazily.
        rows : sequence of int
            Their indices in the plan.
        gone : dict
            Scene -> why, of the scenes that this block is made without; more are added here.

        Returns
        -------
        arrays : dict
            Variable -> array.
        missing : list of list of Missing
            Per row, the scenes that it depends on and was made without.

        Raises
        ------
        ReadError
            If something else could not be read: what may be read later, the ground, or a place as a whole. Where rows
            share scenes beyond their own, also if anything could not be read for several at once: each is then to be
            asked for by itself, since a scene whose bands one of them cannot have may be whole for the others.
        """
        here = {} if self._shared else gone
        known, again = {scene for row in rows for scene in self._scenes(row)} & self._moving, 0
        while True:
            try:
                with leaving_out(frozenset(here)):
                    arrays = computed(part)
            except ReadError as error:
                new = error.scene in known and error.scene not in here
                alone = len(rows) == 1 or not self._shared
                if error.failure == "transient" or not new or not alone or not self._reaches(error, here):
                    raise
                if error.failure == "authorisation" and self._readable_after_all(error):
                    # The refusal has passed: a token was replaced meanwhile.
                    again += 1
                    if again > _AGAIN:
                        raise
                    continue
                here[error.scene] = Missing(error.scene, error.band, error.failure, error.reason)
            else:
                return arrays, [[here[scene] for scene in self._scenes(row) if scene in here] for row in rows]

    def _scenes(self, row: int) -> tuple[str, ...]:
        """All that a row's pixels depend on."""
        return tuple(dict.fromkeys((*self.plan.scene_ids[row], *self._shared)))

    def _reaches(self, error: ReadError, gone: Iterable[str]) -> bool:
        """True if other scenes can be read from the same place now: the fault is then the scene's own.

        A refusal may be one of a token that is good for a collection: there the other scenes must be of the same.
        """
        origin = Address(error.uri).origin
        collections = {file.collection for file in self._files if file.scene == error.scene}
        alike = ",".join(sorted(collections)) if error.failure == "authorisation" else ""
        with self._lock:
            if time.monotonic() < self._denied.get((origin, alike), 0.0):
                return False
        but = {error.scene, *gone}
        first = {file.scene: file for file in reversed(self._files) if file.address.origin == origin}
        others = [
            file for file in first.values() if file.scene not in but and (not alike or file.collection in collections)
        ]
        # Spread over the plan: what is gone may be gone by years or by tiles.
        step = max(1, len(others) // _TRIES)
        found = any(self._is_readable(other) for other in others[::step][:_TRIES])
        if not found:
            with self._lock:
                self._denied[origin, alike] = time.monotonic() + _DENIED
        return found

    def _readable_after_all(self, error: ReadError) -> bool:
        files = [file for file in self._files if (file.scene, file.address.band) == (error.scene, error.band)]
        return bool(files) and all(self._is_readable(file) for file in files)

    def _is_readable(self, file: _File) -> bool:
        read = self.plan.load.read
        options = replace(read, attempts=min(read.attempts, 3), budget=min(read.budget, 60.0))
        return is_readable(file.address.uri, file.signing, options)

    @cached_property
    def _files(self) -> list[_File]:
        scenes = self.plan.scenes
        own = {name: scenes.sensor(name) for name in scenes.sensors}
        files = []
        rows = zip(scenes.items(), scenes.bands(), scenes.table["sensor"], scenes.table["collection"], strict=True)
        for item, bands, name, collection in rows:
            sensor = own[name]
            signing = sensor.signing if isinstance(sensor, Layer) and sensor.signing is not None else scenes.signing
            for band in bands.values():
                href = item.assets[band.asset].href
                address = Address(href, item.id, band.band, band.inner, options=band.options)
                files.append(_File(item.id, str(collection), address, signing))
        return files
