"""Several models behind one contract: the mean of what they say, and how far they differ.

An ensemble is a model like any other: a folder with an MLM item, weights and a test vector, a hash over all its
members, predicted in blocks. Members take the same modalities and tell the same classes apart; how they normalise their
inputs, what they are made of, and how far they see, may differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError, require
from glaciercube.models.base import GlacierModule, Masked, Model
from glaciercube.models.contract import Contract, Modality

__all__ = ["Ensemble", "Several", "ensemble", "members_of", "spread"]

_LEAST = 1e-7


class Several(GlacierModule):
    """A module that says several things at once, of which it gives the mean.

    Parameters
    ----------
    contract : Contract
        Its parameters ``temperature`` and ``shift`` calibrate the mean: its logarithm is divided by the one, and that
        of the classes of the first output is raised by the other.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.contract = contract
        self.temperature = float(contract.parameters.get("temperature", 1.0))  # type: ignore[arg-type]
        self.shift = float(contract.parameters.get("shift", 0.0))  # type: ignore[arg-type]
        self._raised = tuple(float(name in contract.outputs[0].classes) for name in contract.classes)

    @property
    def count(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def member(self, number: int) -> Model:
        """One of them as a model, without the ensemble's own calibration."""
        raise NotImplementedError

    def said(self, number: int, dynamic: Mapping[str, Masked], static_features: Any, *more: Any) -> Tensor:
        """What one of them says of normalised inputs."""
        raise NotImplementedError

    def forward(self, dynamic: Mapping[str, Masked], static_features: Any, *more: Any) -> Tensor:
        """Mean probability, calibrated."""
        total: Tensor | None = None
        for number in range(self.count):
            found = self.said(number, dynamic, static_features, *more)
            total = found if total is None else total + found
        if total is None:
            raise ModelError("an ensemble of nothing", "give it members")
        return self.calibrated(total / self.count)

    def calibrated(self, probability: Tensor) -> Tensor:
        """Calibrate a mean probability, in its shape."""
        if self.temperature == 1.0 and self.shift == 0.0:
            return probability
        p = probability.clamp(_LEAST, 1.0 - _LEAST)
        if len(self._raised) == 2 and probability.ndim == 3:
            return torch.sigmoid((p.log() - (-p).log1p()) / self.temperature + self.shift)
        raised = p.new_tensor(self._raised).view(1, -1, 1, 1)
        return torch.softmax(p.log() / self.temperature + self.shift * raised, dim=1)


class Ensemble(Several):
    """Members with weights of their own.

    Parameters
    ----------
    contract : Contract
        As of `ensemble`: its parameter ``members`` holds their MLM items as JSON.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        from glaciercube.models.registry import build_module

        self.contracts = _contracts(contract)
        self.members = nn.ModuleList(build_module(each) for each in self.contracts)
        self.absent_is_missing = all(module.absent_is_missing for module in self._modules_of())

    @property
    def count(self) -> int:
        """How many members."""
        return len(self.contracts)

    def member(self, number: int) -> Model:
        """A member."""
        return Model.from_module(self.contracts[number], self._modules_of()[number])

    def encode_static(self, static: Mapping[str, Masked]) -> list[Any]:
        """Static features of every member."""
        pairs = zip(self._modules_of(), self.contracts, strict=True)
        return [module.encode_static(_normalised(static, each)) for module, each in pairs]

    def said(self, number: int, dynamic: Mapping[str, Masked], static_features: Any, *more: Any) -> Tensor:
        """What a member says."""
        module = self._modules_of()[number]
        found: Tensor = module(_normalised(dynamic, self.contracts[number]), static_features[number], *more)
        return found

    def _modules_of(self) -> list[GlacierModule]:
        return [module for module in self.members if isinstance(module, GlacierModule)]


def ensemble(models: Sequence[Model], *, name: str = "ensemble", version: str = "1") -> Model:
    """Put several models behind one contract: members trained from several seeds, or snapshots of one training.

    Parameters
    ----------
    models : sequence of Model
        Two or more, of the same modalities, classes and outputs; of fixed windows and of time context, the same too.
    name, version : str
        Of the ensemble.

    Returns
    -------
    Model
        To be written with `save_model`, loaded, run and calibrated as any other. It is as slow as its members together.

    Raises
    ------
    ModelError
        If the members do not fit each other.
    """
    from glaciercube.models.registry import ARCHITECTURES, build_module

    require(len(models) > 1, f"an ensemble of {len(models)}", "give two models or more")
    contracts = [model.contract for model in models]
    first = contracts[0]
    for each in contracts:
        if each.architecture not in ARCHITECTURES:
            raise ModelError(
                f"{each.name!r} is a program and cannot be a member", "give models of a known architecture"
            )
        for what in ("classes", "outputs", "windows", "time_context"):
            if getattr(each, what) != getattr(first, what):
                raise ModelError(
                    f"{first.name!r} and {each.name!r} have other {what.replace('_', ' ')} than each other",
                    "give members that predict the same in the same windows from the same dates",
                )
    items = [each.to_mlm() for each in contracts]
    fields: list[int] = [int(each.receptive_field) for each in contracts if each.receptive_field != "global"]
    contract = Contract(
        name=name,
        version=version,
        architecture="ensemble",
        modalities=_modalities(contracts),
        parameters={"members": json.dumps(items, separators=(",", ":"), sort_keys=True)},
        reflectance=_reflectance(contracts),
        receptive_field="global" if first.receptive_field == "global" else max(fields),
        stride=reduce(math.lcm, (each.stride for each in contracts)),
        windows=first.windows,
        time_context=first.time_context,
        classes=first.classes,
        resolution=(max(c.resolution[0] for c in contracts), min(c.resolution[1] for c in contracts)),
        outputs=first.outputs,
        description=f"Mean of {len(models)} models: {', '.join(dict.fromkeys(c.name for c in contracts))}.",
        references=("https://arxiv.org/abs/1612.01474", *dict.fromkeys(r for c in contracts for r in c.references)),
    )
    module = build_module(contract)
    for own, model in zip(module.members, models, strict=True):  # type: ignore[arg-type]
        own.load_state_dict(model.module.state_dict())
    return Model.from_module(contract, module)


def members_of(model: Model) -> list[Model]:
    """What an ensemble, or a model with dropout at prediction, is made of.

    They live in this process only, and do not carry the calibration of the whole.

    Raises
    ------
    ModelError
        If the model is neither.
    """
    module = model.module
    if not isinstance(module, Several):
        raise ModelError(
            f"model {model.contract.name!r} is one model",
            "make an ensemble of several, or glaciercube.models.dropout.with_dropout of one",
        )
    return [module.member(number) for number in range(module.count)]


def spread(probabilities: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over members' probabilities, each of the members' shape.

    The deviation is that among the members themselves (divided by their number): what they disagree by, and not how
    far their mean may be from the truth.
    """
    stack = torch.stack(list(probabilities))
    return stack.mean(dim=0), stack.std(dim=0, correction=0)


def _contracts(contract: Contract) -> list[Contract]:
    try:
        items = json.loads(str(contract.parameters["members"]))
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"ensemble {contract.name!r} does not say what its members are ({error})",
            "make it with glaciercube.models.ensemble.ensemble",
        ) from error
    return [Contract.from_mlm(item) for item in items]


def _modalities(contracts: Sequence[Contract]) -> tuple[Modality, ...]:
    """The members' modalities, as they are: every member normalises for itself."""
    first = contracts[0].modalities
    for each in contracts:
        known = {m.name: (m.variables, m.static, m.evidence) for m in each.modalities}
        if known != {m.name: (m.variables, m.static, m.evidence) for m in first}:
            raise ModelError(
                f"{contracts[0].name!r} and {each.name!r} take other modalities than each other",
                "give members of the same inputs",
            )
    needed = {m.name for each in contracts for m in each.modalities if m.required}
    return tuple(replace(m, mean=(), std=(), clip=None, required=m.name in needed) for m in first)


def _reflectance(contracts: Sequence[Contract]) -> Any:
    kinds = {each.reflectance for each in contracts} - {"either"}
    if len(kinds) > 1:
        raise ModelError("the members are meant for different reflectance", "give members of one level")
    return kinds.pop() if kinds else "either"


def _normalised(inputs: Mapping[str, Masked], contract: Contract) -> dict[str, Masked]:
    """Values as they are, with a member's own normalisation; 0 where missing."""
    found: dict[str, Masked] = {}
    for name, (values, valid) in inputs.items():
        modality = contract.modality(name)
        mean, std = (values.new_tensor(each).view(1, -1, 1, 1) for each in (modality.mean, modality.std))
        scaled = (values - mean) / std
        if modality.clip is not None:
            scaled = scaled.clamp(*modality.clip)
        found[name] = Masked(torch.where(valid, scaled, torch.zeros_like(scaled)), valid)
    return found
