"""Models that come as an exported program: how the contract's inputs become its arguments, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models.base import GlacierModule, Masked, Model, Neighbours
from glaciercube.models.contract import Contract
from glaciercube.models.pt2 import clean_archive, open_program

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["ARCHITECTURE", "Program", "export_model", "import_program"]

ARCHITECTURE = "torch-export"
_GIVES = ("probability", "logit")
_NEIGHBOURS = tuple(f"neighbours.{field}" for field in Neighbours._fields)


class Program(GlacierModule):
    """An exported program as a module.

    Parameters
    ----------
    contract : Contract
        Its parameter ``arguments`` says what the program takes, separated by commas: a modality (normalised values, 0
        where missing), several joined by ``+`` (stacked along the channels, terrain for every date), ``NAME.valid``
        (True where a modality is known), ``neighbours.which``, ``neighbours.present``, ``neighbours.days``. By default
        all modalities stacked. ``gives`` says what it returns, ``logit`` or ``probability``, (time, y, x) or (time,
        class, y, x) with one channel for two classes or one per class.
    program : ExportedProgram
        On one device.
    data : bytes
        The clean archive that it was read from.
    digest : str
        Of its content.
    """

    def __init__(self, contract: Contract, program: ExportedProgram, data: bytes, digest: str) -> None:
        super().__init__()
        self.contract, self.data, self.identity = contract, data, digest.encode()
        self._arguments = _arguments(contract)
        self._gives = str(contract.parameters.get("gives"))
        if self._gives not in _GIVES:
            raise ModelError(
                f"model {contract.name!r} does not say what its program returns ({self._gives})",
                f"set the parameter gives to {' or '.join(_GIVES)}",
            )
        self._program = program
        # Kept out of the tree of modules: what is exported cannot be set to training or evaluation.
        self._call = (program.module(check_guards=False),)
        self._batch = _check_sizes(contract, program, self._arguments)
        self.register_buffer("device", torch.empty(0))

    @property
    def parameter_count(self) -> int:
        """Number of trained weights."""
        return sum(parameter.numel() for parameter in self._program.parameters())

    def placed(self, device: torch.device) -> Program:
        """The same program on another device."""
        from torch.export.passes import move_to_device_pass

        moved = move_to_device_pass(open_program(self.data, self.contract.name), device)
        other = Program(self.contract, moved, self.data, self.identity.decode())
        return other.to(device)

    def forward(
        self, dynamic: Mapping[str, Masked], static_features: Any, neighbours: Neighbours | None = None
    ) -> Tensor:
        """Return probabilities, (time, y, x) or (time, class, y, x)."""
        given = {**self._absent(dynamic, static_features), **dynamic, **static_features}
        dates = max(len(entry.values) for entry in given.values())
        inputs = [_argument(names, given, neighbours) for names in self._arguments]
        found = self._call[0](*inputs) if self._batch is None else self._parts(inputs, dates, self._batch)
        return self._probability(found)

    def _absent(self, dynamic: Mapping[str, Masked], static: Mapping[str, Masked]) -> dict[str, Masked]:
        """Modalities that were not given, as missing everywhere."""
        like = next(iter((*dynamic.values(), *static.values()))).values
        dates = max(len(entry.values) for entry in (*dynamic.values(), *static.values()))
        absent: dict[str, Masked] = {}
        for modality in self.contract.modalities:
            shape = (1 if modality.static else dates, len(modality.variables), *like.shape[2:])
            values = like.new_zeros(shape)
            absent[modality.name] = Masked(values, torch.zeros_like(values[:, :1], dtype=torch.bool))
        return absent

    def _parts(self, inputs: Sequence[Tensor], dates: int, batch: int) -> Tensor:
        """A program of a fixed number of dates, called as often as it takes; the last are filled up with zeros."""
        found = []
        for first in range(0, dates, batch):
            some = [each if len(each) != dates else each[first : first + batch] for each in inputs]
            fill = batch - min(batch, dates - first)
            grown = [
                torch.cat([each, each.new_zeros(fill, *each.shape[1:])]) if fill and len(full) == dates else each
                for each, full in zip(some, inputs, strict=True)
            ]
            found.append(self._call[0](*grown)[: batch - fill])
        return torch.cat(found)

    def _probability(self, found: Any) -> Tensor:
        found = found[0] if isinstance(found, tuple | list) else found
        classes = len(self.contract.classes)
        if found.ndim == 4 and found.shape[1] == 1 and classes == 2:
            found = found[:, 0]
        binary = found.ndim == 3 and classes == 2
        if not binary and (found.ndim != 4 or found.shape[1] != classes):
            raise ModelError(
                f"the program of model {self.contract.name!r} returns shape {tuple(found.shape)}",
                f"let it return (time, class, y, x) for the classes {', '.join(self.contract.classes)}",
            )
        if self._gives == "logit":
            found = torch.sigmoid(found) if binary else torch.softmax(found, dim=1)
        probability: Tensor = found.float()
        return probability


def import_program(path: str | Path, contract: Contract) -> Model:
    """Take in an exported program; `glaciercube.models.save_model` then writes its model folder.

    Parameters
    ----------
    path : str or Path
        As `torch.export.save` writes it. Nothing in it is unpickled or evaluated, see `glaciercube.models.pt2`.
    contract : Contract
        What it takes and gives; its architecture is set to ``torch-export``.

    Raises
    ------
    ModelError
        If the file holds what could run code, or does not fit the contract.
    """
    data, digest = clean_archive(Path(path))
    named = replace(contract, architecture=ARCHITECTURE)
    return Model.from_module(named, Program(named, open_program(data, str(path)), data, digest))


def export_model(model: Model, path: str | Path) -> Model:
    """Write a model as an exported program, which runs without this package, and take it in again.

    Parameters
    ----------
    model : Model
        On the CPU.
    path : str or Path
        The file, ``.pt2``.

    Returns
    -------
    Model
        The program, with the contract that says what its arguments are.
    """
    contract = model.contract
    names = [part for m in contract.modalities for part in (m.name, f"{m.name}.valid")]
    if contract.time_context is not None:
        names += _NEIGHBOURS
    flat = _Flat(model, names).eval()
    program = torch.export.export(flat, _samples(contract), dynamic_shapes=_shapes(contract), strict=False)
    torch.export.save(program, Path(path))
    parameters = {**contract.parameters, "arguments": ", ".join(names), "gives": "probability"}
    required = not model.module.absent_is_missing
    modalities = tuple(replace(m, required=m.required or required) for m in contract.modalities)
    return import_program(path, replace(contract, parameters=parameters, modalities=modalities))


class _Flat(nn.Module):
    """A model whose arguments are tensors."""

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        super().__init__()
        self.module, self.contract, self.names = model.module, model.contract, tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        found = dict(zip(self.names, tensors, strict=True))
        entries = {m.name: Masked(found[m.name], found[f"{m.name}.valid"]) for m in self.contract.modalities}
        static = {m.name: entries[m.name] for m in self.contract.modalities if m.static}
        dynamic = {name: entry for name, entry in entries.items() if name not in static}
        features = self.module.encode_static(static)
        if self.contract.time_context is None:
            probability: Tensor = self.module(dynamic, features)
            return probability
        series: Tensor = self.module(dynamic, features, Neighbours(*(found[name] for name in _NEIGHBOURS)))
        return series


def _samples(contract: Contract) -> tuple[Tensor, ...]:
    # Neither 0 nor 1 in any size that may vary: torch takes these for constants.
    dates, targets = 3, 2
    side = 2 * contract.stride if contract.windows is None else contract.windows.size
    tensors: list[Tensor] = []
    for modality in contract.modalities:
        values = torch.zeros(1 if modality.static else dates, len(modality.variables), side, side)
        tensors += [values, torch.ones_like(values[:, :1], dtype=torch.bool)]
    if contract.time_context is not None:
        index = torch.zeros(targets, contract.time_context.places, dtype=torch.int64)
        tensors += [index, torch.ones_like(index, dtype=torch.bool), index.float()]
    return tuple(tensors)


def _shapes(contract: Contract) -> tuple[tuple[dict[int, Any], ...]]:
    from torch.export import Dim

    dates, targets = Dim("dates", min=1), Dim("targets", min=1)
    space: dict[int, Any] = {}
    if contract.windows is None:
        height, width = Dim("height", min=1), Dim("width", min=1)
        space = (
            {2: contract.stride * height, 3: contract.stride * width} if contract.stride > 1 else {2: height, 3: width}
        )
    shapes: list[dict[int, Any]] = []
    for modality in contract.modalities:
        shapes += [space if modality.static else {0: dates, **space}] * 2
    if contract.time_context is not None:
        shapes += [{0: targets}] * 3
    return (tuple(shapes),)


def _arguments(contract: Contract) -> list[list[str]]:
    text = contract.parameters.get("arguments") or "+".join(m.name for m in contract.modalities)
    arguments = [[name.strip() for name in part.split("+")] for part in str(text).split(",")]
    known = {name for m in contract.modalities for name in (m.name, f"{m.name}.valid")}
    known |= set(_NEIGHBOURS) if contract.time_context is not None else set()
    for name in (name for argument in arguments for name in argument):
        if name not in known:
            raise ModelError(
                f"model {contract.name!r} hands its program {name!r}", f"choose among {', '.join(sorted(known))}"
            )
    return arguments


def _argument(names: Sequence[str], given: Mapping[str, Masked], neighbours: Neighbours | None) -> Tensor:
    parts: list[Tensor] = []
    for name in names:
        modality, _, field = name.partition(".")
        if modality == "neighbours":
            parts.append(getattr(neighbours, field))
        else:
            parts.append(given[modality].valid if field else given[modality].values)
    if len(parts) == 1:
        return parts[0]
    longest = max(len(part) for part in parts)
    return torch.cat([part.to(parts[0].dtype).expand(longest, -1, -1, -1) for part in parts], dim=1)


def _check_sizes(contract: Contract, program: ExportedProgram, arguments: Sequence[Sequence[str]]) -> int | None:
    """Number of dates that the program is made for, None for any; refuse one that does not fit the contract."""
    names = set(program.graph_signature.user_inputs)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(shapes) != len(arguments):
        raise ModelError(
            f"the program of model {contract.name!r} takes {len(shapes)} arguments and its contract gives "
            f"{len(arguments)}",
            "name them all in the parameter arguments",
        )
    fixed: set[int] = set()
    static = {m.name for m in contract.modalities if m.static}
    for names_, shape in zip(arguments, shapes, strict=True):
        if names_[0].startswith("neighbours."):
            continue
        sides = [side for side in shape[2:] if isinstance(side, int)]
        size = None if contract.windows is None else contract.windows.size
        if any(side != size for side in sides):
            raise ModelError(
                f"the program of model {contract.name!r} takes images of {tuple(shape[2:])} pixels",
                "export it for any size, or give its contract a global receptive field and windows of that size",
            )
        if not all(name.partition(".")[0] in static for name in names_) and isinstance(shape[0], int):
            fixed.add(shape[0])
    if len(fixed) > 1 or (fixed and contract.time_context is not None):
        raise ModelError(
            f"the program of model {contract.name!r} takes fixed numbers of dates {sorted(fixed)}",
            "export it with one number of dates, or for any",
        )
    return fixed.pop() if fixed else None
