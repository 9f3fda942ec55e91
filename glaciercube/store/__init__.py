"""The probability cube on disk: layout, ownership of shards, ledger, provenance, and our opener."""

from __future__ import annotations

from glaciercube.store.layout import StoreOptions
from glaciercube.store.ledger import Ledger, Mark
from glaciercube.store.missing import Missing, MissingRecord, missing_scenes
from glaciercube.store.zarrstore import ZarrStore, open_store, provenance_of, row_label

__all__ = [
    "Ledger",
    "Mark",
    "Missing",
    "MissingRecord",
    "StoreOptions",
    "ZarrStore",
    "missing_scenes",
    "open_store",
    "provenance_of",
    "row_label",
]
