"""What a unit reads: scenes that can never be read are left out, and it is kept which and why."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy.typing as npt
import xarray as xr

from glaciercube.campaign.plan import Plan
from glaciercube.errors import ReadError
from glaciercube.reading.address import Address
from glaciercube.reading.leaving import leaving_out
from glaciercube.reading.reader import is_readable
from glaciercube.reading.retry import ReadOptions
from glaciercube.store import Missing

__all__ = ["Reading", "Witnesses", "computed"]

# Other scenes that are tried before a place as a whole is said to be out of reach.
_TRIES: Final = 5


def computed(part: xr.Dataset) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a dataset, read in this thread."""
    # Units are the parallelism: a read within one must not start another pool.
    loaded = part.compute(scheduler="synchronous")
    return {str(name): variable.to_numpy() for name, variable in loaded.data_vars.items()}


@dataclass(frozen=True)
class Witnesses:
    """Other files of the plan, by which a fault of one scene is told from a fault of its place.

    Attributes
    ----------
    uris : mapping
        Origin (host, bucket, disk) -> (scene, URI) of a few files, spread over the plan.
    signing : str
        How they are signed.
    read : ReadOptions
        How patient reads are.
    """

    uris: Mapping[str, tuple[tuple[str, str], ...]]
    signing: str
    read: ReadOptions

    @classmethod
    def of(cls, plan: Plan) -> Witnesses:
        """Choose them."""
        scenes = plan.scenes
        found: dict[str, list[tuple[str, str]]] = {}
        for item, bands in zip(scenes.items(), scenes.bands(), strict=True):
            band = next(iter(bands.values()), None)
            if band is not None:
                address = Address(item.assets[band.asset].href, inner=band.inner, options=band.options)
                found.setdefault(address.origin, []).append((item.id, address.uri))
        # What is gone may be gone by years or by tiles.
        spread = {origin: tuple(some[:: max(1, len(some) // (_TRIES + 1))]) for origin, some in found.items()}
        return cls(spread, scenes.signing, plan.load.read)


class Reading:
    """Reads for a plan; shared by all units of a process.

    Parameters
    ----------
    witnesses : Witnesses
        Of the plan.
    """

    def __init__(self, witnesses: Witnesses) -> None:
        self._witnesses = witnesses
        self._reached: dict[str, bool] = {}
        self._lock = threading.Lock()

    def compute(
        self, part: xr.Dataset, scenes: Collection[str], gone: dict[str, Missing]
    ) -> dict[str, npt.NDArray[Any]]:
        """Compute some rows of a block without the scenes that can never be read.

        Parameters
        ----------
        part : Dataset (time, y, x)
            The rows, lazily.
        scenes : collection of str
            The scenes that they are made of, without the ground's.
        gone : dict
            Scene -> why, of the scenes that this block is made without; more are added here.

        Raises
        ------
        ReadError
            If something else could not be read: what may be read later, the ground, or a place as a whole.
        """
        while True:
            try:
                with leaving_out(frozenset(gone)):
                    return computed(part)
            except ReadError as error:
                new = error.scene in scenes and error.scene not in gone
                if error.failure == "transient" or not new or not self._reaches(error):
                    raise
                gone[error.scene] = Missing(error.scene, error.band, error.failure, error.reason)

    def _reaches(self, error: ReadError) -> bool:
        """True if other scenes can be read from the same place: the fault is then the scene's own."""
        origin, known = Address(error.uri).origin, self._witnesses
        with self._lock:
            if origin not in self._reached:
                others = [uri for scene, uri in known.uris.get(origin, ()) if scene != error.scene]
                self._reached[origin] = any(is_readable(uri, known.signing, known.read) for uri in others[:_TRIES])
            return self._reached[origin]
