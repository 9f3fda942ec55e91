"""predict_block(): one block of the cube in, one block of probability and quality out."""

from __future__ import annotations

import logging
import re
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError, require
from glaciercube.inference.placing import tell_of_cpu, worker_device
from glaciercube.inference.window import Window
from glaciercube.models.contract import Contract, Modality

if TYPE_CHECKING:
    from torch import Tensor

    from glaciercube.models.base import Model, StaticFeatures

__all__ = [
    "KERNEL_VERSION",
    "NOT_CANDIDATE",
    "QUALITY_BITS",
    "BlockOptions",
    "choose_device",
    "encode_block",
    "not_candidate",
    "predict_block",
]

Arrays = Mapping[str, npt.NDArray[Any]]

_log = logging.getLogger(__name__)

# Raised only when the bytes that the kernel gives for the same input change.
KERNEL_VERSION: Final = 1

# One block at a time on a CUDA device, whichever threads ask: memory is what it has least of. Processes have devices of
# their own.
_TURNS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

# What a device's memory held, once it did not hold the batch: model, device, height, width -> dates.
_FITS: dict[tuple[str, str, int, int], int] = {}

# Bits of `quality`; 0 means that the pixel was never processed. The four after `processed`, and the last, are
# `optical_flags` shifted by one.
QUALITY_BITS: Final = {
    "processed": 1,
    "optical_observed": 2,
    "cloud": 4,
    "cloud_shadow": 8,
    "snow": 16,
    "radar_observed": 32,
    "terrain_known": 64,
    "recovered": 128,
}

# `quality` where nothing was computed, since nothing can be there: the bit of `recovered`, but not that of `processed`.
NOT_CANDIDATE: Final = 128


@dataclass(frozen=True)
class BlockOptions:
    """How a block is computed.

    Attributes
    ----------
    batch : int
        Dates per forward pass; halved when the device runs out of memory, which is remembered for blocks of that size.
    device : str or None
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``; CUDA where it is found when None.
    """

    batch: int = 4
    device: str | None = None

    def __post_init__(self) -> None:
        require(self.batch >= 1, f"batch {self.batch} is not a number of dates", "give 1 or more")
        known = self.device is None or re.fullmatch(r"cpu|cuda(:\d+)?", self.device)
        require(bool(known), f"unknown device {self.device!r}", "give cpu, cuda or cuda:0, or leave it out")


def choose_device(device: str | None) -> str:
    """The device to compute on: what was asked for, else what this worker was given, else CUDA, else the CPU.

    Raises
    ------
    ModelError
        If CUDA was asked for and is not there.
    """
    import torch

    if device is None:
        given = worker_device()
        if given is None and not torch.cuda.is_available():
            tell_of_cpu()
            return "cpu"
        return given or "cuda"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device} was asked for and there is no CUDA here", "leave it out, or use cpu")
    return device


def encode_block(model: Model, arrays: Arrays, window: Window, options: BlockOptions) -> StaticFeatures:
    """Run the model's static branch over a block, once for all its dates.

    Parameters
    ----------
    model : Model
        From `glaciercube.models.load_model`.
    arrays : mapping of str to (y, x) array
        Static variables over ``window.y.read``, ``window.x.read``, in the contract's units, NaN where missing.
    window : Window
        The block with its halo.
    options : BlockOptions
        Device.

    Raises
    ------
    ModelError
        If the device's memory does not hold it.
    """
    device = _prepare_thread(options)
    modalities = [modality for modality in _at_hand(model.contract, arrays) if modality.static]
    try:
        with _turn(device):
            inputs = {modality.name: _tensor(modality, arrays, window, device) for modality in modalities}
            return model.to(device).encode_static(inputs, framed=True)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
        raise _too_large() from error


def predict_block(
    model: Model,
    arrays: Arrays,
    static: StaticFeatures,
    window: Window,
    options: BlockOptions,
    dates: int,
    *,
    days: Sequence[float] | None = None,
    targets: Sequence[int] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Probability and quality of one block.

    Parameters
    ----------
    model : Model
        From `glaciercube.models.load_model`.
    arrays : mapping of str to (time, y, x) or (y, x) array
        Variables over ``window.y.read``, ``window.x.read``, in the contract's units, NaN where missing;
        ``optical_flags`` (uint8) where known.
    static : StaticFeatures
        From `encode_block` over the same window.
    window : Window
        The block with its halo.
    options : BlockOptions
        Batch and device.
    dates : int
        How many are predicted.
    days : sequence of float, optional
        Of all times of the arrays, in days from any day; for models with a time context.
    targets : sequence of int, optional
        Times to predict, of which there are `dates`; the others are context only. All of them when left out.

    Returns
    -------
    probability : (time, y, x) float32
        0 to 1 over the block's core, NaN where the model has no evidence.
    quality : (time, y, x) uint8
        `QUALITY_BITS` over the block's core.

    Raises
    ------
    ModelError
        If the device's memory does not hold a single date, or the model looks at several dates and is not told when
        they were.
    """
    if model.contract.time_context is not None and days is None:
        raise ModelError(
            f"model {model.contract.name!r} looks at dates beside each date, which are not read here",
            "use glaciercube.predict over a cube of all dates",
        )
    device = _prepare_thread(options)
    passes = _Passes(model.to(device), arrays, static, window, device, days)
    wanted = list(range(dates)) if targets is None else list(targets)
    out = np.empty((dates, window.y.size, window.x.size), np.float32)
    size = (window.y.stop - window.y.start, window.x.stop - window.x.start)
    key, done = (model.hash, device, *size), 0
    while done < dates:
        # Asked each time: another thread may have found out meanwhile.
        batch = min(options.batch, _FITS.get(key, options.batch))
        part = slice(done, min(done + batch, dates))
        found = passes.probability(wanted[part], least=batch == 1)
        if found is None:
            _halve(key, batch)
            continue
        # A model without dynamic input gives one map for all dates.
        out[part] = found[:, window.y.core, window.x.core]
        done = part.stop
    shown = {name: values[wanted] if values.ndim == 3 else values for name, values in arrays.items()}
    return out, _quality(shown if targets is not None else arrays, window, out.shape)


@dataclass(frozen=True, eq=False)
class _Passes:
    """What all passes of a block's dates through a model have in common."""

    model: Model
    arrays: Arrays
    static: StaticFeatures
    window: Window
    device: str
    days: Sequence[float] | None

    def probability(self, wanted: Sequence[int], *, least: bool) -> npt.NDArray[np.float32] | None:
        """Of some dates, over the block with its halo; None if the device's memory does not hold so many.

        With `least` it is an error then.
        """
        context, days = self.model.contract.time_context, self.days
        rows = list(wanted) if context is None or days is None else context.union(days, wanted)
        when = None if days is None else [days[row] for row in rows]
        own = None if context is None else [rows.index(row) for row in wanted]
        modalities = [m for m in _at_hand(self.model.contract, self.arrays) if not m.static]
        try:
            with _turn(self.device):
                inputs = {m.name: _tensor(m, self.arrays, self.window, self.device, rows) for m in modalities}
                found = self.model.predict(inputs, self.static, days=when, targets=own)
                return np.asarray(found.float().cpu().numpy())
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if least:
                raise _too_large() from error
        # Less is tried out of here: while the error lives, so do the tensors of its frames.
        return None


def not_candidate(dates: int, y: slice, x: slice) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Probability and quality of a block that is not computed, since nothing can be there.

    Parameters
    ----------
    dates : int
        Length of the time axis.
    y, x : slice
        Its pixels on the grid.

    Returns
    -------
    probability : (time, y, x) float32
        NaN.
    quality : (time, y, x) uint8
        `NOT_CANDIDATE`.
    """
    shape = (dates, y.stop - y.start, x.stop - x.start)
    return np.full(shape, np.nan, np.float32), np.full(shape, NOT_CANDIDATE, np.uint8)


def _prepare_thread(options: BlockOptions) -> str:
    import torch

    # One torch thread per dask thread: in a pool, more only contend. The caller's own thread is left as it is.
    if threading.current_thread() is not threading.main_thread():
        torch.set_num_threads(1)
    return choose_device(options.device)


def _at_hand(contract: Contract, arrays: Arrays) -> list[Modality]:
    return [m for m in contract.modalities if all(name in arrays for name in m.variables)]


def _tensor(
    modality: Modality, arrays: Arrays, window: Window, device: str, rows: Sequence[int] | None = None
) -> Tensor:
    import torch

    layers = [np.asarray(arrays[name], np.float32) for name in modality.variables]
    if rows is not None:
        # A run of dates is a view; only dates that are not are copied.
        straight = len(rows) > 0 and list(rows) == list(range(rows[0], rows[0] + len(rows)))
        chosen = slice(rows[0], rows[0] + len(rows)) if straight else list(rows)
        layers = [layer[chosen] for layer in layers]
    stack = window.pad(np.stack(layers, axis=-3))
    return torch.from_numpy(np.ascontiguousarray(stack)).to(device)


def _turn(device: str) -> AbstractContextManager[Any]:
    return nullcontext() if device == "cpu" else _TURNS[device]


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError)


def _too_large() -> ModelError:
    return ModelError("the device's memory does not hold one date of a block", "use smaller blocks")


def _halve(key: tuple[str, str, int, int], batch: int) -> None:
    import torch

    # Another thread may have found out that it is even less.
    _FITS[key] = min(batch // 2, _FITS.get(key, batch))
    _log.warning("out of device memory: %d dates per pass instead of %d", _FITS[key], batch)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _quality(arrays: Arrays, window: Window, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    core_y = slice(window.y.trim - window.y.before, window.y.trim - window.y.before + window.y.size)
    core_x = slice(window.x.trim - window.x.before, window.x.trim - window.x.before + window.x.size)
    quality = np.full(shape, QUALITY_BITS["processed"], np.uint8)
    if "optical_flags" in arrays:
        quality |= arrays["optical_flags"][..., core_y, core_x].astype(np.uint8) << 1
    elif "red" in arrays:
        quality |= _bit(arrays["red"][..., core_y, core_x], "optical_observed")
    if "vv_db" in arrays:
        quality |= _bit(arrays["vv_db"][..., core_y, core_x], "radar_observed")
    if "slope" in arrays:
        quality |= _bit(arrays["slope"][..., core_y, core_x], "terrain_known")
    return quality


def _bit(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    bits: npt.NDArray[np.uint8] = np.isfinite(values).astype(np.uint8) * np.uint8(QUALITY_BITS[name])
    return bits
