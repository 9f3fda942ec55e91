"""The probability cube on disk: layout, ownership of shards, ledger, provenance, and our opener."""

from __future__ import annotations

from glaciercube.store.layout import StoreOptions
from glaciercube.store.ledger import Ledger, Mark
from glaciercube.store.zarrstore import ZarrStore, open_store, provenance_of, row_label

__all__ = ["Ledger", "Mark", "StoreOptions", "ZarrStore", "open_store", "provenance_of", "row_label"]
