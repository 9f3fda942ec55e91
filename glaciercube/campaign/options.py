"""How units are run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from glaciercube.errors import require
from glaciercube.inference import BlockOptions
from glaciercube.store import Check

__all__ = ["RunOptions"]


@dataclass(frozen=True)
class RunOptions:
    """How units are run.

    Attributes
    ----------
    threads : int
        Units at a time; as many as there are cores by default.
    dates : int
        Dates read, predicted and written at a time; bounds memory.
    block : BlockOptions
        Batch and device.
    progress : bool
        Show a progress bar.
    retry_missing : bool
        Do those shards again, too, that were made without some scenes because they could not be read.
    only_failed : bool
        Do only what failed before (`glaciercube.campaign.failed_shards`), and with `retry_missing` what lacks scenes.
    check : {"size", "sha256", "none"}
        How what the store holds is held against what was recorded; see `glaciercube.store.Store.done`.
    takeover : bool
        Take the store from a run that has died on another machine, before its lease ends.
    in_flight : int or None
        Units of ``dates`` dates that are under way on a cluster; by default two per thread of it.
    levels : bool
        Build the coarser levels for viewers of the dates that are complete, at the end (`glaciercube.store.levels`).
    events : str
        Event log, to which lines are added (`glaciercube.campaign.events.Watch`): a path; ``beside`` the store
        (``NAME.events.jsonl``; a bucket has none); or empty for none.
    """

    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    dates: int = 4
    block: BlockOptions = field(default_factory=BlockOptions)
    progress: bool = False
    retry_missing: bool = False
    only_failed: bool = False
    check: Check = "size"
    takeover: bool = False
    in_flight: int | None = None
    levels: bool = False
    events: str = "beside"

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads), ("dates", self.dates), ("in_flight", self.in_flight)):
            require(value is None or value >= 1, f"{name} {value} is not a number of {name}", "give 1 or more")
        known = get_args(Check)
        require(self.check in known, f"{self.check!r} is no check of a store", f"give one of {', '.join(known)}")

    def event_log(self, store: str) -> Path | None:
        """Path of the event log of a run into a store; None for none."""
        if self.events != "beside":
            return Path(self.events) if self.events else None
        if "://" in store:
            return None
        path = Path(store).absolute()
        return path.with_name(f"{path.name}.events.jsonl")
