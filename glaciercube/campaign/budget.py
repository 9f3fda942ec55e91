"""What a plan may cost, and what things cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final

from glaciercube.errors import PlanError, require

if TYPE_CHECKING:
    from glaciercube.campaign.explain import Explanation

__all__ = ["Budget", "Prices", "check_budget"]


@dataclass(frozen=True)
class Prices:
    """A price table in US dollars; an estimate wants figures of this size, and yours are on your bill.

    Attributes
    ----------
    core_hour : float
        One virtual CPU with 4 GB for an hour. 0.048: on-demand m5 instances in us-west-2 (0.096 for two), as published
        by AWS in 2025.
    gpu_hour : float
        One GPU of 16 GB for an hour, with its share of the machine. 0.526: g4dn.xlarge (NVIDIA T4) there and then.
    egress_gb : float
        A gigabyte read. 0 in the archive's own cloud and region; 0.09 out of it (AWS, first 10 TB a month).
    storage_gb_month : float
        A gigabyte stored for a month. 0.023: S3 Standard there and then.
    """

    core_hour: float = 0.048
    gpu_hour: float = 0.526
    egress_gb: float = 0.0
    storage_gb_month: float = 0.023

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            require(0 <= value < float("inf"), f"{each.name} {value} is not a price", "give US dollars, 0 or more")


@dataclass(frozen=True)
class Budget:
    """What a plan may take; what is None is not limited.

    Attributes
    ----------
    hours : float or None
        Hours from start to end, with the threads and devices of the run.
    core_hours, gpu_hours : float or None
        Hours of all cores, and of all GPUs.
    usd : float or None
        US dollars, by `prices`.
    ram_gb, vram_gb : float or None
        Peak memory of one process, and of its device.
    input_gb, output_gb : float or None
        Read, and written, at most.
    prices : Prices
        What things cost.
    """

    hours: float | None = None
    core_hours: float | None = None
    gpu_hours: float | None = None
    usd: float | None = None
    ram_gb: float | None = None
    vram_gb: float | None = None
    input_gb: float | None = None
    output_gb: float | None = None
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        for name in _UNITS:
            value = getattr(self, name)
            require(value is None or value >= 0, f"budget {name} {value} is not an amount", "give 0 or more")

    @property
    def is_limited(self) -> bool:
        """Whether anything is."""
        return any(getattr(self, name) is not None for name in _UNITS)


# Limit -> unit, and what to do about it.
_UNITS: Final[Mapping[str, tuple[str, str]]] = {
    "hours": ("h", "use more threads or workers, fewer dates or coarser pixels"),
    "core_hours": ("core-hours", "plan fewer dates, a smaller region or coarser pixels"),
    "gpu_hours": ("GPU-hours", "plan fewer dates, a smaller region or coarser pixels"),
    "usd": ("USD", "plan fewer dates, a smaller region or coarser pixels"),
    "ram_gb": ("GB of memory", "use fewer threads (run: {threads: ...}), fewer dates at a time, or smaller shards"),
    "vram_gb": ("GB of device memory", "use smaller batches (run: {block: {batch: ...}}) or smaller shards"),
    "input_gb": ("GB read", "plan fewer dates or bands, or a smaller region"),
    "output_gb": ("GB written", "plan fewer dates, a smaller region or coarser pixels"),
}


def check_budget(found: Explanation, budget: Budget) -> None:
    """Refuse a plan that takes more than it may.

    Parameters
    ----------
    found : Explanation
        What it takes.
    budget : Budget
        What it may.

    Raises
    ------
    PlanError
        If it takes more of anything; what is exceeded most, in proportion, is named first.
    """
    over = []
    for name, (unit, remedy) in _UNITS.items():
        limit = getattr(budget, name)
        if limit is not None and (takes := found.amounts[name]) > limit:
            over.append((takes / limit if limit else float("inf"), f"{takes:.3g} {unit} of {limit:g}", remedy))
    if not over:
        return
    over.sort(key=lambda each: -each[0])
    told = "; ".join(f"{text} ({ratio:.1f} times)" for ratio, text, _ in over)
    raise PlanError(f"the plan is over budget: {told}", f"{over[0][2]}, or raise the budget")
