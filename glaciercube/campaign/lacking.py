"""What a unit reads: scenes that can never be read are left out, and it is kept which and why."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy.typing as npt
import xarray as xr

from glaciercube.campaign.plan import Plan
from glaciercube.errors import ReadError
from glaciercube.reading.address import Address
from glaciercube.reading.leaving import leaving_out
from glaciercube.reading.reader import is_readable
from glaciercube.store import Missing

__all__ = ["Reading", "computed"]

# Other scenes that are tried before a place as a whole is said to be out of reach.
_TRIES: Final = 5


def computed(part: xr.Dataset) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a dataset, read in this thread."""
    # Units are the parallelism: a read within one must not start another pool.
    loaded = part.compute(scheduler="synchronous")
    return {str(name): variable.to_numpy() for name, variable in loaded.data_vars.items()}


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
        self._reached: dict[str, bool] = {}
        self._lock = threading.Lock()

    def compute(self, part: xr.Dataset, rows: list[int], gone: dict[str, Missing]) -> dict[str, npt.NDArray[Any]]:
        """Compute some rows of a block without the scenes that can never be read.

        Parameters
        ----------
        part : Dataset (time, y, x)
            The rows, lazily.
        rows : list of int
            Their indices in the plan.
        gone : dict
            Scene -> why, of the scenes that this block is made without; more are added here.

        Raises
        ------
        ReadError
            If something else could not be read: what may be read later, the ground, or a place as a whole.
        """
        known = {scene for row in rows for scene in self.plan.scene_ids[row]} & self._moving
        while True:
            try:
                with leaving_out(frozenset(gone)):
                    return computed(part)
            except ReadError as error:
                new = error.scene in known and error.scene not in gone
                if error.failure == "transient" or not new or not self._reaches(error):
                    raise
                gone[error.scene] = Missing(error.scene, error.band, error.failure, error.reason)

    def _reaches(self, error: ReadError) -> bool:
        """True if other scenes can be read from the same place: the fault is then the scene's own."""
        origin = Address(error.uri).origin
        with self._lock:
            if origin not in self._reached:
                self._reached[origin] = self._any_readable(origin, error.scene)
            return self._reached[origin]

    def _any_readable(self, origin: str, but: str) -> bool:
        scenes = self.plan.scenes
        others = []
        for item, bands in zip(scenes.items(), scenes.bands(), strict=True):
            band = next(iter(bands.values()), None)
            if band is None or item.id == but:
                continue
            address = Address(item.assets[band.asset].href, inner=band.inner, options=band.options)
            if address.origin == origin:
                others.append(address)
        # Spread over the plan: what is gone may be gone by years or by tiles.
        step = max(1, len(others) // _TRIES)
        return any(is_readable(other.uri, scenes.signing, self.plan.load.read) for other in others[::step][:_TRIES])
