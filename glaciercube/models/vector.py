"""The test vector: inputs and the outputs that they must give, which prove that a model was loaded whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from glaciercube.errors import ModelError
from glaciercube.models.base import Model
from glaciercube.models.contract import Modality

__all__ = ["check_vector", "make_vector"]

#: Limits between which a variable's test values lie; reflectance and shares otherwise.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "vv_db": (-25.0, 5.0),
    "vh_db": (-32.0, 0.0),
    "elevation": (0.0, 5000.0),
    "slope": (0.0, 60.0),
    "aspect_sin": (-1.0, 1.0),
    "aspect_cos": (-1.0, 1.0),
    "curvature": (-0.02, 0.02),
    "topographic_position": (-3.0, 3.0),
    "elevation_change": (-4.0, 1.0),
    "velocity": (0.0, 100.0),
}
_SIZE, _DATES = 32, 2
#: Days of the test dates, for models of several dates.
_DAYS = (0.0, 12.0)


def make_vector(model: Model) -> dict[str, Tensor]:
    """Make test inputs and the model's outputs.

    Parameters
    ----------
    model : Model
        Of any architecture.

    Returns
    -------
    dict of str to tensor
        ``CASE/dynamic/MODALITY`` (2, channel, 32, 32), ``CASE/static/MODALITY`` (channel, 32, 32) and
        ``CASE/output`` (time, 32, 32), or (time, class, 32, 32) of more classes than two, float32, NaN where missing.
        Case ``all`` has every modality; each other case has the one modality it is named after.
    """
    modalities = model.contract.modalities
    cases = {"all": modalities}
    if not any(modality.required for modality in modalities) and len(modalities) > 1:
        cases |= {modality.name: (modality,) for modality in modalities if modality.evidence}
    tensors: dict[str, Tensor] = {}
    for case, members in cases.items():
        dynamic = {m.name: _values(m) for m in members if not m.static}
        static = {m.name: _values(m)[0] for m in members if m.static}
        tensors |= {f"{case}/dynamic/{name}": value for name, value in dynamic.items()}
        tensors |= {f"{case}/static/{name}": value.contiguous() for name, value in static.items()}
        tensors[f"{case}/output"] = _run(model, dynamic, static)
    return tensors


def check_vector(model: Model, tensors: Mapping[str, Tensor], tolerance: float) -> None:
    """Compare the model's outputs with the stored ones.

    Raises
    ------
    ModelError
        If an output differs by more than the tolerance, or is missing in another place.
    """
    cases = [key.removesuffix("/output") for key in tensors if key.endswith("/output")]
    if not cases:
        raise ModelError(f"the test vector of model {model.contract.name!r} is empty", "write it with save_model")
    for case in cases:
        dynamic = _under(tensors, f"{case}/dynamic/")
        got = _run(model, dynamic, _under(tensors, f"{case}/static/"))
        if not torch.allclose(got, tensors[f"{case}/output"], rtol=0.0, atol=tolerance, equal_nan=True):
            raise ModelError(
                f"model {model.contract.name!r} does not give its stored output for the test case {case!r}",
                "the weights or this version's architecture changed: get the model folder again, or train it anew",
            )


def _run(model: Model, dynamic: Mapping[str, Tensor], static: Mapping[str, Tensor]) -> Tensor:
    dates = max((len(values) for values in dynamic.values()), default=1)
    days = _DAYS[:dates] if model.contract.time_context is not None else None
    binary = len(model.contract.classes) == 2
    give = model.predict if binary else model.predict_classes
    return give(dynamic, static, days=days).contiguous()


def _values(modality: Modality) -> Tensor:
    # Python's own hash of a string differs between processes; the bytes' sum does not.
    rng = np.random.default_rng(sum(modality.name.encode()))
    limits = np.array([_LIMITS.get(name, (0.0, 1.0)) for name in modality.variables], dtype=np.float32)
    low, high = limits[:, 0, None, None], limits[:, 1, None, None]
    shares = rng.random((_DATES, len(modality.variables), _SIZE, _SIZE), dtype=np.float32)
    values = low + shares * (high - low)
    values[:, :, :4, :4] = np.nan
    return torch.from_numpy(values.astype(np.float32))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
