"""Fit a module to chips: plain torch, on one device or several, resumable, reproducible from one seed."""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
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
from glaciercube.training.batches import Batch, draw_batch, make_batch, prepared
from glaciercube.training.checkpoint import Average, keep, resume
from glaciercube.training.cuts import still_cut
from glaciercube.training.fingerprint import fit_identity
from glaciercube.training.logs import Log
from glaciercube.training.losses import Truth
from glaciercube.training.options import FitOptions
from glaciercube.training.parallel import Crew, choose_device, this_crew
from glaciercube.training.trained import Trained, channels_last, supervised_loss, wrapped

__all__ = ["Feed", "FitOptions", "fit", "has_fast_bfloat16"]

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
        try:
            run.go(log, progress=progress)
        finally:
            run.close()
    return module


class Feed:
    """The parts of a fit one by one, for measurements: how batches are made, and what a step takes.

    Parameters
    ----------
    module, contract, chips, options, device
        As of `fit`.
    """

    def __init__(
        self,
        module: GlacierModule,
        contract: Contract,
        chips: Sequence[Chip],
        options: FitOptions,
        device: torch.device,
    ) -> None:
        self._run = _Run(module, contract, chips, options, validation=(), device=device, checkpoint=None)

    def batches(self) -> Iterator[Batch]:
        """Batches as a fit makes them, ahead where there are workers."""
        return self._run.batches()

    def draw(self, step: int) -> Batch:
        """The batch of a step, made now."""
        return self._run.draw(step)

    def step(self, batch: Batch) -> Tensor:
        """Take an optimiser step; returns the loss."""
        loss = self._run.step(batch, 0.5)
        self._run.state.step += 1
        return loss

    def close(self) -> None:
        """Stop what makes batches."""
        self._run.close()


@dataclass(frozen=True)
class _Precision:
    """In which type convolutions run on a device."""

    device: torch.device
    kind: torch.dtype | None

    @classmethod
    def of(cls, options: FitOptions, device: torch.device) -> _Precision:
        named = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
        if options.precision != "auto":
            return cls(device, named[options.precision])
        if device.type == "cuda":
            return cls(device, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
        return cls(device, torch.bfloat16 if has_fast_bfloat16() else None)

    def cast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.kind is None else torch.autocast(self.device.type, dtype=self.kind)


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
        self.module, self.contract, self.chips, self.options = module, contract, chips, options
        self.validation, self.device, self.checkpoint = validation, device, checkpoint
        self.crew = this_crew()
        if options.batch < self.crew.size:
            raise ModelError(
                f"a batch of {options.batch} for {self.crew.size} processes", "give every process at least one sample"
            )
        self.precision = _Precision.of(options, device)
        self.together = not module.absent_is_missing
        self.identity = self._identity()
        module.to(device).train()
        channels_last(module)
        self.trained = wrapped(Trained(module), self.crew)
        parameters = [p for p in module.parameters() if p.requires_grad]
        fused = all(p.is_floating_point() for p in parameters)
        self.optimiser = torch.optim.AdamW(parameters, lr=options.rate, weight_decay=options.decay, fused=fused)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision.kind == torch.float16)
        self.average = Average(module, options.average)
        self.state, self.best = resume(checkpoint, self.identity, self.optimiser, self.average)
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        self.before, self.began = self.state.seconds, time.process_time()
        self.pool = ThreadPoolExecutor(options.workers, "glaciercube-batches") if options.workers else None

    def _identity(self) -> dict[str, str]:
        """What a checkpoint must agree with; before a weight is trained."""
        if self.checkpoint is None:
            return {}
        found = fit_identity(self.module, self.contract, self.options, self.chips, self.validation)
        if self.crew.rank:
            del found["starting weights"]  # those of the first process count
        return found

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
        self.module.load_state_dict(self.best or self.average.tensors)
        self.module.to(torch.device("cpu")).eval()
        channels_last(self.module, torch.contiguous_format)

    def _loop(self, table: Log, bar: Any) -> None:
        losses: list[Tensor] = [torch.tensor(loss, device=self.device) for loss in self.state.losses]
        batches = self.batches()
        while not self.state.done:
            share = self.progress
            batch = next(batches)
            losses.append(self.step(batch, share))
            self.state.step += 1
            self.state.seconds = self.before + time.process_time() - self.began
            self.state.done = self.state.step >= self.options.steps or self._overdue()
            self._check_taught(batch)
            looked = self._look()
            if looked is not None or self.state.step % _ROW == 0 or self.state.done:
                row = self._row(losses, share, looked)
                losses.clear()
                table.write(row)
                bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            bar.update()
            if self.state.done or self.state.step % self.options.every == 0:
                self.state.losses = [float(loss) for loss in losses]
                self._keep()

    def close(self) -> None:
        """Stop what makes batches."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _overdue(self) -> bool:
        limit = self.options.seconds
        return limit is not None and self.crew.most(self.state.seconds, self.device) >= limit

    def batches(self) -> Iterator[Batch]:
        """Batches from the state's step on; made ahead where there are threads for it."""
        step = self.state.step
        if self.pool is None:
            while True:
                yield self.draw(step)
                step += 1
        ahead: list[Future[Batch]] = []
        while True:
            while len(ahead) < 2 * self.options.workers:
                ahead.append(self.pool.submit(self.draw, step + len(ahead)))
            found = ahead.pop(0).result()
            step += 1
            yield found

    def draw(self, step: int) -> Batch:
        """Make this process's part of a step's batch."""
        part = (self.crew.rank, self.crew.size)
        batch = draw_batch(self.chips, self.contract, self.options, step, part=part, together=self.together)
        return batch.pinned() if self.device.type == "cuda" else batch

    def step(self, batch: Batch, share: float) -> Tensor:
        """Take one step, so far into the budget; returns the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.learning_rate(share)
        torch.manual_seed(_seed_of(self.options.seed, self.state.step, self.crew.rank))  # of dropout layers
        inputs = prepared(batch.to(self.device), self.contract)
        truth = _shared(inputs.truth, self.crew)
        if not self.state.taught:
            self.state.taught = bool(self.crew.any(truth.teaches))
        with self.precision.cast(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "find_unused_parameters=True")
            maps = self.trained(inputs)
        loss = supervised_loss(maps, truth, self.contract, self.options, self.crew)
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
        self.average.update(self.state.step)
        return loss.detach()

    def _check_taught(self, batch: Batch) -> None:
        """Refuse chips of which no pixel teaches the model anything."""
        if self.state.taught or not (self.state.done or self.state.step >= _ROW):
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

    def _look(self) -> float | None:
        """Score the averaged weights on the validation chips when it is time; ends a fit that no longer gets better."""
        if not self.validation or not (self.state.done or self.state.step % self.options.validate == 0):
            return None
        kept = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average.tensors)
        self.module.eval()
        score = self._score()
        if self.state.best is None or score < self.state.best:
            self.state.best, self.state.waited = score, 0
            self.best = {name: value.clone() for name, value in self.average.tensors.items()}
        else:
            self.state.waited += 1
        self.module.load_state_dict(kept)
        self.module.train()
        patience = self.options.patience
        self.state.done = self.state.done or (patience is not None and self.state.waited >= patience)
        return score

    def _score(self) -> float:
        """Mean loss over the validation chips, each at one of its dates, weighted by what is known of them."""
        sums = 0.0
        cuts = [
            still_cut(chip, self.contract, self.options, _dated(chip, number))
            for number, chip in enumerate(self.validation)
        ]
        trained = Trained(self.module)
        for first in range(0, len(cuts), self.options.batch):
            part = cuts[first : first + self.options.batch]
            inputs = prepared(make_batch(part, self.contract).to(self.device), self.contract)
            with torch.no_grad(), self.precision.cast():
                maps = trained(inputs)[:1]
                sums += len(part) * float(supervised_loss(maps, inputs.truth, self.contract, self.options, Crew()))
        return sums / len(cuts)

    def _keep(self) -> None:
        if self.checkpoint is not None and self.crew.rank == 0:
            self.state.scaler = self.scaler.state_dict()
            keep(self.checkpoint, self.identity, self.state, self.optimiser, self.average, self.best)
        self.crew.wait()


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; without, it is slower than float32."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8", errors="ignore") if flags.is_file() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def _shared(truth: Truth, crew: Crew) -> Truth:
    """The truth, with the labels that any process's samples could have had."""
    if crew.size == 1:
        return truth
    asked = crew.any(truth.asked.any(dim=0))
    return replace(truth, rows=tuple(asked.nonzero()[:, 0].tolist()))


def _dated(chip: Chip, number: int) -> int:
    """One of a chip's dates whose truth is known, by turns."""
    known = [date for date, weight in enumerate(chip.weight) if (weight > 0).any()]
    return known[number % len(known)] if known else number % len(chip.time)


def _seed_of(*parts: int) -> int:
    """A seed of several numbers, the same on every machine."""
    return zlib.crc32(repr(parts).encode())
