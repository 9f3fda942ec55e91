"""A module that learns: from a batch to its loss, to a step of the optimiser, to the average of the weights."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from glaciercube.models.base import GlacierModule
from glaciercube.models.contract import Contract
from glaciercube.training.batches import Batch, prepared
from glaciercube.training.checkpoint import Average
from glaciercube.training.losses import Truth
from glaciercube.training.options import FitOptions
from glaciercube.training.parallel import Crew
from glaciercube.training.precision import Precision
from glaciercube.training.trained import Trained, channels_last, supervised_loss, wrapped

__all__ = ["Learner"]


class Learner:
    """A module on a device, with its optimiser and the average of its weights.

    Parameters
    ----------
    module, contract, options
        As of `glaciercube.training.fit.fit`; the module is put on the device and trained in place.
    device : torch.device
        Where.
    crew : Crew, optional
        The processes that share the work; one alone by default.

    Attributes
    ----------
    average : Average
        Of the weights.
    taught : bool
        Whether any pixel, of any process, taught it anything so far.
    """

    def __init__(
        self,
        module: GlacierModule,
        contract: Contract,
        options: FitOptions,
        device: torch.device,
        crew: Crew | None = None,
    ) -> None:
        self.module, self.contract, self.options, self.device = module, contract, options, device
        self.crew = crew or Crew()
        self.precision = Precision.of(options, device)
        module.to(device).train()
        channels_last(module)
        self._trained = wrapped(Trained(module), self.crew)
        parameters = [p for p in module.parameters() if p.requires_grad]
        fused = all(p.is_floating_point() for p in parameters)
        self.optimiser = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.decay, fused=fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision.kind == torch.float16)
        self.average = Average(module, options.average)
        self.taught = False

    def step(self, batch: Batch, number: int, share: float) -> Tensor:
        """Take one step.

        Parameters
        ----------
        batch : Batch
            This process's part.
        number : int
            Of the step, from 0 on.
        share : float
            Of the budget that is spent, which sets the learning rate.

        Returns
        -------
        () float32
            The loss, over all processes.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.learning_rate(share)
        torch.manual_seed(_seed_of(self.options.seed, number, self.crew.rank))  # of dropout layers
        inputs = prepared(batch.to(self.device), self.contract)
        truth = _shared(inputs.truth, self.crew)
        if not self.taught:
            self.taught = bool(self.crew.any(truth.teaches))
        with self.precision.cast(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "find_unused_parameters=True")
            maps = self._trained(inputs)
        loss = supervised_loss(maps, truth, self.contract, self.options, self.crew)
        self._descend(loss)
        self.average.update(number)
        return loss.detach()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the module has the averaged weights, in evaluation mode."""
        kept = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average.tensors)
        self.module.eval()
        try:
            yield
        finally:
            self.module.load_state_dict(kept)
            self.module.train()

    def score(self, batch: Batch) -> float:
        """Loss of a batch of one's own, of which nothing is learned; of the module's first map alone."""
        inputs = prepared(batch.to(self.device), self.contract)
        with torch.no_grad(), self.precision.cast():
            maps = Trained(self.module)(inputs)[:1]
            return float(supervised_loss(maps, inputs.truth, self.contract, self.options, Crew()))

    def _descend(self, loss: Tensor) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        # Every process's loss is that of the whole batch, and their gradients are averaged: times their number they
        # sum up.
        with warnings.catch_warnings():
            # The layout of weights with one channel each cannot be told; it costs a copy of next to nothing.
            warnings.filterwarnings("ignore", "Grad strides do not match")
            self.scaler.scale(loss * self.crew.size).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.options.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()


def _shared(truth: Truth, crew: Crew) -> Truth:
    """The truth, with the labels that any process's samples could have had."""
    if crew.size == 1:
        return truth
    asked = crew.any(truth.asked.any(dim=0))
    return replace(truth, rows=tuple(asked.nonzero()[:, 0].tolist()))


def _seed_of(*parts: int) -> int:
    """A seed of several numbers, the same on every machine."""
    return zlib.crc32(repr(parts).encode())
