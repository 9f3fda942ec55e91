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
from glaciercube.models.classes import GLACIER_PROBABILITY, PRESENCE, Output, check_classes
from glaciercube.models.reach import TimeContext, Windows

__all__ = ["GLACIER_PROBABILITY", "VARIABLES", "Contract", "Modality", "Parameter", "Reflectance"]

Parameter: TypeAlias = bool | int | float | str | tuple[int, ...] | None
Reflectance: TypeAlias = Literal["toa", "surface", "either"]

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
    "topographic_position": "1",
    # Layers of the user's own, see `glaciercube.sensors.layers`.
    "coherence": "1",
    "elevation_change": "m/year",
    "velocity": "m/year",
    "profile_curvature": "1/m",
    "ruggedness": "m",
    # Grey values of one band, stretched by the image's percentiles.
    "brightness": "1",
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
    receptive_field : int or "global"
        Pixels of context on each side that an output pixel can see; "global" if it sees its whole window, however
        large: through attention, pooling or normalisation over the image, or too far to be read as a halo.
    stride : int
        Blocks must begin at multiples of this many pixels of one lattice, or their results differ.
    windows : Windows or None
        The fixed windows in which a global model runs; None for all others.
    time_context : TimeContext or None
        The dates beside its own that a date's prediction uses; None for models of single dates.
    classes : tuple of str
        What the model tells apart, in its own order, by names as in `glaciercube.models.classes.CLASSES`.
    resolution : (float, float)
        Pixel sizes in metres for which the model is meant.
    outputs : tuple of Output
        Variables that the model gives, each (time, y, x) in 0..1 and the sum of some classes; the first is what
        `Model.predict` gives.
    description, references, licence : str
        For people.
    """

    name: str
    version: str
    architecture: str
    modalities: tuple[Modality, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    reflectance: Reflectance | None = "either"
    receptive_field: int | Literal["global"] = 0
    stride: int = 1
    windows: Windows | None = None
    time_context: TimeContext | None = None
    classes: tuple[str, ...] = PRESENCE
    resolution: tuple[float, float] = (5.0, 60.0)
    outputs: tuple[Output, ...] = (Output(),)
    description: str = ""
    references: tuple[str, ...] = ()
    licence: str = "Apache-2.0"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", dict(self.parameters))
        names = [modality.name for modality in self.modalities]
        if not names or len(set(names)) != len(names):
            raise ModelError(f"model {self.name!r} lists the modalities {names}", "name at least one, and each once")
        self._check_reach()
        check_classes(self.name, self.classes, self.outputs)
        if self.reflectance is not None and self.reflectance not in get_args(Reflectance):
            raise ModelError(
                f"model {self.name!r} asks for {self.reflectance!r} reflectance",
                f"choose one of {', '.join(get_args(Reflectance))}",
            )

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def _check_reach(self) -> None:
        field_, windows = self.receptive_field, self.windows
        if self.stride < 1 or (field_ != "global" and field_ < 0):
            raise ModelError(
                f"model {self.name!r} has receptive field {field_} and stride {self.stride}",
                "the receptive field is at least 0 (or 'global') and the stride at least 1",
            )
        if (field_ == "global") != (windows is not None):
            raise ModelError(
                f"model {self.name!r} has receptive field {field_} and {'no ' if windows is None else ''}windows",
                "a global receptive field needs fixed windows, and a finite one needs none",
            )
        if windows is not None and windows.size % self.stride:
            raise ModelError(
                f"model {self.name!r} has windows of {windows.size} pixels and stride {self.stride}",
                "give windows whose size is a multiple of the stride",
            )

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) over every field of the contract."""
        fields = asdict(self)
        # Fields that came later count where they are used: the contracts, and so the models, of before keep their hash.
        for name in ("windows", "time_context"):
            if fields[name] is None:
                del fields[name]
        if self.classes == PRESENCE and all(output.classes == PRESENCE[1:] for output in self.outputs):
            del fields["classes"]
            fields["outputs"] = [output.name for output in self.outputs]
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def halo(self) -> int:
        """Pixels that are read around a block on each side, before its ends are moved out to multiples of `lattice`."""
        if self.windows is not None:
            return self.windows.halo
        return 0 if self.receptive_field == "global" else self.receptive_field

    @property
    def lattice(self) -> int:
        """Pixels of which a block with its halo begins and ends at multiples, counted from the grid's origin."""
        return self.stride if self.windows is None else self.windows.step

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
