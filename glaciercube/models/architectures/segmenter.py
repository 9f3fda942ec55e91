"""What the architectures share: inputs stacked or fused, a head over named classes, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeGuard

import torch
from torch import Tensor

from glaciercube.errors import ModelError
from glaciercube.models.base import GlacierModule, Masked
from glaciercube.models.contract import Contract, Modality

__all__ = ["Segmenter", "Supervised", "integer", "integers", "number"]

_BINARY = 2


class Supervised(NamedTuple):
    """One of the maps that training holds against the truth.

    Attributes
    ----------
    logit : (sample, y, x) or (sample, class, y, x) float32
        As `Segmenter.logits`; an auxiliary one may be smaller than the input by a whole factor.
    weight : float
        Of its loss.
    target : {"classes", "edges"}
        Whether the truth is the class, or where classes meet.
    middle : bool
        Whether it shows the middle half of rows and columns alone.
    """

    logit: Tensor
    weight: float
    target: Literal["classes", "edges"] = "classes"
    middle: bool = False


class Segmenter(GlacierModule):
    """A network that gives a logit per class.

    Parameters
    ----------
    contract : Contract
        Its parameters ``temperature`` (1 if absent) and ``shift`` (0) calibrate: logits are divided by the one, and
        those of the classes of the first output are raised by the other.

    Attributes
    ----------
    heads : int
        Channels of the last layer: 1 for two classes (the logit of the second), else one per class.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.contract = contract
        self.heads = 1 if len(contract.classes) == _BINARY else len(contract.classes)
        self.temperature = number(contract, "temperature", 1.0)
        if not self.temperature > 0:
            raise ModelError(f"model {contract.name!r} has the temperature {self.temperature}", "give a number above 0")
        self.shift = number(contract, "shift", 0.0)
        raised = [float(name in contract.outputs[0].classes) for name in contract.classes]
        self._raised = tuple(raised)

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits before temperature and shift: (time, y, x) of two classes, else (time, class, y, x)."""
        return self.supervised(dynamic, static_features)[0].logit

    def supervised(self, dynamic: Mapping[str, Masked], static_features: Any) -> list[Supervised]:
        """Return all maps that training uses; the first is the model's own."""
        return [Supervised(self.logits(dynamic, static_features), 1.0)]

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return calibrated probabilities."""
        return self.calibrated(self.logits(dynamic, static_features))

    def calibrated(self, logits: Tensor) -> Tensor:
        """Probabilities of logits, in their shape."""
        if self.heads == 1:
            return torch.sigmoid(logits / self.temperature + self.shift)
        raised = logits.new_tensor(self._raised).view(1, -1, 1, 1)
        return torch.softmax(logits / self.temperature + self.shift * raised, dim=1)

    def squeezed(self, head: Tensor) -> Tensor:
        """What the last layer gives (time, heads, y, x) as `logits` returns it."""
        return head[:, 0] if self.heads == 1 else head

    def stacked(self, dynamic: Mapping[str, Masked], static: Mapping[str, Masked]) -> Tensor:
        """All modalities along the channels, (time, channel, y, x), 0 where missing, as networks of one input take it.

        Raises
        ------
        ModelError
            If there is none.
        """
        given = [*dynamic.values(), *static.values()]
        if not given:
            raise ModelError(f"{self.contract.architecture} got no input", "give it at least one modality")
        like = given[0].values
        parts = [self._part(modality, dynamic, static, like) for modality in self.contract.modalities]
        return torch.cat(parts, dim=1)

    @staticmethod
    def _part(modality: Modality, dynamic: Mapping[str, Masked], static: Mapping[str, Masked], like: Tensor) -> Tensor:
        given = static if modality.static else dynamic
        if modality.name not in given:
            return like.new_zeros(like.shape[0], len(modality.variables), *like.shape[2:])
        values = given[modality.name].values
        return values.expand(like.shape[0], -1, -1, -1)

    @property
    def channels(self) -> int:
        """Channels of `stacked`."""
        return sum(len(modality.variables) for modality in self.contract.modalities)


def number(contract: Contract, name: str, default: float | None = None) -> float:
    """A number among a contract's parameters.

    Raises
    ------
    ModelError
        If it is absent and has no default, or is none.
    """
    value = contract.parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"parameter {name!r} of model {contract.name!r} is {value!r}", "give a number")
    return float(value)


def integer(contract: Contract, name: str) -> int:
    """A whole number of 1 or more among a contract's parameters.

    Raises
    ------
    ModelError
        If it is absent, or none.
    """
    value = contract.parameters.get(name)
    if not _counts(value):
        raise ModelError(
            f"parameter {name!r} of model {contract.name!r} is {value!r}", "give a whole number of 1 or more"
        )
    return int(value)


def integers(contract: Contract, name: str) -> tuple[int, ...]:
    """Some whole numbers of 1 or more among a contract's parameters.

    Raises
    ------
    ModelError
        If they are absent, or none.
    """
    value = contract.parameters.get(name)
    if not isinstance(value, tuple) or not value or not all(map(_counts, value)):
        raise ModelError(
            f"parameter {name!r} of model {contract.name!r} is {value!r}", "give whole numbers, each of 1 or more"
        )
    return value


def _counts(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
