"""What a model says of a chip, in the terms of the chip's labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from glaciercube.errors import ModelError, require
from glaciercube.evaluation.cases import Case, ClassCounts
from glaciercube.models.base import Model
from glaciercube.models.chips import UNKNOWN, Chip, inputs_for
from glaciercube.models.classes import ICE, ICE_PARTS, membership

__all__ = [
    "PredictOptions",
    "cases_of",
    "groups_of",
    "ice_labels",
    "ice_of",
    "predict_chip",
    "predict_classes",
]

FloatArray: TypeAlias = npt.NDArray[np.float32]

#: Labels that are ice, where a chip has them: those of sets of debris alone are named so.
_ICE_LABELS = (*ICE, "debris")
_FRONT = "front"
_DEBRIS = ICE_PARTS[1:]
# Dates given to a model of single dates at a time.
_BATCH = 8


@dataclass(frozen=True)
class PredictOptions:
    """What a model is shown of each chip, and which pixels count.

    Attributes
    ----------
    positive : tuple of str
        Labels of the chip that are to be found. Empty: those named glacier, clean_ice, debris_covered_ice or debris, or
        else that named front.
    without : tuple of str
        Modalities of the model's contract that are kept from it.
    alone : bool
        Whether each date is shown by itself, also to models that look at several.
    where : {"clear", "hidden", "all"}
        Pixels that count: those of `Chip.clear`; others that weigh more than 0, such as under cloud; both.
    """

    positive: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    alone: bool = False
    where: Literal["clear", "hidden", "all"] = "clear"

    def __post_init__(self) -> None:
        known = ("clear", "hidden", "all")
        require(
            self.where in known, f"pixels cannot be counted where they are {self.where!r}", f"choose {', '.join(known)}"
        )


def predict_classes(
    model: Model,
    chip: Chip,
    *,
    without: Collection[str] = (),
    dates: Sequence[int] | None = None,
    alone: bool = False,
) -> FloatArray:
    """Probability of every class of a model.

    Parameters
    ----------
    model : Model
        Any, on any device.
    chip : Chip
        With the variables that the model needs.
    without : collection of str
        Modalities that are kept from the model.
    dates : sequence of int or None
        Dates to predict; all of them when left out. A model with a time context is shown the others, too.
    alone : bool
        Whether each date is shown by itself.

    Returns
    -------
    (time, class, y, x) float32
        0 to 1 in the order of the contract's classes, NaN where undefined. A model that is shown static modalities
        alone says the same of all dates.

    Raises
    ------
    ModelError
        If the model has no such modality, or lacks a required one.
    """
    wanted = list(range(len(chip.time))) if dates is None else list(dates)
    for name in without:
        model.contract.modality(name)
    if alone or model.contract.time_context is None:
        step = 1 if alone else _BATCH
        parts = [_predict(model, _cut(chip, wanted[i : i + step]), without, None) for i in range(0, len(wanted), step)]
        return np.concatenate(parts)
    return _predict(model, chip, without, wanted)


def predict_chip(
    model: Model,
    chip: Chip,
    *,
    classes: Iterable[str],
    without: Collection[str] = (),
    dates: Sequence[int] | None = None,
    alone: bool = False,
) -> FloatArray:
    """Probability that a pixel is one of some classes.

    Parameters
    ----------
    model : Model
        Any, on any device.
    chip : Chip
        With the variables that the model needs.
    classes : iterable of str
        As in `glaciercube.models.classes.CLASSES`. The probabilities of the model's classes that stand for any of them
        are summed: see `glaciercube.models.classes.membership`.
    without, dates, alone
        As in `predict_classes`.

    Returns
    -------
    (time, y, x) float32
        0 to 1, NaN where undefined.

    Raises
    ------
    ModelError
        As `predict_classes`, and if no class of the model stands for any of the classes.
    """
    members = _members(model, tuple(classes))
    found = predict_classes(model, chip, without=without, dates=dates, alone=alone)
    summed: FloatArray = np.minimum(found[:, members].sum(axis=1), np.float32(1.0))
    return summed


def ice_labels(labels: Collection[str], positive: Sequence[str] = (), of: str = "") -> tuple[str, ...]:
    """Those among the labels of a chip that are to be found.

    Parameters
    ----------
    labels : collection of str
        All of them.
    positive : sequence of str
        Those that are named; without any, those that are ice (`glaciercube.models.classes.ICE`, and ``debris``), or
        else ``front``.
    of : str
        Name of the chip, for an error.

    Raises
    ------
    ModelError
        If one of those that are named is not among them, or none is known to be ice.
    """
    stray = [name for name in positive if name not in labels]
    found = tuple(positive) or tuple(name for name in labels if name in _ICE_LABELS)
    if not found and _FRONT in labels:
        found = (_FRONT,)
    if stray or not found:
        raise ModelError(
            f"chip {of!r} has no label {', '.join(stray) or ' or '.join(_ICE_LABELS)}",
            f"say which of its labels is to be found: {', '.join(labels)}",
        )
    return found


def ice_of(chip: Chip, positive: Sequence[str] = ()) -> npt.NDArray[np.bool_]:
    """Where a chip's labels are those that are to be found.

    Parameters and errors as of `ice_labels`.

    Returns
    -------
    (time, y, x) bool
        False where the label is unknown.
    """
    names = list(chip.labels)
    return np.isin(chip.label, [names.index(name) for name in ice_labels(chip.labels, positive, chip.name)])


def cases_of(model: Model, chips: Iterable[Chip], options: PredictOptions | None = None) -> Iterator[Case]:
    """Predict chips, one after the other.

    Parameters
    ----------
    model : Model
        Any.
    chips : iterable of Chip
        Not those it was trained on.
    options : PredictOptions or None
        What it is shown, and what counts.

    Yields
    ------
    Case
        One per chip and date.
    """
    options = options or PredictOptions()
    for chip in chips:
        names = ice_labels(chip.labels, options.positive, chip.name)
        members = _members(model, tuple(dict.fromkeys(c for name in names for c in chip.labels[name])))
        found = predict_classes(model, chip, without=options.without, alone=options.alone)
        groups = groups_of(chip.labels, model.contract.classes)
        debris = [i for i, classes in enumerate(chip.labels.values()) if tuple(classes) == _DEBRIS]
        truth = ice_of(chip, options.positive)
        for index, time in enumerate(chip.time):
            label = chip.label[index]
            known = label != UNKNOWN
            counted = known & _where(chip, index, options.where)
            case = Case(
                name=chip.name,
                time=time,
                probability=np.minimum(found[index, members].sum(axis=0), np.float32(1.0)),
                truth=truth[index],
                known=known,
                counted=counted,
                resolution=chip.resolution,
                place=chip.place or chip.name,
                glaciers=chip.glaciers,
                debris=np.isin(label, debris) if debris else None,
            )
            yield replace(case, classes=_class_counts(found[index], label, case.seen, groups)) if groups else case


def groups_of(
    labels: Mapping[str, tuple[str, ...]], classes: Sequence[str]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """What a model can tell apart of some labels.

    Labels that the same classes of the model stand for are one group. A class of the model that falls into several
    groups makes them impossible to compare.

    Parameters
    ----------
    labels : mapping of str to tuple of str
        As of a chip.
    classes : sequence of str
        As of a contract.

    Returns
    -------
    names : tuple of str
        Of the groups, in the order of the labels; the labels of one group are joined by ``+``.
    of_label : (label,) int64
        Group of each label.
    of_class : (class,) int64
        Group of each class, -1 for none. Instead of all three, None where there are fewer than two groups, they
        overlap, or a label has no class.
    """
    rows = membership(labels, classes) > 0
    kinds, of_label = np.unique(rows, axis=0, return_inverse=True)
    if len(kinds) < 2 or (kinds.sum(axis=0) > 1).any() or not kinds.any(axis=1).all():
        return None
    # In the order of the labels.
    order = list(dict.fromkeys(int(i) for i in of_label.ravel()))
    group = np.array([order.index(int(i)) for i in of_label.ravel()], np.int64)
    names = tuple("+".join(n for n, g in zip(labels, group, strict=True) if g == i) for i in range(len(order)))
    of_class = np.where(kinds.any(axis=0), np.argsort(order)[kinds.argmax(axis=0)], -1).astype(np.int64)
    return names, group, of_class


def _members(model: Model, classes: tuple[str, ...]) -> list[int]:
    """Index of the model's classes that make up a probability, each whole: a pixel is one thing or the other."""
    members = [int(i) for i in np.flatnonzero(membership({"wanted": classes}, model.contract.classes)[0])]
    if not members:
        raise ModelError(
            f"no class of model {model.contract.name!r} ({', '.join(model.contract.classes)}) stands for "
            f"{' or '.join(classes)}",
            "choose another label to be found, or another model",
        )
    return members


def _cut(chip: Chip, dates: Sequence[int]) -> Chip:
    index, shape = list(dates), chip.label.shape
    variables = {name: v[index] if v.shape == shape else v for name, v in chip.variables.items()}
    sure = None if chip.sure is None else chip.sure[index]
    label, weight = chip.label[index], chip.weight[index]
    return replace(chip, variables=variables, label=label, weight=weight, sure=sure, time=chip.time[index])


def _predict(model: Model, chip: Chip, without: Collection[str], targets: list[int] | None) -> FloatArray:
    given = {name: values for name, values in inputs_for(chip, model.contract).items() if name not in without}
    device = next((t.device for t in model.module.state_dict().values()), torch.device("cpu"))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)).to(device) for name, values in given.items()}
    static = {name: tensor for name, tensor in tensors.items() if model.contract.modality(name).static}
    dynamic = {name: tensor for name, tensor in tensors.items() if name not in static}
    count = len(chip.time) if targets is None else len(targets)
    if not dynamic:
        found = model.predict_classes({}, static).cpu().numpy()
        return np.repeat(found, count, axis=0)
    days = [float(day) for day in chip.days]
    result: FloatArray = model.predict_classes(dynamic, static, days=days, targets=targets).cpu().numpy()
    return result


def _where(chip: Chip, date: int, where: str) -> npt.NDArray[np.bool_]:
    weighs: npt.NDArray[np.bool_] = chip.weight[date] > 0
    clear: npt.NDArray[np.bool_] = chip.clear[date]
    if where == "all":
        return weighs
    return weighs & clear if where == "clear" else weighs & ~clear


def _class_counts(
    found: FloatArray,
    label: npt.NDArray[np.uint8],
    seen: npt.NDArray[np.bool_],
    groups: tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]],
) -> ClassCounts:
    names, of_label, of_class = groups
    count = len(names)
    summed = np.stack([found[of_class == i].sum(axis=0) for i in range(count)])
    said, true = summed[:, seen].argmax(axis=0), of_label[label[seen]]
    counts = np.bincount(true * count + said, minlength=count * count).reshape(count, count)
    return ClassCounts(names, counts.astype(np.int64))
