"""A model ready to run: contract, module and content hash, called with raw physical units on any device."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models.contract import Contract, Modality

__all__ = ["GlacierModule", "Masked", "Model", "StaticFeatures", "content_hash", "normalise"]


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


class GlacierModule(nn.Module):
    """What an architecture must offer; the caller normalises, masks and pads."""

    def encode_static(self, static: Mapping[str, Masked]) -> Any:
        """Turn the static inputs into features; called once per block, whatever the number of dates."""
        return dict(static)

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return the probability, (time, y, x) float32 in 0..1; without dynamic input, one time."""
        raise NotImplementedError


@dataclass(frozen=True)
class StaticFeatures:
    """The static branch of one block, to be used for all its dates.

    Attributes
    ----------
    features : object
        What the module made of the static inputs.
    valid : (1, y, x) bool or None
        Where a static modality that can define a pixel is finite; None without one.
    size : (int, int) or None
        Height and width of the block; None without static inputs.
    """

    features: Any
    valid: Tensor | None
    size: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model; get one from `glaciercube.models.registry.load_model`.

    Attributes
    ----------
    contract : Contract
        What it takes and gives.
    module : GlacierModule
        In evaluation mode.
    hash : str
        Sha256 (hex) over the weights and the contract.
    source : tuple or None
        Name or folder and the parameters it was loaded with, by which another process loads it again.
    """

    contract: Contract
    module: GlacierModule
    hash: str
    source: tuple[str, tuple[tuple[str, Any], ...]] | None = None

    @classmethod
    def from_module(
        cls,
        contract: Contract,
        module: GlacierModule,
        source: tuple[str, tuple[tuple[str, Any], ...]] | None = None,
    ) -> Model:
        """Make a model of a contract and a module with its weights; the module is set to evaluation mode."""
        module.eval().requires_grad_(requires_grad=False)
        return cls(contract, module, content_hash(contract, module), source)

    def __reduce__(self) -> tuple[Any, ...]:
        # A task carries the name and the hash; the worker's process loads the weights once.
        if self.source is None:
            raise ModelError(
                f"model {self.contract.name!r} lives in this process only",
                "write it with save_model and load it from its folder, so that other processes can",
            )
        from glaciercube.models.registry import load_again

        return load_again, (*self.source, self.hash)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "glaciercube.Model", self.hash

    def to(self, device: torch.device | str) -> Model:
        """Return the model on a device; made once per process, device and content hash."""
        wanted = torch.device(device)
        here = next((t.device for t in self.module.state_dict().values()), None)
        if here is None or here == wanted:
            return self
        key = (self.hash, str(wanted))
        with _PLACED_LOCK:
            if key not in _PLACED:
                _PLACED[key] = _copied_to(self.module, wanted)
            return replace(self, module=_PLACED[key])

    def encode_static(self, static: Mapping[str, Tensor]) -> StaticFeatures:
        """Run the static branch of one block.

        Parameters
        ----------
        static : mapping of str to (channel, y, x) float32 tensor
            By modality, raw physical units, NaN where missing. May be empty.

        Returns
        -------
        StaticFeatures
            To be given to `predict` for every batch of dates of this block.
        """
        masked, size = self._prepare({name: values[None] for name, values in static.items()}, static=True)
        valid = _any_valid(masked, self.contract)
        with torch.inference_mode():
            return StaticFeatures(self.module.encode_static(masked), None if valid is None else valid[:, 0], size)

    def predict(self, dynamic: Mapping[str, Tensor], static: Mapping[str, Tensor] | StaticFeatures) -> Tensor:
        """Glacier probability of one block.

        Parameters
        ----------
        dynamic : mapping of str to (time, channel, y, x) float32 tensor
            By modality, raw physical units, NaN where missing; modalities that are not at hand are left out.
            All on one device, the module's.
        static : mapping of str to (channel, y, x) float32 tensor, or StaticFeatures
            The static modalities, or what `encode_static` made of them.

        Returns
        -------
        (time, y, x) float32 tensor
            Probability in 0..1, NaN where undefined: a pixel is defined where one of the given modalities that
            carry evidence is finite in all its channels and every required one is. Without any dynamic modality
            that carries evidence the static ones decide. Without any dynamic modality there is one time.

        Raises
        ------
        ModelError
            If a modality is unknown or required and absent, or shapes do not fit.
        """
        self._check_required(dynamic, static)
        features = static if isinstance(static, StaticFeatures) else self.encode_static(static)
        masked, size = self._prepare(dynamic, static=False)
        if size is not None and features.size is not None and size != features.size:
            raise ModelError(
                f"static input of {features.size} pixels and dynamic input of {size}",
                "cut both from the same block of the grid",
            )
        height, width = _known(size or features.size, self.contract)
        with torch.inference_mode():
            probability = self.module(masked, features.features)
        defined = _any_valid(masked, self.contract)
        where = features.valid if defined is None else defined[:, 0]
        if where is None:
            raise ModelError(
                f"model {self.contract.name!r} got no modality that carries evidence",
                "give it one of " + ", ".join(m.name for m in self.contract.modalities if m.evidence),
            )
        missing = torch.full((), torch.nan, dtype=probability.dtype, device=probability.device)
        return torch.where(where, probability, missing)[:, :height, :width]

    def _check_required(self, dynamic: Mapping[str, Tensor], static: Mapping[str, Tensor] | StaticFeatures) -> None:
        for modality in self.contract.modalities:
            given = static if modality.static else dynamic
            if modality.required and not isinstance(given, StaticFeatures) and modality.name not in given:
                raise ModelError(
                    f"model {self.contract.name!r} got no {modality.name} input",
                    f"give it {', '.join(modality.variables)}",
                )

    def _prepare(
        self, inputs: Mapping[str, Tensor], *, static: bool
    ) -> tuple[dict[str, Masked], tuple[int, int] | None]:
        masked: dict[str, Masked] = {}
        shape: tuple[int, ...] | None = None
        for name, values in inputs.items():
            modality = self.contract.modality(name)
            _check_shape(self.contract, modality, values, shape, static=static)
            shape = tuple(values.shape)
            masked[name] = normalise(_pad(values, self.contract.stride), modality)
        return masked, None if shape is None else (shape[2], shape[3])


_PLACED: dict[tuple[str, str], GlacierModule] = {}
_PLACED_LOCK = threading.Lock()


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


def content_hash(contract: Contract, module: nn.Module) -> str:
    """Sha256 (hex) over the contract and every weight: name, type, shape and bytes."""
    digest = hashlib.sha256(contract.fingerprint.encode())
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _copied_to(module: GlacierModule, device: torch.device) -> GlacierModule:
    import copy

    return copy.deepcopy(module).to(device).eval()


def _any_valid(masked: Mapping[str, Masked], contract: Contract) -> Tensor | None:
    """Where the modalities that carry evidence define a pixel, (time, 1, y, x); None without such a modality."""
    defined: Tensor | None = None
    for name, entry in masked.items():
        if contract.modality(name).evidence:
            defined = entry.valid if defined is None else defined | entry.valid
    for name, entry in masked.items():
        if contract.modality(name).required and defined is not None:
            defined = defined & entry.valid
    return defined


def _pad(values: Tensor, stride: int) -> Tensor:
    """Grow (…, y, x) to multiples of the stride with missing values at the bottom and right."""
    grow = [-values.shape[-1] % stride, -values.shape[-2] % stride]
    if not any(grow):
        return values
    return nn.functional.pad(values, (0, grow[0], 0, grow[1]), value=float("nan"))


def _check_shape(
    contract: Contract, modality: Modality, values: Tensor, shape: tuple[int, ...] | None, *, static: bool
) -> None:
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


def _known(size: tuple[int, int] | None, contract: Contract) -> tuple[int, int]:
    if size is None:
        raise ModelError(
            f"model {contract.name!r} got no input at all",
            "give it one of " + ", ".join(modality.name for modality in contract.modalities),
        )
    return size
