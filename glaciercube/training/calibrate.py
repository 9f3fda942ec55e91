"""Make probabilities mean what they say: temperature and shift of a model's logits, fitted on other glaciers.

Fitted with cross-entropy on chips of places that no weight was fitted on. Every place weighs the same, whatever its
size, its chips or its dates; half of that weight lies within 50 m of outlines, where the errors are, and half beyond.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.errors import require
from glaciercube.evaluation.boundary import distance_to_outline
from glaciercube.evaluation.predict import ice_labels, predict_classes
from glaciercube.evaluation.reliability import NEAR, calibration_error
from glaciercube.models.base import Model
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import membership
from glaciercube.training.scaling import NEAR_SHARE, Pixels, Scaling, fit_scaling, rescaled

__all__ = ["NEAR_SHARE", "Calibrated", "calibrate", "draw_pixels"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Parts of the places for the scores after calibration: each is scored with what the others give.
FOLDS = 5
_LEAST = 1e-7


@dataclass(frozen=True)
class Calibrated:
    """What a calibration did. Scores after it are of places that it was not fitted on, in five parts.

    Attributes
    ----------
    scaling : Scaling
        Fitted on all places.
    places, pixels : int
        How many.
    entropy, entropy_after : float
        Cross-entropy of the labels in nats, by the weights of the fit.
    ece, ece_after, near_ece, near_ece_after : float
        Expected calibration error over 15 bins, of all pixels and of those within 50 m of outlines; pixels pooled.
    bias, bias_after : float
        Sum of probability over true ice, less one.
    """

    scaling: Scaling
    places: int
    pixels: int
    entropy: float
    entropy_after: float
    ece: float
    ece_after: float
    near_ece: float
    near_ece_after: float
    bias: float
    bias_after: float

    def __str__(self) -> str:
        return (
            f"temperature x {self.scaling.temperature:.3f}, shift {self.scaling.shift:+.3f} from {self.pixels:,} "
            f"pixels of {self.places} places; ECE {self.ece:.4f} -> {self.ece_after:.4f}, within {NEAR:.0f} m of "
            f"outlines {self.near_ece:.4f} -> {self.near_ece_after:.4f}; cross-entropy {self.entropy:.4f} -> "
            f"{self.entropy_after:.4f}; bias {self.bias:+.4f} -> {self.bias_after:+.4f}"
        )


def calibrate(
    model: Model,
    chips: Iterable[Chip],
    *,
    positive: Sequence[str] = (),
    without: Collection[Collection[str]] = ((),),
    near_share: float = NEAR_SHARE,
    pixels: int = 1500,
    seed: int = 0,
) -> tuple[Model, Calibrated]:
    """Calibrate a model on chips of other glaciers than it was trained on.

    Parameters
    ----------
    model : Model
        With the parameters ``temperature`` and ``shift``, as all trained architectures of this package have.
    chips : iterable of Chip
        Of places that no weight was fitted on; read once.
    positive : sequence of str
        Labels that are to be found; those that are ice by default.
    without : collection of collections of str
        Modalities that are kept from the model, once for each: ``[(), ("radar",)]`` shows each chip whole and without
        radar. By default it is shown whole.
    near_share : float
        Share of a place's weight that its pixels within 50 m of outlines have.
    pixels : int
        Drawn per chip, date and entry of `without`, half of them near outlines.
    seed : int
        Of the draw.

    Returns
    -------
    Model, Calibrated
        The calibrated model, which has a hash of its own, and what calibration did.

    Raises
    ------
    ModelError
        If the model cannot be calibrated, or there are fewer than two places with labelled pixels.
    """
    drawn = draw_pixels(model, chips, positive=positive, without=without, pixels=pixels, seed=seed)
    places = np.unique(drawn.place)
    require(len(places) > 1, f"{len(places)} places to calibrate on", "give chips of several places")
    scaling = fit_scaling(drawn, near_share)
    number = np.searchsorted(places, drawn.place) % min(FOLDS, len(places))
    before = drawn.probability(Scaling())
    after, entropies = before.copy(), drawn.entropies(Scaling())
    entropies_after = entropies.copy()
    for fold in np.unique(number):
        held = number == fold
        other = fit_scaling(drawn.part(~held), near_share)
        after[held] = drawn.part(held).probability(other)
        entropies_after[held] = drawn.part(held).entropies(other)
    weight = drawn.weights(near_share)
    near = drawn.near
    return rescaled(model, scaling), Calibrated(
        scaling,
        len(places),
        len(before),
        float(weight @ entropies),
        float(weight @ entropies_after),
        calibration_error(before, drawn.truth, drawn.share),
        calibration_error(after, drawn.truth, drawn.share),
        calibration_error(before[near], drawn.truth[near], drawn.share[near]),
        calibration_error(after[near], drawn.truth[near], drawn.share[near]),
        _bias(before, drawn.truth, drawn.share),
        _bias(after, drawn.truth, drawn.share),
    )


def draw_pixels(
    model: Model,
    chips: Iterable[Chip],
    *,
    positive: Sequence[str] = (),
    without: Collection[Collection[str]] = ((),),
    pixels: int = 1500,
    seed: int = 0,
) -> Pixels:
    """Draw labelled pixels of chips, near outlines and far from them, with the model's probabilities.

    Parameters and errors as of `calibrate`.
    """
    numbers: dict[str, int] = {}
    parts: list[Pixels] = []
    for order, chip in enumerate(chips):
        place = numbers.setdefault(chip.place or chip.name, len(numbers))
        for names in without:
            rng = np.random.default_rng([seed, order])
            found = np.moveaxis(predict_classes(model, chip, without=names).astype(np.float64), 1, -1)
            held = np.isin(list(chip.labels), ice_labels(chip.labels, positive, chip.name))
            parts += _drawn(model, chip, np.log(np.maximum(found, _LEAST)), held, (place, pixels), rng)
    require(bool(parts), "no chip has labelled pixels that the model sees", "give chips with its inputs")
    joined = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in dataclasses.fields(Pixels)
        if f.name != "raised"
    }
    return Pixels(**joined, raised=parts[0].raised)


def _drawn(
    model: Model,
    chip: Chip,
    log: FloatArray,
    positive: BoolArray,
    draw: tuple[int, int],
    rng: np.random.Generator,
) -> list[Pixels]:
    """Pixels of every date of a chip: so many, which are of a place of that number."""
    place, count = draw
    classes, labels = model.contract.classes, chip.labels
    raised = np.array([name in model.contract.outputs[0].classes for name in classes])
    may: BoolArray = np.asarray(membership(labels, classes) > 0)
    ice = may[positive].any(axis=0)
    parts = []
    for date, label in enumerate(chip.label):
        number = np.where(label == UNKNOWN, 0, label)
        known = (label != UNKNOWN) & (chip.weight[date] > 0) & np.isfinite(log[date]).all(axis=-1)
        known &= np.asarray(may.any(axis=1))[number]
        truth: BoolArray = np.asarray(positive[number])
        near: BoolArray = np.asarray(distance_to_outline(truth, chip.resolution, label != UNKNOWN) <= NEAR)
        for kind in (known & near, known & ~near):
            where = np.flatnonzero(kind)
            if not where.size:
                continue
            kept = rng.choice(where, min(where.size, count // 2), replace=False)
            parts.append(
                Pixels(
                    log=log[date].reshape(-1, len(classes))[kept],
                    may=may[number.ravel()[kept]],
                    ice=np.broadcast_to(ice, (kept.size, len(classes))),
                    truth=truth.ravel()[kept],
                    near=near.ravel()[kept],
                    share=chip.weight[date].ravel()[kept].astype(np.float64) * where.size / kept.size,
                    place=np.full(kept.size, place, np.int64),
                    raised=raised,
                )
            )
    return parts


def _bias(probability: FloatArray, truth: BoolArray, weight: FloatArray) -> float:
    true = float(weight @ truth)
    return float(weight @ probability) / true - 1.0 if true else float("nan")
