"""Fit a module to chips: plain torch, on one device or several, resumable, reproducible from one seed.

The way of the data: `glaciercube.training.feed` draws batches from chips (`cuts`, `augment`, `batches`), a
`glaciercube.training.learner` takes a step with each (`trained`, `losses`), a `glaciercube.training.watch` looks at its
averaged weights, and the fit here counts steps and time, writes the log, and keeps and finds checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from glaciercube.errors import ModelError
from glaciercube.models.base import GlacierModule
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.training.batches import Batch
from glaciercube.training.checkpoint import keep, resume
from glaciercube.training.feed import Feed
from glaciercube.training.fingerprint import fit_identity
from glaciercube.training.learner import Learner
from glaciercube.training.logs import Log
from glaciercube.training.options import FitOptions
from glaciercube.training.parallel import choose_device, this_crew
from glaciercube.training.trained import channels_last
from glaciercube.training.watch import Watch

__all__ = ["FitOptions", "fit"]

# Steps between rows of the log: reading the loss waits for a GPU.
_ROW = 10


def fit(
    module: GlacierModule,
    contract: Contract,
    chips: Sequence[Chip],
    options: FitOptions,
    *,
    validation: Sequence[Chip] | None = None,
    checkpoint: Path | None = None,
    log: Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> GlacierModule:
    """Fit a module.

    Under `torch.distributed`, every process calls this with the same arguments; see `glaciercube.training.parallel`.

    Parameters
    ----------
    module : GlacierModule
        With ``logits`` or ``supervised``, or ``series`` where its contract has a time context; trained in place.
    contract : Contract
        Its inputs and classes.
    chips : sequence of Chip
        To draw from; may be lazy, only those that are drawn are asked for.
    options : FitOptions
        Settings.
    validation : sequence of Chip, optional
        Looked at every so often; the weights that are best on them are returned.
    checkpoint : Path, optional
        File that the state is kept in; a fit that finds one goes on from there, to the same weights as if it had
        never stopped. Model, starting weights, chips and options must be those that it began with.
    log : Path, optional
        Folder of the table of losses, and of TensorBoard's events.
    device : torch.device or str, optional
        By default the process's GPU, if there is one.
    progress : bool
        Show a progress bar.

    Returns
    -------
    GlacierModule
        The module with averaged weights, in evaluation mode, on the processor.

    Raises
    ------
    ModelError
        If there are no chips, they lack what the model needs, the loss is not finite, or the checkpoint is another's.
    """
    if not len(chips):
        raise ModelError(f"there are no chips to fit {contract.name!r} to", "give at least one")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        place = torch.device(device) if device is not None else choose_device()
        run = _Run(module, contract, chips, options, validation=validation or (), device=place, checkpoint=checkpoint)
        with closing(run.feed):
            run.go(log, progress=progress)
    return module


class _Run:
    """One fit."""

    def __init__(
        self,
        module: GlacierModule,
        contract: Contract,
        chips: Sequence[Chip],
        options: FitOptions,
        *,
        validation: Sequence[Chip],
        device: torch.device,
        checkpoint: Path | None,
    ) -> None:
        self.contract, self.options, self.device, self.checkpoint = contract, options, device, checkpoint
        self.crew = this_crew()
        self.feed = Feed(chips, contract, options, device, together=not module.absent_is_missing, crew=self.crew)
        # Before a weight is trained.
        self.identity = {} if checkpoint is None else fit_identity(module, contract, options, chips, validation)
        if self.crew.rank:
            self.identity.pop("starting weights", None)  # those of the first process count
        self.learner = Learner(module, contract, options, device, self.crew)
        self.state, best = resume(checkpoint, self.identity, self.learner.optimiser, self.learner.average)
        self.learner.taught = self.state.taught
        if self.state.scaler:
            self.learner.scaler.load_state_dict(self.state.scaler)
        self.watch = Watch(self.learner, validation, self.state, best)
        self.before, self.began = self.state.seconds, time.process_time()

    @property
    def progress(self) -> float:
        """Share of the budget that is spent."""
        share = self.state.step / self.options.steps
        if self.options.seconds is not None:
            share = max(share, self.crew.most(self.state.seconds, self.device) / self.options.seconds)
        return share

    def go(self, log: Path | None, *, progress: bool) -> None:
        """Fit to the end, and leave the averaged or best weights in the module."""
        mine = self.crew.rank == 0
        table = Log(log if mine else None, self.state.step, tensorboard=self.options.tensorboard)
        shown = progress and mine
        bar = tqdm(
            total=self.options.steps, initial=self.state.step, desc="fitting", unit="step", disable=not shown, delay=1
        )
        with closing(table), bar:
            self._loop(table, bar)
        module = self.learner.module
        module.load_state_dict(self.watch.best or self.learner.average.tensors)
        module.to(torch.device("cpu")).eval()
        channels_last(module, torch.contiguous_format)

    def _loop(self, table: Log, bar: Any) -> None:
        state = self.state
        losses: list[Tensor] = [torch.tensor(loss, device=self.device) for loss in state.losses]
        batches = self.feed.batches(state.step)
        while not state.done:
            share = self.progress
            batch = next(batches)
            losses.append(self.learner.step(batch, state.step, share))
            state.step += 1
            state.seconds = self.before + time.process_time() - self.began
            state.done = state.step >= self.options.steps or self._overdue()
            self._check_taught(batch)
            looked = self.watch.look()
            if looked is not None or state.step % _ROW == 0 or state.done:
                row = self._row(losses, share, looked)
                losses.clear()
                table.write(row)
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            bar.update()
            if state.done or state.step % self.options.every == 0:
                state.losses = [float(loss) for loss in losses]
                self._keep()

    def _overdue(self) -> bool:
        limit = self.options.seconds
        return limit is not None and self.crew.most(self.state.seconds, self.device) >= limit

    def _check_taught(self, batch: Batch) -> None:
        """Refuse chips of which no pixel teaches the model anything."""
        if self.learner.taught or not (self.state.done or self.state.step >= _ROW):
            return
        if not batch.truth.rows:
            raise ModelError(
                f"the labels of the chips say nothing of the classes {', '.join(self.contract.classes)} of "
                f"{self.contract.name!r}",
                "give the model classes that the labels tell apart; see glaciercube.models.classes.membership",
            )
        raise ModelError(
            f"no pixel of the first {self.state.step} batches teaches {self.contract.name!r} anything: where its "
            "sensors see, labels are unknown or weigh 0",
            "give chips with known labels of weight above 0 and with values of the model's inputs there",
        )

    def _row(self, losses: list[Tensor], share: float, looked: float | None) -> dict[str, float]:
        loss = float(torch.stack(losses).mean())
        if not np.isfinite(loss):
            raise ModelError(
                f"the loss of {self.contract.name!r} is {loss} after {self.state.step} steps",
                "lower the learning rate (rate), or look for values in the chips that are not in their unit",
            )
        row = {"step": float(self.state.step), "loss": loss, "rate": self.options.learning_rate(share)}
        row |= {"seconds": self.state.seconds, "samples": float(self.state.step * self.options.batch)}
        return row | ({} if looked is None else {"validation": looked})

    def _keep(self) -> None:
        state, learner = self.state, self.learner
        if self.checkpoint is not None and self.crew.rank == 0:
            state.scaler, state.taught = learner.scaler.state_dict(), learner.taught
            keep(self.checkpoint, self.identity, state, learner.optimiser, learner.average, self.watch.best)
        self.crew.wait()
