"""Small files that go where a store goes, on disk or in a bucket: what runs leave to later ones."""

from __future__ import annotations

from typing import Final

from glaciercube.store.axis import PROVENANCE
from glaciercube.store.objects import Location, clear_errors

__all__ = ["ICE_RECORDS", "ZARR_RECORDS", "Records"]

# Beside the ledger and the lease, where no Zarr reader lists them, and where Icechunk cleans nothing away.
ZARR_RECORDS: Final = f"{PROVENANCE}/records"
ICE_RECORDS: Final = "glaciercube/records"


class Records:
    """Files by name; each is replaced as a whole.

    Parameters
    ----------
    location : Location
        The store.
    folder : str
        Where they lie in it.
    """

    def __init__(self, location: Location, folder: str) -> None:
        self._location, self._folder = location, folder
        self._objects = location.objects()

    def names(self) -> list[str]:
        """Which there are.

        Raises
        ------
        StoreError
            If the disk or server does not answer; so do the others.
        """
        with clear_errors(self._location.path):
            return sorted(entry.key.removeprefix(f"{self._folder}/") for entry in self._objects.list(self._folder))

    def get(self, name: str) -> bytes | None:
        """Content; None if there is none."""
        with clear_errors(self._location.path):
            try:
                return self._objects.get(f"{self._folder}/{name}")
            except FileNotFoundError:
                return None

    def put(self, name: str, data: bytes) -> None:
        """Write or replace."""
        with clear_errors(self._location.path):
            self._objects.put(f"{self._folder}/{name}", data)

    def delete(self, name: str) -> None:
        """Remove, if it is there."""
        with clear_errors(self._location.path):
            self._objects.delete(f"{self._folder}/{name}")
