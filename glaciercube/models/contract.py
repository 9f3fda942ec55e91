"""What a model asks for and what it gives: the contract that inference, stores and users read.

The contract knows no torch, so that models can be listed and planned for without loading it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from glaciercube.errors import ModelError

__all__ = ["GLACIER_PROBABILITY", "VARIABLES", "Contract", "Modality", "Parameter", "Reflectance"]

Parameter: TypeAlias = bool | int | float | str | tuple[int, ...] | None
Reflectance: TypeAlias = Literal["toa", "surface", "either"]

GLACIER_PROBABILITY = "glacier_probability"

#: Variables that the models of this package refer to, with their unit; NaN is missing in each.
VARIABLES: Mapping[str, str] = {
    "blue": "1",
    "green": "1",
    "red": "1",
    "nir": "1",
    "swir16": "1",
    "swir22": "1",
    "hillshade": "1",
    "vv": "1",
    "vh": "1",
    "vv_db": "dB",
    "vh_db": "dB",
    "elevation": "m",
    "slope": "degree",
    "aspect_sin": "1",
    "aspect_cos": "1",
    "curvature": "1/m",
}


@dataclass(frozen=True)
class Modality:
    """One group of variables that a model takes or misses as a whole.

    The model's input is ``(x - mean) / std`` per variable, after clipping, with missing values set to zero and
    a mask beside them.

    Attributes
    ----------
    name : str
        Name of the group, for example ``optical``.
    variables : tuple of str
        Cube variables in channel order, in the units of `VARIABLES`.
    required : bool
        Whether the model refuses a cube without it.
    static : bool
        True for (y, x) variables, False for (time, y, x).
    mean, std : tuple of float
        Normalisation per variable, in the variable's unit.
    clip : (float, float) or None
        Limits, in standard deviations, of the normalised value.
    evidence : bool
        Whether the modality alone can define a pixel. False for variables that say nothing of the ground by
        themselves, such as the hillshade, which is finite also where the image is missing.
    """

    name: str
    variables: tuple[str, ...]
    required: bool = False
    static: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    clip: tuple[float, float] | None = None
    evidence: bool = True

    def __post_init__(self) -> None:
        count = len(self.variables)
        object.__setattr__(self, "mean", tuple(map(float, self.mean)) or (0.0,) * count)
        object.__setattr__(self, "std", tuple(map(float, self.std)) or (1.0,) * count)
        if count == 0 or len(self.mean) != count or len(self.std) != count:
            raise ModelError(
                f"modality {self.name!r} has {count} variables, {len(self.mean)} means and {len(self.std)} deviations",
                "give one mean and one standard deviation per variable",
            )
        if not all(math.isfinite(v) for v in self.mean + self.std) or min(self.std) <= 0:
            raise ModelError(
                f"modality {self.name!r} has a normalisation that cannot be applied",
                "give finite means and standard deviations above zero",
            )


@dataclass(frozen=True)
class Contract:
    """Everything that is needed to run a model, beside its weights.

    Attributes
    ----------
    name, version : str
        Identity for people; the content hash of the model is its identity for programs.
    architecture : str
        Name of the module that the registry builds, for example ``fusion-unet``.
    modalities : tuple of Modality
        Inputs in the order in which the architecture expects them.
    parameters : mapping
        Arguments of the architecture (thresholds, widths, temperature).
    reflectance : {"toa", "surface", "either"} or None
        Which reflectance the optical inputs must hold; None where there are none.
    receptive_field : int
        Pixels of context on each side that an output pixel can see: the halo that a block needs.
    stride : int
        Blocks must begin at multiples of this many pixels of one lattice, or their results differ.
    resolution : (float, float)
        Pixel sizes in metres for which the model is meant.
    outputs : tuple of str
        Variables that the model gives, each (time, y, x) in 0..1.
    description, references, licence : str
        For people.
    """

    name: str
    version: str
    architecture: str
    modalities: tuple[Modality, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    reflectance: Reflectance | None = "either"
    receptive_field: int = 0
    stride: int = 1
    resolution: tuple[float, float] = (5.0, 60.0)
    outputs: tuple[str, ...] = (GLACIER_PROBABILITY,)
    description: str = ""
    references: tuple[str, ...] = ()
    licence: str = "Apache-2.0"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", dict(self.parameters))
        names = [modality.name for modality in self.modalities]
        if not names or len(set(names)) != len(names):
            raise ModelError(f"model {self.name!r} lists the modalities {names}", "name at least one, and each once")
        if self.receptive_field < 0 or self.stride < 1:
            raise ModelError(
                f"model {self.name!r} has receptive field {self.receptive_field} and stride {self.stride}",
                "the receptive field is at least 0 and the stride at least 1",
            )
        if self.reflectance is not None and self.reflectance not in get_args(Reflectance):
            raise ModelError(
                f"model {self.name!r} asks for {self.reflectance!r} reflectance",
                f"choose one of {', '.join(get_args(Reflectance))}",
            )

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) over every field of the contract."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def variables(self) -> tuple[str, ...]:
        """Every variable that the model can use, each once, in order."""
        return tuple(dict.fromkeys(v for modality in self.modalities for v in modality.variables))

    def modality(self, name: str) -> Modality:
        """Return the modality of that name.

        Raises
        ------
        ModelError
            If the model has no such modality.
        """
        for modality in self.modalities:
            if modality.name == name:
                return modality
        known = ", ".join(modality.name for modality in self.modalities)
        raise ModelError(f"model {self.name!r} has no modality {name!r}", f"it takes {known}")

    def select(self, available: Collection[str]) -> tuple[Modality, ...]:
        """Choose the modalities whose variables are all at hand.

        Parameters
        ----------
        available : collection of str
            Names of the cube's variables.

        Returns
        -------
        tuple of Modality
            In the contract's order.

        Raises
        ------
        ModelError
            If a required modality, or every modality that could define a pixel, lacks a variable.
        """
        chosen = tuple(m for m in self.modalities if all(v in available for v in m.variables))
        for modality in self.modalities:
            if modality.required and modality not in chosen:
                missing = [v for v in modality.variables if v not in available]
                raise ModelError(
                    f"model {self.name!r} needs {', '.join(missing)} and the cube has no such variable",
                    f"load the sensor that gives {modality.name} data, or add the variable to the cube "
                    f"(units: {_units(missing)}; NaN where missing)",
                )
        if not any(m.evidence for m in chosen):
            wants = "; or ".join(", ".join(m.variables) for m in self.modalities if m.evidence)
            raise ModelError(
                f"the cube has none of the inputs of model {self.name!r} complete",
                f"give it {wants} (units: {_units(self.variables)}; NaN where missing)",
            )
        return chosen

    def to_mlm(self, *, content_hash: str | None = None, total_parameters: int | None = None) -> dict[str, Any]:
        """Write the contract as a STAC item with the MLM extension; see `glaciercube.models.mlm`."""
        from glaciercube.models.mlm import contract_to_item

        return contract_to_item(self, content_hash=content_hash, total_parameters=total_parameters)

    @classmethod
    def from_mlm(cls, item: Mapping[str, Any]) -> Contract:
        """Read the contract from a STAC item with the MLM extension.

        Raises
        ------
        ModelError
            If the item is not one that this package can run.
        """
        from glaciercube.models.mlm import contract_from_item

        return contract_from_item(item)


def _units(names: Collection[str]) -> str:
    return ", ".join(f"{name} [{VARIABLES.get(name, '?')}]" for name in names)
