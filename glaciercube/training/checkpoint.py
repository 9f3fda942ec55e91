"""Checkpoints of a fit: one safetensors file with its numbers in the header, replaced as a whole; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.training.fingerprint import differences

__all__ = ["Average", "State", "keep", "resume"]


@dataclass
class State:
    """What a fit knows beside its tensors.

    Attributes
    ----------
    step : int
        Steps that are done.
    seconds : float
        Processor time that they took.
    best : float or None
        Best score on the validation chips, the loss.
    waited : int
        Looks since then.
    done : bool
        Whether the fit has ended.
    losses : list of float
        Of the steps since the last row of the log.
    scaler : dict
        Of the loss in float16.
    taught : bool
        Whether any pixel taught anything so far.
    """

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    waited: int = 0
    done: bool = False
    losses: list[float] = field(default_factory=list)
    scaler: dict[str, float] = field(default_factory=dict)
    taught: bool = False


class Average:
    """Exponential moving average of a module's weights and of the statistics of its normalisation.

    Young averages forget faster, ``min(decay, (1 + n) / (10 + n))`` after n steps, so that a short fit does not return
    its beginning.

    Parameters
    ----------
    module : torch.nn.Module
        Whose.
    decay : float
        Of a long fit.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        current = self.module.state_dict()
        with torch.no_grad():
            for name, value in self.tensors.items():
                if value.is_floating_point():
                    value.lerp_(current[name].detach(), share)
                else:
                    value.copy_(current[name])


def keep(
    path: Path,
    identity: Mapping[str, str],
    state: State,
    optimiser: torch.optim.Optimizer,
    average: Average,
    best: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint; what stood there before stays until the new one is whole."""
    from safetensors.torch import save_file

    tensors = {f"weights/{name}": value for name, value in average.module.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.tensors.items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"moments/{number}/{name}": value for name, value in moments.items()}
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = {"state": json.dumps(state.__dict__), "identity": json.dumps(dict(identity))}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    save_file(plain, part, metadata=header)
    part.replace(path)


def resume(
    path: Path | None, identity: Mapping[str, str], optimiser: torch.optim.Optimizer, average: Average
) -> tuple[State, dict[str, Tensor]]:
    """Go on from a checkpoint, if there is one: puts back weights, average and moments.

    Parameters
    ----------
    path : Path or None
        Of the checkpoint.
    identity : mapping of str to str
        As of `glaciercube.training.fingerprint.fit_identity`: the checkpoint must be of the same fit.
    optimiser, average
        Into which it is put.

    Returns
    -------
    (State, dict of str to tensor)
        And the best weights so far; empty where none were kept.

    Raises
    ------
    ModelError
        If the file cannot be read, or is of another fit.
    """
    if path is None or not path.is_file():
        return State(), {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
        state = State(**json.loads(header["state"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"the checkpoint {path} cannot be read ({error})", "delete it to begin anew") from error
    _check_same(path, identity, header.get("identity", "{}"))
    average.module.load_state_dict(_under(tensors, "weights/"))
    for name, value in _under(tensors, "average/").items():
        average.tensors[name].copy_(value)
    _put_moments(optimiser, _under(tensors, "moments/"))
    return state, _under(tensors, "best/")


def _check_same(path: Path, identity: Mapping[str, str], kept: str) -> None:
    """Refuse a checkpoint of another fit, naming what is not the same."""
    other = differences(identity, json.loads(kept))
    if other:
        raise ModelError(
            f"the checkpoint {path} is of another fit: it differs in {', '.join(other)}",
            "go on with the same, or write to another folder (out), or delete the checkpoint to begin anew",
        )


def _put_moments(optimiser: torch.optim.Optimizer, found: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in found.items():
        number, _, name = key.partition("/")
        parameter = parameters[int(number)]
        # In the parameter's own layout: sums of another would differ in their last bit.
        like: Any = torch.empty_like(parameter) if value.shape == parameter.shape else value
        place = like.copy_(value) if like is not value else value.to(parameter.device)
        optimiser.state[parameter][name] = place


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
