"""A model ready to run: contract, module and content hash, called with raw physical units on any device."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models.contract import Contract
from glaciercube.models.frame import Blend, Frame, frame_block
from glaciercube.models.neighbours import Neighbours, find_neighbours
from glaciercube.models.prepare import Masked, any_valid, check_shape, check_size, normalise
from glaciercube.models.reach import Windows

__all__ = ["GlacierModule", "Masked", "Model", "Neighbours", "StaticFeatures", "content_hash", "normalise"]


class GlacierModule(nn.Module):
    """What an architecture must offer; the caller normalises, masks, pads and cuts windows."""

    #: What is hashed beside the weights, for modules that are more than their architecture's name and their weights.
    identity: bytes = b""
    #: Whether a modality that is absent and one that is missing everywhere are the same to the module.
    absent_is_missing: bool = True

    def encode_static(self, static: Mapping[str, Masked]) -> Any:
        """Turn the static inputs into features: once per block, or once per window and batch of dates."""
        return dict(static)

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return probabilities in 0..1, float32.

        Modules whose contract has a time context take `Neighbours` as a third argument.

        Parameters
        ----------
        dynamic : mapping of str to Masked
            By modality.
        static_features : object
            From `encode_static`.

        Returns
        -------
        (time, y, x) or (time, class, y, x)
            Of the second of two classes, or of every class. Times are those of the inputs, or the dates that
            neighbours are given for; without dynamic input, one.
        """
        raise NotImplementedError

    @property
    def parameter_count(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def placed(self, device: torch.device) -> GlacierModule:
        """A copy on a device."""
        return copy.deepcopy(self).to(device).eval()


@dataclass(frozen=True)
class StaticFeatures:
    """The static branch of one block, to be used for all its dates.

    Attributes
    ----------
    features : object
        What the module made of the static inputs. Where there are windows, the normalised inputs themselves: features
        of overlapping windows would be many times the block (1.4 GB for GlaViTU's on 1024 pixels), and are made anew
        for each batch of dates.
    valid : (1, y, x) bool or None
        Where a static modality that can define a pixel is finite; None without one.
    size : (int, int) or None
        Height and width of the block; None without static inputs.
    framed : bool
        Whether the block is cut by the contract's lattice, see `glaciercube.models.frame.frame_block`.
    """

    features: Any
    valid: Tensor | None
    size: tuple[int, int] | None
    framed: bool = False


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
                _PLACED[key] = self.module.placed(wanted)
            return replace(self, module=_PLACED[key])

    def encode_static(self, static: Mapping[str, Tensor], *, framed: bool = False) -> StaticFeatures:
        """Run the static branch of one block.

        Parameters
        ----------
        static : mapping of str to (channel, y, x) float32 tensor
            By modality, raw physical units, NaN where missing. May be empty.
        framed : bool
            Whether the block is cut by `glaciercube.inference.block_window` with the contract's halo and lattice. If
            not, it is taken for a whole grid.

        Returns
        -------
        StaticFeatures
            To be given to `predict` for every batch of dates of this block.
        """
        masked, size = self._prepare(
            {name: values[None] for name, values in static.items()}, static=True, framed=framed
        )
        valid = any_valid(masked, self.contract)
        with torch.inference_mode():
            features = self.module.encode_static(masked) if self.contract.windows is None else masked
        return StaticFeatures(features, None if valid is None else valid[:, 0], size, framed)

    def predict(
        self,
        dynamic: Mapping[str, Tensor],
        static: Mapping[str, Tensor] | StaticFeatures,
        *,
        days: Sequence[float] | None = None,
        targets: Sequence[int] | None = None,
    ) -> Tensor:
        """Probability of the contract's first output, as a rule of glacier, over one block.

        Parameters
        ----------
        dynamic : mapping of str to (time, channel, y, x) float32 tensor
            By modality, raw physical units, NaN where missing; modalities that are not at hand are left out.
            All on one device, the module's.
        static : mapping of str to (channel, y, x) float32 tensor, or StaticFeatures
            The static modalities, or what `encode_static` made of them.
        days : sequence of float, optional
            Of each time, in days from any day; for models with a time context, which want more dates than one.
        targets : sequence of int, optional
            Times to predict; the others are context only. All of them when left out.

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
        members = self.contract.outputs[0].classes
        return self._map(dynamic, static, days, targets, [self.contract.classes.index(name) for name in members])

    def predict_classes(
        self,
        dynamic: Mapping[str, Tensor],
        static: Mapping[str, Tensor] | StaticFeatures,
        *,
        days: Sequence[float] | None = None,
        targets: Sequence[int] | None = None,
    ) -> Tensor:
        """Probability of every class, (time, class, y, x) float32, in the contract's order; otherwise as `predict`."""
        return self._map(dynamic, static, days, targets, None)

    def _map(
        self,
        dynamic: Mapping[str, Tensor],
        static: Mapping[str, Tensor] | StaticFeatures,
        days: Sequence[float] | None,
        targets: Sequence[int] | None,
        members: list[int] | None,
    ) -> Tensor:
        self._check_required(dynamic, static)
        known = static if isinstance(static, StaticFeatures) else self.encode_static(static)
        masked, size = self._prepare(dynamic, static=False, framed=known.framed)
        frame = frame_block(self.contract, check_size(size, known.size, self.contract), framed=known.framed)
        wanted = None if targets is None else list(targets)
        call = _Call(self, masked, known, members, self._neighbours(masked, days, wanted), wanted)
        with torch.inference_mode():
            if self.contract.windows is None:
                return frame.crop(call.part(frame, 0))
            return frame.crop(call.blended(frame, self.contract.windows))

    def _neighbours(
        self, masked: Mapping[str, Masked], days: Sequence[float] | None, targets: Sequence[int] | None
    ) -> Neighbours | None:
        if self.contract.time_context is None:
            return None
        first = next(iter(masked.values()), None)
        count = 1 if first is None else len(first.values)
        if days is None and count > 1:
            raise ModelError(
                f"model {self.contract.name!r} looks at several dates and is not told when they were",
                "give the days of all dates",
            )
        days = [0.0] if days is None else days
        if len(days) != count:
            raise ModelError(f"{len(days)} days for {count} dates", "give one day for each date")
        wanted = range(count) if targets is None else targets
        device = torch.device("cpu") if first is None else first.values.device
        return find_neighbours(self.contract.time_context, days, wanted, device)

    def _check_required(self, dynamic: Mapping[str, Tensor], static: Mapping[str, Tensor] | StaticFeatures) -> None:
        for modality in self.contract.modalities:
            given = static if modality.static else dynamic
            if modality.required and not isinstance(given, StaticFeatures) and modality.name not in given:
                raise ModelError(
                    f"model {self.contract.name!r} got no {modality.name} input",
                    f"give it {', '.join(modality.variables)}",
                )

    def _prepare(
        self, inputs: Mapping[str, Tensor], *, static: bool, framed: bool
    ) -> tuple[dict[str, Masked], tuple[int, int] | None]:
        masked: dict[str, Masked] = {}
        shape: tuple[int, ...] | None = None
        frame: Frame | None = None
        for name, values in inputs.items():
            modality = self.contract.modality(name)
            check_shape(self.contract, modality, values, shape, static=static)
            shape = tuple(values.shape)
            frame = frame or frame_block(self.contract, (shape[2], shape[3]), framed=framed)
            masked[name] = normalise(frame.pad(values), modality)
        return masked, None if shape is None else (shape[2], shape[3])


@dataclass(frozen=True)
class _Call:
    """One call of a model over a block."""

    model: Model
    masked: Mapping[str, Masked]
    static: StaticFeatures
    members: list[int] | None
    neighbours: Neighbours | None
    targets: list[int] | None

    def part(self, frame: Frame, number: int) -> Tensor:
        """The map of one window, NaN where undefined."""
        defined, masked = self._defined(frame.parts[number]), frame.cut(self.masked, frame.parts[number])
        if self.neighbours is None and self.targets is not None:
            masked = {name: Masked(*(each[self.targets] for each in entry)) for name, entry in masked.items()}
        module, features = self.model.module, self.static.features
        if self.model.contract.windows is not None:
            features = module.encode_static(frame.cut(features, frame.parts[number]))
        found = module(masked, features) if self.neighbours is None else module(masked, features, self.neighbours)
        found = _summed(found, self.members)
        where = defined if found.ndim == defined.ndim else defined[:, None]
        missing = torch.full((), torch.nan, dtype=found.dtype, device=found.device)
        return torch.where(where, found, missing)

    def blended(self, frame: Frame, windows: Windows) -> Tensor:
        """The map of all windows."""
        first = next(iter(self.masked.values()), None)
        dates = 1 if first is None else len(first.values) if self.targets is None else len(self.targets)
        classes = () if self.members is not None else (len(self.model.contract.classes),)
        blend = Blend(windows, (dates, *classes, *frame.shape))
        for number, part in enumerate(frame.parts):
            # A window that shows nothing is not computed: it would weigh nothing.
            if self._defined(part).any():
                blend.add(part, self.part(frame, number))
        return blend.result(torch.zeros(()) if first is None else first.values)

    def _defined(self, part: tuple[slice, slice]) -> Tensor:
        """Where the window is defined, (time, y, x), over the dates that are predicted."""
        contract, (y, x) = self.model.contract, part
        valid = {name: Masked(entry.values, entry.valid[..., y, x]) for name, entry in self.masked.items()}
        defined = any_valid(valid, contract)
        if defined is None:
            if self.static.valid is None:
                raise ModelError(
                    f"model {contract.name!r} got no modality that carries evidence",
                    "give it one of " + ", ".join(m.name for m in contract.modalities if m.evidence),
                )
            return self.static.valid[..., y, x]
        seen = defined[:, 0]
        if self.neighbours is not None and contract.time_context is not None and contract.time_context.fills:
            index, present, _ = self.neighbours
            return (seen[index] & present[..., None, None]).any(dim=1)
        return seen if self.targets is None else seen[self.targets]


_PLACED: dict[tuple[str, str], GlacierModule] = {}
_PLACED_LOCK = threading.Lock()


def content_hash(contract: Contract, module: nn.Module) -> str:
    """Sha256 (hex) over the contract and every weight: name, type, shape and bytes."""
    digest = hashlib.sha256(contract.fingerprint.encode())
    digest.update(module.identity if isinstance(module, GlacierModule) else b"")
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _summed(found: Tensor, members: list[int] | None) -> Tensor:
    """The sum of some classes (time, y, x), or all of them (time, class, y, x)."""
    if found.ndim == 3:
        if members == [1]:
            return found
        found = torch.stack([1.0 - found, found], dim=1)
    return found if members is None else found[:, members].sum(dim=1).clamp(max=1.0)
