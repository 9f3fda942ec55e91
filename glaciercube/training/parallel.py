"""Several processes that fit one model: who this one is, and sums over all."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

__all__ = ["Crew", "this_crew"]


@dataclass(frozen=True)
class Crew:
    """The processes of a fit.

    Attributes
    ----------
    rank, size : int
        This one's number, and how many there are.
    """

    rank: int = 0
    size: int = 1

    def total(self, sums: Tensor) -> Tensor:
        """Sums over the samples of all processes, which pass their gradient on to this one's share."""
        if self.size == 1:
            return sums
        everything = sums.detach().clone()
        distributed.all_reduce(everything)
        return sums + (everything - sums.detach())

    def most(self, value: float, device: torch.device) -> float:
        """Largest value of all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return float(tensor)

    def any(self, flags: Tensor) -> Tensor:
        """Which flags any process raised."""
        if self.size == 1:
            return flags
        found = flags.to(torch.int32)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found > 0

    def wait(self) -> None:
        """Wait for all."""
        if self.size > 1:
            distributed.barrier()


def this_crew() -> Crew:
    """The processes that this one was started with, by torchrun or `glaciercube train`; itself alone if none."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return Crew()
    return Crew(distributed.get_rank(), distributed.get_world_size())


def choose_device() -> torch.device:
    """The GPU that is this process's by ``LOCAL_RANK``, or the processor where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")
