"""How fast training is fed: samples a second from chips, from memory, and what the network alone takes.

``python -m glaciercube.bench.training``, on the GPU where there is one. The same network takes the same steps twice:
with batches that are cut, turned, lit and stripped from chips as `glaciercube.training.fit.fit` makes them, and with
one batch that lies in the device's memory. The share that is left is what feeding costs.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
import numpy as np
import torch

from glaciercube.models.architectures.contracts import architecture_contract, architecture_names
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.models.registry import build_module
from glaciercube.sentences import told
from glaciercube.training.feed import Feed
from glaciercube.training.learner import Learner
from glaciercube.training.options import FitOptions
from glaciercube.training.parallel import choose_device

__all__ = ["Speed", "made_chips", "measure"]


@dataclass(frozen=True)
class Speed:
    """Samples a second.

    Attributes
    ----------
    architecture : str
        Which.
    weights : int
        Of it.
    device : str
        On which it ran.
    batch, size, dates : int
        Samples of a step, their side in pixels, and the most dates of each.
    workers, threads : int
        Threads that make batches ahead, and those that torch computes with.
    fed, held : float
        Samples a second, batches made from chips, and one batch held in the device's memory.
    made : float
        Samples a second that are made by one thread, without any network.
    clock : str
        By which: ``wall`` on a GPU or with workers, else ``processor``, which other work on the machine does not touch.
    share : float
        `fed` over `held`.
    """

    architecture: str
    weights: int
    device: str
    batch: int
    size: int
    dates: int
    workers: int
    threads: int
    fed: float
    held: float
    made: float
    clock: str
    share: float


def made_chips(contract: Contract, count: int, size: int, dates: int) -> list[Chip]:
    """Chips of noise in half precision: their content is of no matter to speed."""
    rng = np.random.default_rng(0)
    found: list[Chip] = []
    for number in range(count):
        variables = {
            name: rng.random((size, size) if modality.static else (dates, size, size)).astype(np.float16)
            for modality in contract.modalities
            for name in modality.variables
        }
        shape = (dates, size, size)
        label = rng.integers(0, 2, shape).astype(np.uint8)
        days = np.datetime64("2020-07-01", "s") + np.arange(dates) * np.timedelta64(10 * 86400, "s")
        labels = {name: (name,) for name in contract.classes[:2]}
        found.append(Chip(variables, label, labels, np.ones(shape, np.float32), days, 10.0, str(number)))
    return found


def measure(
    contract: Contract, options: FitOptions, *, steps: int = 20, chips: int = 64, device: torch.device | None = None
) -> Speed:
    """Measure one architecture.

    Parameters
    ----------
    contract : Contract
        What is trained.
    options : FitOptions
        Batch, size, dates and workers.
    steps : int
        Timed steps of each kind, after two that are not.
    chips : int
        How many chips to draw from.
    device : torch.device, optional
        By default the GPU, if there is one.
    """
    place = device or choose_device()
    size = options.size if contract.windows is None else contract.windows.size
    dates = options.dates if contract.time_context is not None else 1
    pool = made_chips(contract, chips, size + 32, dates)
    module = build_module(contract)
    planned = replace(options, steps=4 * steps + 10)
    feed = Feed(pool, contract, planned, place, together=not module.absent_is_missing)
    learner, numbers = Learner(module, contract, planned, place), itertools.count()
    wall = place.type == "cuda" or options.workers > 0
    clock = time.perf_counter if wall else time.process_time
    wait = torch.cuda.synchronize if place.type == "cuda" else _nothing

    def rate(step: Callable[[], Any], count: int) -> float:
        return _rate(step, count, options.batch, clock, wait)

    try:
        batches = feed.batches()
        fed = rate(lambda: learner.step(next(batches), next(numbers), 0.5), steps)
        held = next(batches).to(place)
        memory = rate(lambda: learner.step(held, next(numbers), 0.5), steps)
        alone = _rate(lambda: feed.draw(0), max(2, steps // 4), options.batch, time.process_time, _nothing)
    finally:
        feed.close()
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else "processor"
    return Speed(
        contract.architecture,
        module.parameter_count,
        name,
        options.batch,
        size,
        dates,
        options.workers,
        torch.get_num_threads(),
        fed,
        memory,
        alone,
        "wall" if wall else "processor",
        fed / memory,
    )


def _rate(
    step: Callable[[], Any], count: int, batch: int, clock: Callable[[], float], wait: Callable[[], None]
) -> float:
    for _ in range(2):
        step()
    wait()
    began = clock()
    for _ in range(count):
        step()
    wait()
    return count * batch / (clock() - began)


def _nothing() -> None:
    """Processors are done when a call returns."""


@click.command()
@click.option("--architecture", type=click.Choice(architecture_names()), default="fusion-unet", show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--size", default=128, show_default=True, help="Side of a crop; windows are a model's own.")
@click.option("--dates", default=4, show_default=True, help="Most dates of a sample.")
@click.option("--steps", default=20, show_default=True)
@click.option("--workers", type=int, help="Threads that make batches ahead; by default those that a GPU leaves idle.")
@click.option("--threads", type=int, help="Threads that torch computes with.")
@told
def main(
    *, architecture: str, batch: int, size: int, dates: int, steps: int, workers: int | None, threads: int | None
) -> None:
    """Measure, and write one line of JSON."""
    if threads is not None:
        torch.set_num_threads(threads)
    if workers is None:
        workers = max(1, (os.cpu_count() or 2) - 1) if torch.cuda.is_available() else 0
    options = FitOptions(batch=batch, size=size, dates=dates, workers=workers)
    click.echo(json.dumps(asdict(measure(architecture_contract(architecture), options, steps=steps))))


if __name__ == "__main__":
    main()
