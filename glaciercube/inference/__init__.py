"""A model over a cube: one kernel for blocks, and the lazy surface over it."""

from __future__ import annotations

from glaciercube.inference.block import (
    KERNEL_VERSION,
    NOT_CANDIDATE,
    QUALITY_BITS,
    BlockOptions,
    choose_device,
    encode_block,
    not_candidate,
    predict_block,
)
from glaciercube.inference.lazy import check_cube, predict
from glaciercube.inference.placing import CpuFallbackWarning, on_gpus
from glaciercube.inference.window import Window, block_window

__all__ = [
    "KERNEL_VERSION",
    "NOT_CANDIDATE",
    "QUALITY_BITS",
    "BlockOptions",
    "CpuFallbackWarning",
    "Window",
    "block_window",
    "check_cube",
    "choose_device",
    "encode_block",
    "not_candidate",
    "on_gpus",
    "predict",
    "predict_block",
]
