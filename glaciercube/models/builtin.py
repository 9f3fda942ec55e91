"""Contracts of the models that come with the package, without torch."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from glaciercube.errors import ModelError
from glaciercube.models.contract import VARIABLES, Contract, Modality, Parameter

__all__ = ["SHIPPED", "builtin_contract", "builtin_names", "read_contract"]

#: Models with trained weights, by name: folders beside this module.
SHIPPED: Mapping[str, Path] = {
    name: Path(__file__).parent / "weights" / name for name in ("fusion-unet", "fusion-unet-time")
}
ITEM = "model.json"


def builtin_names() -> tuple[str, ...]:
    """Names that `load_model` knows without a path."""
    return (*_RULES, *(name for name, folder in SHIPPED.items() if (folder / ITEM).is_file()))


def builtin_contract(name: str, parameters: Mapping[str, Parameter]) -> Contract:
    """Contract of a built-in model with the given parameters.

    Raises
    ------
    ModelError
        If the name or a parameter is unknown, or a parameter has no usable value.
    """
    if name in _RULES:
        return _RULES[name](parameters)
    if name in SHIPPED:
        _merged(name, {}, parameters)
        return read_contract(SHIPPED[name])
    raise ModelError(f"no model is called {name!r}", _did_you_mean(name, builtin_names(), "a model folder's path"))


def read_contract(folder: Path) -> Contract:
    """Read the contract of a model folder.

    Raises
    ------
    ModelError
        If the folder holds no readable MLM item.
    """
    path = folder / ITEM
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read ({error})",
            f"a model folder holds {ITEM}, weights.safetensors and test_vector.safetensors, as save_model writes them",
        ) from error
    return Contract.from_mlm(item)


def _band_ratio(parameters: Mapping[str, Parameter]) -> Contract:
    defaults = {"threshold": 2.8, "blue": 0.15, "softness": 0.25, "blue_softness": 0.02}
    return Contract(
        name="band-ratio",
        version="1",
        architecture="band-ratio",
        modalities=(Modality("optical", ("blue", "red", "swir16"), required=True),),
        parameters=_merged("band-ratio", defaults, parameters, positive=("threshold", "softness", "blue_softness")),
        # 0.15 in blue is a top-of-atmosphere value: it counts the light that the air scatters into shadow.
        reflectance="toa",
        description=(
            "Clean ice and snow where red / swir16 > threshold and blue > blue. The probability is the smaller of "
            "two logistics, of ln(ratio / threshold) / softness and of (blue reflectance - blue) / blue_softness. "
            "Misses debris-covered ice; takes seasonal snow for ice."
        ),
        references=("https://doi.org/10.3189/2013AoG63A296", "https://arxiv.org/abs/2409.12034"),
    )


def _ndsi(parameters: Mapping[str, Parameter]) -> Contract:
    defaults = {"threshold": 0.4, "softness": 0.08, "nir": None, "nir_softness": 0.02}
    merged = _merged("ndsi", defaults, parameters, positive=("softness", "nir_softness"), optional=("nir",))
    bands = ("green", "swir16") if merged["nir"] is None else ("green", "swir16", "nir")
    return Contract(
        name="ndsi",
        version="1",
        architecture="ndsi",
        modalities=(Modality("optical", bands, required=True),),
        parameters=merged,
        reflectance="either",
        description=(
            "Clean ice and snow where (green - swir16) / (green + swir16) > threshold and, where nir is given "
            "(0.11 is usual, against water), nir reflectance > nir. Probability as logistic of the distance."
        ),
        references=("https://doi.org/10.1016/0034-4257(89)90101-6", "https://doi.org/10.1016/0034-4257(95)00137-P"),
    )


def _identity(parameters: Mapping[str, Parameter]) -> Contract:
    defaults: dict[str, Parameter] = {"variable": "blue"}
    merged = defaults | dict(_known("identity", defaults, parameters))
    variable = merged["variable"]
    if not isinstance(variable, str) or variable not in VARIABLES:
        raise ModelError(
            f"identity cannot return {variable!r}", _did_you_mean(str(variable), tuple(VARIABLES), "one variable")
        )
    return Contract(
        name="identity",
        version="1",
        architecture="identity",
        modalities=(Modality("input", (variable,), required=True),),
        parameters=merged,
        description="Returns the named variable unchanged. For tests.",
    )


_RULES: Mapping[str, Callable[[Mapping[str, Parameter]], Contract]] = {
    "band-ratio": _band_ratio,
    "ndsi": _ndsi,
    "identity": _identity,
}


def _known(
    name: str, defaults: Mapping[str, Parameter], parameters: Mapping[str, Parameter]
) -> Mapping[str, Parameter]:
    for key in parameters:
        if key not in defaults:
            remedy = _did_you_mean(key, tuple(defaults), "a parameter") if defaults else "leave it out"
            raise ModelError(f"model {name!r} has no parameter {key!r}", remedy)
    return parameters


def _merged(
    name: str,
    defaults: Mapping[str, Parameter],
    parameters: Mapping[str, Parameter],
    *,
    positive: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> dict[str, Parameter]:
    """Put numbers over the defaults, each checked."""
    merged = dict(defaults)
    for key, value in _known(name, defaults, parameters).items():
        if value is None and key in optional:
            merged[key] = None
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ModelError(f"parameter {key!r} of model {name!r} is {value!r}", "give a number")
        if key in positive and value <= 0:
            raise ModelError(f"parameter {key!r} of model {name!r} is {value}", "give a number above zero")
        merged[key] = float(value)
    return merged


def _did_you_mean(given: str, known: tuple[str, ...], otherwise: str) -> str:
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}choose {', '.join(known)} or {otherwise}"
