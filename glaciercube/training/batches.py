"""Batches: crops of chips at one or several dates, turned, lit and stripped as drawn.

What a batch shows depends on the seed, the step and the chips, and on nothing else: not on the process that makes it,
nor on what was made before. Variables are copied once, from the chip to their place in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glaciercube.errors import ModelError
from glaciercube.models.base import Masked, normalise
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import membership
from glaciercube.models.contract import Contract
from glaciercube.models.neighbours import Neighbours, find_neighbours
from glaciercube.training.augment import FloatArray, Light, foreshortening, relight
from glaciercube.training.cuts import Cut, draw_cut
from glaciercube.training.losses import Truth, all_sets
from glaciercube.training.options import FitOptions

__all__ = ["Batch", "Inputs", "draw_batch", "make_batch", "prepared"]

_SLOPE = ("slope", "aspect_sin", "aspect_cos")


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops side by side, in physical units, NaN where missing.

    Attributes
    ----------
    dynamic : dict of str to (date, channel, y, x) float32
        By modality; the dates of all crops.
    static : dict of str to (crop, channel, y, x) float32
        By modality.
    owner : (target,) int64 or None
        Which crop each predicted date is of; None where each has one.
    neighbours : Neighbours or None
        Of each predicted date, for models of several dates.
    truth : Truth
        Of each predicted date.
    """

    dynamic: Mapping[str, Tensor]
    static: Mapping[str, Tensor]
    owner: Tensor | None
    neighbours: Neighbours | None
    truth: Truth

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return Batch(
            {name: moved(values) for name, values in self.dynamic.items()},
            {name: moved(values) for name, values in self.static.items()},
            None if self.owner is None else moved(self.owner),
            None if self.neighbours is None else Neighbours(*map(moved, self.neighbours)),
            self.truth.to(device),
        )

    def pinned(self) -> Batch:
        """In memory that a GPU copies from by itself."""
        return replace(
            self,
            dynamic={name: values.pin_memory() for name, values in self.dynamic.items()},
            static={name: values.pin_memory() for name, values in self.static.items()},
        )


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a module takes, normalised, and the truth where it can be seen."""

    dynamic: Mapping[str, Masked]
    static: Mapping[str, Masked]
    owner: Tensor | None
    neighbours: Neighbours | None
    truth: Truth


def draw_batch(
    chips: Sequence[Chip],
    contract: Contract,
    options: FitOptions,
    step: int,
    *,
    part: tuple[int, int] = (0, 1),
    together: bool = False,
) -> Batch:
    """Draw the batch of one step.

    Parameters
    ----------
    chips : sequence of Chip
        To draw from; only those that are drawn are asked for.
    contract, options
        Of the fit.
    step : int
        Which.
    part : (int, int)
        This process's number and the number of processes: the batch is dealt out among them.
    together : bool
        Whether all samples show the same modalities, for modules to which absent and missing are not the same.
    """
    same = np.random.default_rng((options.seed, step)) if together else None
    seed = None if same is None else int(same.integers(2**31))
    cuts = []
    for sample in range(part[0], options.batch, part[1]):
        rng = np.random.default_rng((options.seed, step, sample))
        chip = chips[int(rng.integers(len(chips)))]
        cut = draw_cut(chip, contract, options, rng, None if seed is None else np.random.default_rng(seed))
        if options.sensors.foreign > 0.0 and rng.random() < options.sensors.foreign:
            cut = replace(cut, ground=chips[int(rng.integers(len(chips)))])
        cuts.append(cut)
    return make_batch(cuts, contract, absent=together)


def make_batch(cuts: Sequence[Cut], contract: Contract, *, absent: bool = False) -> Batch:
    """Copy what is drawn into a batch.

    Parameters
    ----------
    cuts : sequence of Cut
        Of one size.
    contract : Contract
        Which variables, in which order.
    absent : bool
        Whether modalities that no crop shows are left out of the batch, and not only missing.
    """
    size, count = cuts[0].size, sum(len(cut.dates) for cut in cuts)
    dynamic: dict[str, Tensor] = {}
    static: dict[str, Tensor] = {}
    for modality in contract.modalities:
        used = any(modality.name in cut.still or any(modality.name in s for s in cut.shown) for cut in cuts)
        if used or not absent:
            rows = len(cuts) if modality.static else count
            shape = (rows, len(modality.variables), size, size)
            (static if modality.static else dynamic)[modality.name] = torch.empty(shape)
    first = 0
    for number, cut in enumerate(cuts):
        for name, values in static.items():
            _fill(values[number].numpy(), cut, contract, name, None)
        for place in range(len(cut.dates)):
            for name, values in dynamic.items():
                _fill(values[first + place].numpy(), cut, contract, name, place)
        first += len(cut.dates)
    owner, neighbours = _relations(cuts, contract)
    return Batch(dynamic, static, owner, neighbours, _truth(cuts, contract))


def _fill(out: FloatArray, cut: Cut, contract: Contract, name: str, place: int | None) -> None:
    """Put one modality of one crop, at one of its dates or of none, in its place (channel, y, x)."""
    variables, chip = contract.modality(name).variables, cut.ground if place is None else cut.chip
    if name not in (cut.still if place is None else cut.shown[place]) or not set(variables) <= set(chip.variables):
        out.fill(np.nan)
        return
    if place is None and any(chip.variables[variable].ndim > 2 for variable in variables):
        raise ModelError(f"chip {chip.name!r} has dates in the static modality {name!r}", "give those layers per pixel")
    for channel, variable in enumerate(variables):
        _copy(out[channel], cut, chip.variables[variable], place, np.nan)
    cut.turn.redirect(out, variables)
    if place is None:
        if "curvature" in variables:
            out[variables.index("curvature")] *= cut.rough
        return
    light = cut.lights[place]
    if light is not None:
        relight(out, variables, light)
        _tilt(out, cut, variables, light)


def _tilt(out: FloatArray, cut: Cut, variables: Sequence[str], light: Light) -> None:
    """Give backscatter the slopes' brightness back, where the light says so and the slopes are known."""
    if (
        light.look is None
        or not any(v.endswith("_db") for v in variables)
        or not set(_SLOPE) <= set(cut.chip.variables)
    ):
        return
    slopes = np.empty((len(_SLOPE), cut.size, cut.size), np.float32)
    for channel, variable in enumerate(_SLOPE):
        _copy(slopes[channel], cut, cut.chip.variables[variable], None, np.nan)
    cut.turn.redirect(slopes, _SLOPE)
    brighter = foreshortening(dict(zip(_SLOPE, slopes, strict=True)), light)
    for channel, variable in enumerate(variables):
        if variable.endswith("_db"):
            out[channel] += brighter


def _copy(
    out: npt.NDArray[np.generic],
    cut: Cut,
    values: npt.NDArray[np.generic],
    place: int | None,
    missing: float,
) -> None:
    """Copy a crop of (time, y, x) or (y, x), turned, in the type of its place."""
    layer = values if values.ndim == 2 else values[cut.dates[place or 0]]
    part = layer[cut.top : cut.top + cut.size, cut.left : cut.left + cut.size]
    if part.shape == (cut.size, cut.size):
        np.copyto(out, cut.turn.moved(part), casting="same_kind")
        return
    whole = np.full((cut.size, cut.size), missing, out.dtype)
    whole[: part.shape[0], : part.shape[1]] = part
    np.copyto(out, cut.turn.moved(whole), casting="same_kind")


def _relations(cuts: Sequence[Cut], contract: Contract) -> tuple[Tensor | None, Neighbours | None]:
    """Which crop each predicted date is of, and its neighbours."""
    if contract.time_context is None:
        return None, None
    owner = torch.tensor([number for number, cut in enumerate(cuts) for _ in cut.targets])
    found: list[Neighbours] = []
    first = 0
    for cut in cuts:
        one = find_neighbours(contract.time_context, cut.days, cut.targets, torch.device("cpu"))
        found.append(one._replace(which=torch.where(one.present, one.which + first, first)))
        first += len(cut.dates)
    return owner, Neighbours(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _truth(cuts: Sequence[Cut], contract: Contract) -> Truth:
    classes, size = contract.classes, cuts[0].size
    member = all_sets(len(classes))
    total = sum(len(cut.targets) for cut in cuts)
    label = np.zeros((total, size, size), np.int64)
    weight = np.zeros((total, size, size), np.float32)
    asked = np.zeros((total, len(member)), bool)
    row = 0
    for cut in cuts:
        numbers = _numbers(cut.chip, classes)
        for place in cut.targets:
            raw = np.empty((size, size), np.uint8)
            _copy(raw, cut, cut.chip.label, place, UNKNOWN)
            _copy(weight[row], cut, cut.chip.weight, place, 0.0)
            label[row] = numbers[raw]
            asked[row, numbers[: len(cut.chip.labels)]] = True
            row += 1
    weight *= label > 0
    asked[:, [0, -1]] = False
    rows = tuple(np.flatnonzero(asked.any(axis=0)).tolist())
    return Truth(torch.from_numpy(label), torch.from_numpy(weight), member, torch.from_numpy(asked), rows)


def _numbers(chip: Chip, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Number of the set of classes of each label value, (256,)."""
    found = np.zeros(256, np.int64)
    sets = membership(chip.labels, classes).astype(np.int64)
    found[: len(sets)] = sets @ (1 << np.arange(len(classes)))
    return found


def prepared(batch: Batch, contract: Contract) -> Inputs:
    """Normalise a batch on its device; what no modality with evidence shows weighs nothing."""
    dynamic, static = (
        {name: _normalised(values, contract, name) for name, values in group.items()}
        for group in (batch.dynamic, batch.static)
    )
    moving = _evidence(dynamic, contract)
    still = _evidence(static, contract)
    seen: Tensor | None = None
    if moving is not None:
        seen = moving
        if batch.neighbours is not None and contract.time_context is not None:
            which, present, _ = batch.neighbours
            own = contract.time_context.earlier
            fills = contract.time_context.fills
            seen = (moving[which] & present[..., None, None]).any(dim=1) if fills else moving[which[:, own]]
    if still is not None:
        still = still if batch.owner is None else still[batch.owner]
        seen = still if seen is None else seen | still
    truth = batch.truth
    if seen is not None:
        truth = replace(truth, weight=truth.weight * seen)
    return Inputs(dynamic, static, batch.owner, batch.neighbours, truth)


def _normalised(values: Tensor, contract: Contract, name: str) -> Masked:
    masked = normalise(values, contract.modality(name))
    return Masked(masked.values.contiguous(memory_format=torch.channels_last), masked.valid)


def _evidence(masked: Mapping[str, Masked], contract: Contract) -> Tensor | None:
    """Where any modality with evidence, and every required one, is valid, (date, y, x)."""
    found: Tensor | None = None
    for name, entry in masked.items():
        if contract.modality(name).evidence:
            found = entry.valid[:, 0] if found is None else found | entry.valid[:, 0]
    for name, entry in masked.items():
        if contract.modality(name).required and found is not None:
            found = found & entry.valid[:, 0]
    return found
