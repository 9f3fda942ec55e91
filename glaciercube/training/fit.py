"""Fit a module to samples: plain torch, resumable, reproducible from one seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from glaciercube.models.base import GlacierModule, Masked, normalise
from glaciercube.models.contract import Contract
from glaciercube.training.augment import Jitter, choose_subset, crop, dihedral, photometric
from glaciercube.training.losses import focal_dice
from glaciercube.training.samples import Sample

__all__ = ["Batch", "FitOptions", "Trainable", "draw_batch", "fit", "has_fast_bfloat16"]


class Trainable(Protocol):
    """A module that gives logits."""

    def logits(self, dynamic: Mapping[str, Masked], static_features: object) -> Tensor:
        """Return (sample, y, x)."""


@dataclass(frozen=True)
class FitOptions:
    """Settings of one fit.

    Attributes
    ----------
    steps, batch, size : int
        Optimiser steps, samples per step, and their side in pixels.
    rate, decay : float
        AdamW's peak learning rate, after a rise over the first 5% and before a fall, both cosine, and weight decay.
    average : float
        Decay of the exponential moving average of the weights, which is what the fit returns.
    gamma, dice : float
        Of `glaciercube.training.losses.focal_dice`. Small: with 1.0 and 0.5 the expected area of unseen scenes was
        9 to 30% too large, since neither loss is a proper score.
    bfloat16 : bool
        Whether convolutions run in bfloat16.
    seed : int
        Of the order of samples and of the augmentation.
    every : int
        Steps between checkpoints.
    jitter : Jitter
        Photometric augmentation.
    """

    steps: int = 2000
    batch: int = 16
    size: int = 128
    rate: float = 2e-3
    decay: float = 1e-2
    average: float = 0.995
    gamma: float = 0.5
    dice: float = 0.1
    bfloat16: bool = False
    seed: int = 0
    every: int = 200
    jitter: Jitter = field(default_factory=Jitter)


@dataclass(frozen=True)
class Batch:
    """Samples stacked for one step: masked inputs by modality, label and weight (sample, y, x)."""

    dynamic: Mapping[str, Masked]
    static: Mapping[str, Masked]
    label: Tensor
    weight: Tensor


def fit(
    module: GlacierModule,
    contract: Contract,
    samples: Sequence[Sample],
    options: FitOptions,
    *,
    checkpoint: Path | None = None,
    report: Callable[[int, float], None] | None = None,
) -> GlacierModule:
    """Fit a module.

    Parameters
    ----------
    module : GlacierModule
        With ``logits``; trained in place.
    contract : Contract
        Its inputs.
    samples : sequence of Sample
        To draw from.
    options : FitOptions
        Settings.
    checkpoint : Path, optional
        File that the state is kept in; a fit that finds one goes on from there, with the same samples as if it had
        never stopped.
    report : callable, optional
        Called with the step and the loss.

    Returns
    -------
    GlacierModule
        The module with averaged weights, in evaluation mode.
    """
    module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(module.parameters(), lr=options.rate, weight_decay=options.decay)
    rise = min(0.5, max(0.05, 50 / options.steps))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.rate, total_steps=options.steps, pct_start=rise, cycle_momentum=False
    )
    blend = get_ema_multi_avg_fn(options.average)  # type: ignore[no-untyped-call]
    average = AveragedModel(module, multi_avg_fn=blend, use_buffers=True)
    parts = {"module": module, "optimiser": optimiser, "schedule": schedule, "average": average}
    first = _resume(checkpoint, parts)
    with tqdm(total=options.steps, initial=first, desc="fitting", unit="step") as bar:
        for step in range(first, options.steps):
            batch = draw_batch(samples, contract, options, np.random.default_rng((options.seed, step)))
            loss = _step(module, batch, optimiser, bfloat16=options.bfloat16, gamma=options.gamma, dice=options.dice)
            schedule.step()
            average.update_parameters(module)
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if report is not None:
                report(step, loss)
            if checkpoint is not None and (step + 1) % options.every == 0:
                _keep(checkpoint, parts, step + 1)
    # The running statistics of batch normalisation are averaged with the weights (use_buffers).
    module.load_state_dict(average.module.state_dict())
    return module.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload,no-any-return]


def draw_batch(samples: Sequence[Sample], contract: Contract, options: FitOptions, rng: np.random.Generator) -> Batch:
    """Draw, cut, turn, light and strip samples for one step; every modality is present, some of it masked."""
    chosen = [_augmented(samples[int(i)], contract, options, rng) for i in rng.integers(0, len(samples), options.batch)]
    dynamic: dict[str, Masked] = {}
    static: dict[str, Masked] = {}
    for modality in contract.modalities:
        stacked = torch.from_numpy(np.stack([sample.inputs[modality.name] for sample in chosen]))
        masked = normalise(stacked, modality)
        values = masked.values.contiguous(memory_format=torch.channels_last)
        (static if modality.static else dynamic)[modality.name] = Masked(values, masked.valid)
    evidence = [m for m in contract.modalities if m.evidence]
    seen = torch.stack([({**dynamic, **static})[m.name].valid[:, 0] for m in evidence]).any(dim=0)
    weight = torch.from_numpy(np.stack([sample.weight for sample in chosen])) * seen
    label = torch.from_numpy(np.stack([sample.label for sample in chosen])).float()
    return Batch(dynamic, static, label, weight)


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; without, it is slower than float32."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8", errors="ignore") if flags.is_file() else ""
    return "avx512_bf16" in text or "amx_bf16" in text


def _augmented(sample: Sample, contract: Contract, options: FitOptions, rng: np.random.Generator) -> Sample:
    cut = crop(sample, options.size, rng)
    turned = dihedral(cut, contract, turns=int(rng.integers(4)), mirror=bool(rng.integers(2)))
    lit = photometric(turned, contract, options.jitter, rng)
    shown = choose_subset(contract, rng)
    missing = np.float32(np.nan)
    inputs = {name: values if name in shown else np.full_like(values, missing) for name, values in lit.inputs.items()}
    return Sample(inputs, lit.label, lit.weight, lit.seed)


def _step(
    module: GlacierModule,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    *,
    bfloat16: bool,
    gamma: float,
    dice: float,
) -> float:
    trainable: Trainable = module  # type: ignore[assignment]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        logit = trainable.logits(batch.dynamic, module.encode_static(batch.static))
    loss = focal_dice(logit.float(), batch.label, batch.weight, gamma=gamma, dice=dice)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


def _keep(path: Path, parts: Mapping[str, object], step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
    part = path.with_suffix(".part")
    torch.save(state | {"step": step}, part)
    part.replace(path)


def _resume(path: Path | None, parts: Mapping[str, object]) -> int:
    if path is None or not path.is_file():
        return 0
    # weights_only: tensors and numbers, no code; the file is this fit's own and never a model that is handed on.
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])  # type: ignore[attr-defined]
    return int(state["step"])
