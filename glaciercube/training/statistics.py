"""A contract whose normalisation is that of the samples which a model is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from glaciercube.errors import ModelError
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract, Modality

__all__ = ["fitted_contract"]

# Components of a direction: about 0 in any region, and turned by augmentation.
_ABOUT_ZERO = frozenset({"aspect_sin", "aspect_cos"})
# A deviation below this share of the mean's size is a constant, and is not divided by.
_LEAST = 1e-6


def fitted_contract(contract: Contract, chips: Sequence[Chip], *, most: int = 200) -> Contract:
    """Put the means and deviations of samples into a contract.

    Modalities that are taken as they are (mean 0 and deviation 1 of every variable) stay so: their module scales them.

    Parameters
    ----------
    contract : Contract
        Of the model that is to be trained.
    chips : sequence of Chip
        It is trained on.
    most : int
        How many of them are looked at, evenly spread.

    Raises
    ------
    ModelError
        If they show no finite value of a modality's variable.
    """
    places = np.unique(np.linspace(0, len(chips) - 1, min(most, len(chips))).astype(int))
    wanted = {v for m in contract.modalities if not _as_is(m) for v in m.variables}
    sums = _sums((chips[int(place)] for place in places), wanted)
    modalities = tuple(m if _as_is(m) else _fitted(m, sums) for m in contract.modalities)
    return replace(contract, modalities=modalities)


def _as_is(modality: Modality) -> bool:
    return set(modality.mean) == {0.0} and set(modality.std) == {1.0}


def _sums(chips: Iterable[Chip], wanted: set[str]) -> dict[str, tuple[float, float, float]]:
    """Count, sum and sum of squares of each variable."""
    found: dict[str, tuple[float, float, float]] = {}
    for chip in chips:
        for name in wanted & set(chip.variables):
            values = np.asarray(chip.variables[name], np.float64)
            values = values[np.isfinite(values)]
            count, total, squares = found.get(name, (0.0, 0.0, 0.0))
            found[name] = (count + values.size, total + float(values.sum()), squares + float((values**2).sum()))
    return found


def _fitted(modality: Modality, sums: dict[str, tuple[float, float, float]]) -> Modality:
    if not any(sums.get(name, (0.0,))[0] for name in modality.variables):
        if modality.required:
            raise ModelError(
                f"no chip shows a value of {', '.join(modality.variables)}, which the model needs",
                "sample a cube that has it, or take the modality out of the model",
            )
        return modality  # the samples lack that sensor
    mean, std = [], []
    for name, usual_mean, usual_std in zip(modality.variables, modality.mean, modality.std, strict=True):
        count, total, squares = sums.get(name, (0.0, 0.0, 0.0))
        if not count:
            mean.append(usual_mean)
            std.append(usual_std)
            continue
        centre = 0.0 if name in _ABOUT_ZERO else total / count
        spread = float(np.sqrt(max(0.0, squares / count - 2 * centre * total / count + centre**2)))
        mean.append(round(centre, 6))
        std.append(usual_std if spread <= _LEAST * abs(centre) else float(f"{spread:.6g}"))
    return replace(modality, mean=tuple(mean), std=tuple(std))
