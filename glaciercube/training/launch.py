"""Start the processes of a training: here, one per GPU, or those that torchrun started."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from glaciercube.errors import ConfigError, GlaciercubeError, ModelError

__all__ = ["launch"]

# The others wait while the first draws chips, or calibrates and scores.
_PATIENCE = timedelta(hours=12)


def launch(work: Callable[..., None], arguments: tuple[Any, ...], processes: int | None = None) -> None:
    """Run some work in one process or several, which find each other by `torch.distributed`.

    Parameters
    ----------
    work : callable
        At the top level of a module, so that other processes can import it.
    arguments : tuple
        What it is called with in each.
    processes : int, optional
        On this machine; by default one per GPU. Not to be given under torchrun, which has started them.

    Raises
    ------
    ConfigError
        If the number of processes cannot be had.
    """
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        if processes is not None:
            raise ConfigError("torchrun has started the processes", "leave --processes out")
        _joined(work, arguments, None, 0, 0)
        return
    devices = torch.cuda.device_count()
    count = max(1, devices) if processes is None else processes
    if count < 1 or (devices and count > devices):
        raise ConfigError(f"{count} processes for {devices} GPUs", "give one process per GPU at most, and at least one")
    if count == 1:
        work(*arguments)
        return
    with tempfile.TemporaryDirectory(prefix="glaciercube-") as folder:
        try:
            spawn(_child, (work, arguments, folder, count), nprocs=count)  # type: ignore[no-untyped-call]
        except ProcessExitedException:
            said = Path(folder) / "error.json"
            if said.is_file():
                raise ModelError(*json.loads(said.read_text("utf-8"))) from None
            raise


def _child(rank: int, work: Callable[..., None], arguments: tuple[Any, ...], folder: str, count: int) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    try:
        _joined(work, arguments, f"file://{folder}/meet", rank, count)
    except GlaciercubeError as error:
        # Told once, by the parent: an error's own text and not a trace of this process.
        (Path(folder) / "error.json").write_text(json.dumps([error.problem, error.remedy]), "utf-8")
        raise SystemExit(1) from None


def _joined(work: Callable[..., None], arguments: tuple[Any, ...], meet: str | None, rank: int, count: int) -> None:
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if meet is None:
        distributed.init_process_group(backend, timeout=_PATIENCE)
    else:
        distributed.init_process_group(backend, init_method=meet, rank=rank, world_size=count, timeout=_PATIENCE)
    try:
        work(*arguments)
    finally:
        distributed.destroy_process_group()
