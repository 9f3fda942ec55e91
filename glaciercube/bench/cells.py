"""One model on one fold: trained within a budget, scored, and kept, so that a killed run goes on."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glaciercube.bench.entrants import Entrant, Unsuited, start
from glaciercube.bench.keeping import keep
from glaciercube.bench.scoring import cases_for, score_cases, seconds_per_megapixel
from glaciercube.bench.sets import BenchSet, Fold
from glaciercube.errors import ModelError
from glaciercube.models.base import GlacierModule, Model
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.training.fit import fit
from glaciercube.training.options import FitOptions, Sensors

__all__ = ["Budget", "run_cell", "run_module"]

# Raised when a cell's figures come to mean something else: older ones are then made anew.
_FORMAT = 1


@dataclass(frozen=True)
class Budget:
    """What every trained model gets on every fold of a set.

    Attributes
    ----------
    seconds : float
        Of processor time in one thread, on this machine.
    batch, size : int
        Samples per step and their side in pixels.
    rate, average : float
        Peak learning rate and decay of the averaged weights, the same for all.
    least_passes, least_steps : float
        A model is trained where its speed, measured over three steps, lets it see every training pixel this often and
        take so many steps; else its row says that it cannot be trained fairly.
    seed : int
        Of weights, order and augmentation.
    side : int
        Pixels of the image whose seconds per megapixel are measured.
    """

    seconds: float = 40.0
    batch: int = 4
    size: int = 64
    rate: float = 1e-3
    average: float = 0.98
    least_passes: float = 2.0
    least_steps: float = 40.0
    seed: int = 1
    side: int = 256

    def options(self, *, steps: int = 10**6, seconds: float | None = None) -> FitOptions:
        """As `fit` wants them; every layer that a set has is shown, in training as in the test."""
        return FitOptions(
            steps=steps,
            seconds=seconds,
            batch=self.batch,
            size=self.size,
            rate=self.rate,
            average=self.average,
            seed=self.seed,
            patience=None,
            sensors=Sensors(whole=1.0, date=1.0),
        )


def run_cell(
    entrant: Entrant, bench: BenchSet, fold: Fold, budget: Budget, folder: Path, *, kept: bool = False
) -> dict[str, Any]:
    """Train and score one model on one fold, or read what was found before.

    Parameters
    ----------
    entrant, bench, fold, budget
        Which.
    folder : Path
        Where cells are kept, by a hash of the set, the fold, the model with its weights, and the budget.
    kept : bool
        Whether only to read what is there.

    Returns
    -------
    dict
        ``set``, ``fold``, ``entrant``, ``kind``; ``scores`` (`FoldScores`) or ``skipped``, the reason; ``training``
        (``seconds``, ``steps``, ``passes``) where there was any; ``parameters``, ``seconds_per_megapixel``.
    """
    facts: dict[str, Any] = {"set": bench.name, "fold": fold.name, "entrant": entrant.title, "kind": entrant.kind}
    if entrant.kind in ("shipped", "tuned"):
        fold = fold.with_stand_ins(bench.stand_ins)
    try:
        contract, module = start(entrant, bench, fold.train, budget.size, budget.seed)
    except (Unsuited, ModelError) as reason:
        return facts | {"skipped": str(reason)}
    return run_module(entrant, bench, fold, budget, folder, made=(contract, module), kept=kept)


def run_module(
    entrant: Entrant,
    bench: BenchSet,
    fold: Fold,
    budget: Budget,
    folder: Path,
    *,
    made: tuple[Contract, GlacierModule],
    kept: bool = False,
) -> dict[str, Any]:
    """As `run_cell`, of a contract and module that are made already."""
    contract, module = made
    facts: dict[str, Any] = {"set": bench.name, "fold": fold.name, "entrant": entrant.title, "kind": entrant.kind}
    path = folder / f"{_key(entrant, bench, fold, budget, contract, module)}.json"
    facts["parameters"] = module.parameter_count
    found: dict[str, Any] | None = keep(
        path, lambda: facts | _scored(entrant, bench, fold, budget, contract, module), kept=kept
    )
    return facts | {"skipped": "not run"} if found is None else found


def _scored(
    entrant: Entrant, bench: BenchSet, fold: Fold, budget: Budget, contract: Contract, module: GlacierModule
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        if entrant.kind in ("scratch", "tuned"):
            reason = _unfair(module, contract, fold.train, budget)
            if reason is not None:
                return {"skipped": reason} | _cost(contract, module, fold, bench, budget)
            found["training"] = _train(module, contract, fold.train, budget)
        # A shipped model's module is shared by the process: it is left as it is.
        model = Model.from_module(contract, module)
        found["scores"] = score_cases(cases_for(model, bench, fold.test)).values()
    except ModelError as reason:
        return found | {"skipped": str(reason).splitlines()[0]}
    return found | _cost(contract, module, fold, bench, budget)


def _train(module: GlacierModule, contract: Contract, chips: Sequence[Chip], budget: Budget) -> dict[str, float]:
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as place:
        fit(module, contract, chips, budget.options(seconds=budget.seconds), log=Path(place), progress=False)
        spent = time.process_time() - begun
        with (Path(place) / "log.csv").open(encoding="utf-8") as stream:
            steps = float(list(csv.DictReader(stream))[-1]["step"])
    drawn = steps * budget.batch * _side(contract, budget) ** 2
    return {"seconds": round(spent, 1), "steps": steps, "passes": round(drawn / _pixels(chips), 2)}


def _unfair(module: GlacierModule, contract: Contract, chips: Sequence[Chip], budget: Budget) -> str | None:
    """Why a model cannot be trained fairly within the budget, or None."""
    if budget.least_steps <= 0 and budget.least_passes <= 0:
        return None
    steps = budget.seconds / _seconds_per_step(module, contract, chips, budget)
    passes = steps * budget.batch * _side(contract, budget) ** 2 / _pixels(chips)
    if steps >= budget.least_steps and passes >= budget.least_passes:
        return None
    return (
        f"not trained: {budget.seconds:g} s give it {steps:.0f} steps and {passes:.1f} passes over the training "
        f"pixels; {budget.least_steps:g} and {budget.least_passes:g} were set as the least"
    )


def _seconds_per_step(module: GlacierModule, contract: Contract, chips: Sequence[Chip], budget: Budget) -> float:
    """Processor seconds of one step, over three after a first; the folds of a set have one speed."""
    key = (contract.architecture, tuple(m.variables for m in contract.modalities), budget)
    if key not in _SPEEDS:
        tried = copy.deepcopy(module)
        fit(tried, contract, chips, budget.options(steps=1), progress=False)
        begun = time.process_time()
        fit(tried, contract, chips, budget.options(steps=3), progress=False)
        _SPEEDS[key] = (time.process_time() - begun) / 3
    return _SPEEDS[key]


_SPEEDS: dict[Any, float] = {}


def _cost(contract: Contract, module: GlacierModule, fold: Fold, bench: BenchSet, budget: Budget) -> dict[str, float]:
    """Seconds per megapixel, measured with the last fold alone."""
    if fold.name != list(bench.folds())[-1].name:
        return {}
    return {"seconds_per_megapixel": round(seconds_per_megapixel(Model.from_module(contract, module), budget.side), 3)}


def _side(contract: Contract, budget: Budget) -> int:
    return budget.size if contract.windows is None else contract.windows.size


def _pixels(chips: Sequence[Chip]) -> int:
    return sum(chip.label.size for chip in chips)


def _key(
    entrant: Entrant, bench: BenchSet, fold: Fold, budget: Budget, contract: Contract, module: GlacierModule
) -> str:
    digest = hashlib.sha256()
    trained = entrant.kind in ("scratch", "tuned")
    parts: Mapping[str, Any] = {
        "format": _FORMAT,
        "entrant": asdict(entrant),
        "set": bench.key(),
        "fold": fold.name,
        "budget": asdict(budget) if trained else None,
        "contract": contract.fingerprint,
    }
    digest.update(json.dumps(parts, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def one_thread() -> None:
    """Compute in one thread, as the budget counts."""
    torch.set_num_threads(1)
