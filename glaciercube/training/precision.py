"""In which type of number a network's convolutions run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glaciercube.training.options import FitOptions

__all__ = ["Precision", "has_fast_bfloat16"]


@dataclass(frozen=True)
class Precision:
    """Type of convolutions on a device.

    Attributes
    ----------
    device : torch.device
        On which.
    kind : torch.dtype or None
        None: float32, as everything else.
    """

    device: torch.device
    kind: torch.dtype | None

    @classmethod
    def of(cls, options: FitOptions, device: torch.device) -> Precision:
        """What the options ask for, or what the device is fast with."""
        named = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
        if options.precision != "auto":
            return cls(device, named[options.precision])
        if device.type == "cuda":
            return cls(device, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
        return cls(device, torch.bfloat16 if has_fast_bfloat16() else None)

    def cast(self) -> AbstractContextManager[Any]:
        """Within it, what torch runs is of this type where that is safe."""
        return nullcontext() if self.kind is None else torch.autocast(self.device.type, dtype=self.kind)


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware; without, it is slower than float32."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8", errors="ignore") if flags.is_file() else ""
    return "avx512_bf16" in text or "amx_bf16" in text
