"""How a fit is fed: the batch of each step, made when it is asked for or ahead of it by threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from glaciercube.errors import ModelError
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.training.batches import Batch, draw_batch
from glaciercube.training.options import FitOptions
from glaciercube.training.parallel import Crew

__all__ = ["Feed"]


class Feed:
    """Batches of a fit, of which every process makes its part.

    Parameters
    ----------
    chips, contract, options
        As of `glaciercube.training.fit.fit`.
    device : torch.device
        That takes them: for a GPU they lie in memory that it copies from by itself.
    together : bool
        As of `glaciercube.training.batches.draw_batch`.
    crew : Crew, optional
        The processes; one alone by default.

    Raises
    ------
    ModelError
        If there are more processes than samples in a batch.
    """

    def __init__(
        self,
        chips: Sequence[Chip],
        contract: Contract,
        options: FitOptions,
        device: torch.device,
        *,
        together: bool = False,
        crew: Crew | None = None,
    ) -> None:
        self.chips, self.contract, self.options, self.device = chips, contract, options, device
        self.together, self.crew = together, crew or Crew()
        if options.batch < self.crew.size:
            raise ModelError(
                f"a batch of {options.batch} for {self.crew.size} processes", "give every process at least one sample"
            )
        self._pool = ThreadPoolExecutor(options.workers, "glaciercube-batches") if options.workers else None

    def draw(self, step: int) -> Batch:
        """Make this process's part of a step's batch."""
        part = (self.crew.rank, self.crew.size)
        batch = draw_batch(self.chips, self.contract, self.options, step, part=part, together=self.together)
        return batch.pinned() if self.device.type == "cuda" else batch

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """Batches from a step on, without end; made ahead where there are threads for it."""
        if self._pool is None:
            while True:
                yield self.draw(step)
                step += 1
        ahead: list[Future[Batch]] = []
        while True:
            while len(ahead) < 2 * self.options.workers:
                ahead.append(self._pool.submit(self.draw, step + len(ahead)))
            found = ahead.pop(0).result()
            step += 1
            yield found

    def close(self) -> None:
        """Stop what makes batches."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
