"""How a plain Zarr store comes to be: begun by a marker, finished by its root, written last."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import xarray as xr
import zarr
from zarr.storage import MemoryStore

from glaciercube.errors import StoreError
from glaciercube.store.axis import PROVENANCE
from glaciercube.store.layout import StoreOptions, encoding
from glaciercube.store.objects import Objects

__all__ = ["LEASE", "LEDGER", "consolidate", "create", "is_there"]

# The provenance variable is a scalar array, whose folder no Zarr reader lists.
LEASE: Final = f"{PROVENANCE}/lease"
LEDGER: Final = f"{PROVENANCE}/ledger"
_BEGUN: Final = f"{PROVENANCE}/begun"


def is_there(objects: Objects, path: str) -> bool:
    """True if there is a store; False if there is nothing, or one that was only begun.

    Raises
    ------
    StoreError
        If there is something else.
    """
    try:
        objects.get("zarr.json")
    except FileNotFoundError:
        pass
    else:
        return True
    found = begun = False
    for entry in objects.list():
        found |= not entry.key.startswith(f"{LEASE}/")
        begun |= entry.key == _BEGUN
        if found and begun:
            break
    if found and not begun:
        raise StoreError(f"{path} exists and is not a probability store (no Zarr group)", "choose another path")
    return False


def create(objects: Objects, empty: xr.Dataset, options: StoreOptions) -> None:
    """Make the store; what is there of an earlier attempt is written over.

    Nothing can be renamed in a bucket: that it was begun is said first, and its root is written last.
    """
    held: dict[str, Any] = {}
    with _quiet():
        empty.to_zarr(
            MemoryStore(held),
            compute=False,
            zarr_format=3,
            consolidated=True,
            encoding=encoding(options, [str(name) for name in empty.variables]),
        )
    objects.put(_BEGUN, b"")
    for key in sorted(held, key=lambda key: key == "zarr.json"):
        objects.put(key, bytes(held[key].to_bytes()))
    objects.delete(_BEGUN)


def consolidate(objects: Objects) -> None:
    """Keep all metadata in one object, for readers that open a store in one request."""
    with _quiet():
        zarr.consolidate_metadata(objects.zarr())


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Every reader that knows consolidated metadata opens the store in one request; others do without.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        yield
