"""The probability cube where it is kept: layout, ownership of shards, ledger, lease, provenance, and our opener."""

from __future__ import annotations

from glaciercube.store.axis import PLANNED, UNFINISHED, provenance_of
from glaciercube.store.base import Check, Handle, Store, Written, row_label
from glaciercube.store.layout import StoreOptions
from glaciercube.store.ledger import Ledger, Mark
from glaciercube.store.missing import Missing
from glaciercube.store.opening import missing_scenes, open_reader, open_records, open_store, open_writer, runs
from glaciercube.store.records import Records
from glaciercube.store.tidy import Tidied, tidy
from glaciercube.store.zarrstore import ZarrStore

__all__ = [
    "PLANNED",
    "UNFINISHED",
    "Check",
    "Handle",
    "Ledger",
    "Mark",
    "Missing",
    "Records",
    "Store",
    "StoreOptions",
    "Tidied",
    "Written",
    "ZarrStore",
    "missing_scenes",
    "open_reader",
    "open_records",
    "open_store",
    "open_writer",
    "provenance_of",
    "row_label",
    "runs",
    "tidy",
]
