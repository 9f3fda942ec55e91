"""Settings out of their range are refused by key, value and what is allowed, before anything is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_models import small_contract

from glaciercube.errors import ConfigError, ModelError
from glaciercube.models.architectures.contracts import architecture_contract
from glaciercube.models.registry import build_module
from glaciercube.training.options import FitOptions, Jitter

NAN = float("nan")
WRONG: dict[str, tuple[Any, ...]] = {
    "steps": (0, -1),
    "batch": (0,),
    "size": (-8,),
    "dates": (0,),
    "targets": (0, -1),
    "every": (0,),
    "validate": (0,),
    "patience": (0, -1),
    "rate": (0.0, -1.0, NAN),
    "clip": (0.0, -1.0),
    "seconds": (0.0, NAN),
    "decay": (-0.1, NAN),
    "gamma": (-1.0,),
    "workers": (-1,),
    "rise": (-0.1, 1.5),
    "average": (5.0, -1.0),
    "dice": (1.1, NAN),
    "seed": (-1, 2**63),
}
EDGES: dict[str, Any] = {
    **dict.fromkeys(("steps", "batch", "size", "dates", "targets", "every", "validate", "patience"), 1),
    **dict.fromkeys(("decay", "gamma", "workers", "rise", "average", "dice", "seed"), 0),
    "targets": None,
    "patience": None,
    "seconds": None,
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_out_of_range_are_refused(name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(ConfigError, match=rf"a fit with {name} {value}: give .*\d"):
            FitOptions(**{name: value})


def test_numbers_at_the_ends_of_their_ranges_are_taken() -> None:
    FitOptions(**EDGES)
    FitOptions(rise=1, average=1, dice=1, seed=2**63 - 1)
    Jitter(**dict.fromkeys(Jitter.__dataclass_fields__, 0.0))


@pytest.mark.parametrize("name", Jitter.__dataclass_fields__)
def test_jitter_is_no_less_than_none(name: str) -> None:
    with pytest.raises(ConfigError, match=f"jitter with {name} -0.5: give .*0"):
        Jitter(**{name: -0.5})
    if name in ("unflattened", "one_swir"):
        with pytest.raises(ConfigError, match=f"jitter with {name} 1.5: give a number from 0 to 1"):
            Jitter(**{name: 1.5})


@pytest.mark.parametrize("widths", [(16, 32, -4), (0,), (8, 2.5), (True, 4), ()])
def test_widths_that_are_none_are_refused(widths: tuple[Any, ...]) -> None:
    with pytest.raises(ModelError, match=r"widths.*give .*whole number"):
        build_module(architecture_contract("fusion-unet", widths=widths))


def test_other_parameters_of_networks_that_are_none_are_refused() -> None:
    contract = small_contract("fusion-unet")
    for temperature in (0.0, -1.0):
        cold = replace(contract, parameters={**contract.parameters, "temperature": temperature})
        with pytest.raises(ModelError, match=f"temperature {temperature}: give a number above 0"):
            build_module(cold)
    for name in ("fusion-unet-time", "glavitu"):
        for heads in (0, -2, 1.5):
            with pytest.raises(
                ModelError, match=f"'attention_heads' of model '{name}' is {heads}: give a whole number"
            ):
                build_module(small_contract(name, attention_heads=heads))
    with pytest.raises(ModelError, match=r"'depths' of model 'segformer' is \(1, 1, 1, 0\)"):
        build_module(small_contract("segformer", depths=(1, 1, 1, 0)))
