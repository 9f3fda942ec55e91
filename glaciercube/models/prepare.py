"""What is done to a block before a module sees it: checked, normalised, masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from glaciercube.errors import ModelError
from glaciercube.models.contract import Contract, Modality

__all__ = ["Masked", "any_valid", "check_shape", "check_size", "normalise"]


class Masked(NamedTuple):
    """Normalised values with their mask.

    Attributes
    ----------
    values : (time, channel, y, x) float32
        Normalised; 0 where missing. Static input has one time.
    valid : (time, 1, y, x) bool
        True where every channel was finite.
    """

    values: Tensor
    valid: Tensor


def normalise(values: Tensor, modality: Modality) -> Masked:
    """Apply a modality's normalisation on the tensor's own device.

    Parameters
    ----------
    values : (time, channel, y, x) float32 tensor
        Raw physical units; not finite where missing.
    modality : Modality
        Means, deviations and clip.

    Returns
    -------
    Masked
        ``(x - mean) / std``, clipped, with 0 where missing.
    """
    finite = torch.isfinite(values)
    mean = values.new_tensor(modality.mean).view(1, -1, 1, 1)
    std = values.new_tensor(modality.std).view(1, -1, 1, 1)
    scaled = (values - mean) / std
    if modality.clip is not None:
        scaled = scaled.clamp(*modality.clip)
    valid = finite.all(dim=1, keepdim=True)
    # A pixel of which one band is missing is missing: its other bands must not leak in unmasked.
    return Masked(torch.where(valid, scaled, torch.zeros_like(scaled)), valid)


def any_valid(masked: Mapping[str, Masked], contract: Contract) -> Tensor | None:
    """Where the modalities that carry evidence define a pixel, (time, 1, y, x); None without such a modality."""
    defined: Tensor | None = None
    for name, entry in masked.items():
        if contract.modality(name).evidence:
            defined = entry.valid if defined is None else defined | entry.valid
    for name, entry in masked.items():
        if contract.modality(name).required and defined is not None:
            defined = defined & entry.valid
    return defined


def check_shape(
    contract: Contract, modality: Modality, values: Tensor, shape: tuple[int, ...] | None, *, static: bool
) -> None:
    """Refuse input that is not (time, channel, y, x) of its modality, or not of the others' block and dates.

    Raises
    ------
    ModelError
        Naming the modality.
    """
    if modality.static != static:
        kind = "static (y, x)" if modality.static else "per date (time, y, x)"
        raise ModelError(f"modality {modality.name!r} of model {contract.name!r} is {kind}", "give it as such")
    if values.ndim != 4 or values.shape[1] != len(modality.variables):
        raise ModelError(
            f"{modality.name} input of shape {tuple(values.shape)}",
            f"stack {', '.join(modality.variables)} along the channel dimension",
        )
    if shape is not None and (shape[0], *shape[2:]) != (values.shape[0], *values.shape[2:]):
        raise ModelError(
            f"{modality.name} input of shape {tuple(values.shape)} beside another of shape {shape}",
            "cut all modalities from the same block and dates",
        )


def check_size(dynamic: tuple[int, int] | None, static: tuple[int, int] | None, contract: Contract) -> tuple[int, int]:
    """The one size of all inputs.

    Raises
    ------
    ModelError
        If there is none, or two.
    """
    if dynamic is not None and static is not None and dynamic != static:
        raise ModelError(
            f"static input of {static} pixels and dynamic input of {dynamic}",
            "cut both from the same block of the grid",
        )
    size = dynamic or static
    if size is None:
        raise ModelError(
            f"model {contract.name!r} got no input at all",
            "give it one of " + ", ".join(modality.name for modality in contract.modalities),
        )
    return size
