"""Make probabilities mean what they say: temperature and shift of a model's logits, fitted on other glaciers.

Fitted with cross-entropy on chips of places that no weight was fitted on. Every place weighs the same, whatever its
size, its chips or its dates; half of that weight lies within 50 m of outlines, where the errors are, and half beyond.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError, require
from glaciercube.evaluation.boundary import distance_to_outline
from glaciercube.evaluation.predict import ice_labels, predict_classes
from glaciercube.evaluation.reliability import NEAR, calibration_error
from glaciercube.models.base import Model
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import membership

__all__ = ["Calibrated", "Pixels", "Scaling", "calibrate", "draw_pixels", "fit_scaling", "rescaled"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Share of a place's weight that its pixels near outlines have.
NEAR_SHARE = 0.5
#: Parts of the places for the scores after calibration: each is scored with what the others give.
FOLDS = 5
_LEAST = 1e-7


@dataclass(frozen=True)
class Scaling:
    """What a model's own calibration is changed by.

    Attributes
    ----------
    temperature : float
        What all logits are divided by.
    shift : float
        What is then added to those of the classes of the first output.
    """

    temperature: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True, eq=False)
class Pixels:
    """Labelled pixels as a model sees them.

    Attributes
    ----------
    log : (pixel, class) float64
        Logarithm of the model's probabilities.
    may : (pixel, class) bool
        Classes that the label may be.
    ice : (pixel, class) bool
        Classes of the labels of that chip that are ice: their probability is held against `truth`.
    truth : (pixel,) bool
        Whether the label is ice.
    near : (pixel,) bool
        Within 50 m of an outline.
    share : (pixel,) float64
        How many pixels this one stands for, times their trust.
    place : (pixel,) int64
        Number of the place.
    raised : (class,) bool
        Classes of the model's first output.
    """

    log: FloatArray
    may: BoolArray
    ice: BoolArray
    truth: BoolArray
    near: BoolArray
    share: FloatArray
    place: npt.NDArray[np.int64]
    raised: BoolArray

    def part(self, kept: BoolArray) -> Pixels:
        """Some of the pixels."""
        own = {f.name: getattr(self, f.name)[kept] for f in dataclasses.fields(self) if f.name != "raised"}
        return Pixels(**own, raised=self.raised)

    def weights(self, near_share: float = NEAR_SHARE) -> FloatArray:
        """Weight of each pixel: places weigh the same, and within each the two distances as stated; their sum is 1."""
        group = 2 * self.place + self.near
        sums = np.bincount(group, self.share, minlength=int(group.max(initial=0)) + 2)
        wanted = np.where(np.arange(sums.size) % 2 == 1, near_share, 1.0 - near_share)
        weight = self.share * wanted[group] / np.maximum(sums[group], 1e-12)
        # A place without pixels of one kind still counts as one place.
        total = np.bincount(self.place, weight, minlength=int(self.place.max(initial=0)) + 1)
        weight = weight / np.maximum(total[self.place], 1e-12)
        found: FloatArray = weight / max(float(weight.sum()), 1e-12)
        return found

    def probability(self, scaling: Scaling) -> FloatArray:
        """Probability of ice, (pixel,), with another calibration."""
        logit = self.logits(scaling)
        return np.exp(_logsumexp(np.where(self.ice, logit, -np.inf)) - _logsumexp(logit))

    def logits(self, scaling: Scaling) -> FloatArray:
        """Logits of the classes, (pixel, class), with another calibration."""
        found: FloatArray = self.log / scaling.temperature + scaling.shift * self.raised
        return found


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
    after, entropies = before.copy(), _entropies(drawn, Scaling())
    entropies_after = entropies.copy()
    for fold in np.unique(number):
        held = number == fold
        other = fit_scaling(drawn.part(~held), near_share)
        after[held] = drawn.part(held).probability(other)
        entropies_after[held] = _entropies(drawn.part(held), other)
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


def rescaled(model: Model, scaling: Scaling) -> Model:
    """A model whose logits are scaled once more: ``temperature`` and ``shift`` of its contract, and nothing else.

    Raises
    ------
    ModelError
        If its architecture knows neither, such as a rule or an exported program.
    """
    from glaciercube.models.registry import build_module

    parameters = dict(model.contract.parameters)
    if not hasattr(model.module, "temperature") or not hasattr(model.module, "shift"):
        raise ModelError(
            f"model {model.contract.name!r} has no temperature and no shift to calibrate",
            "calibrate trained models; rules have thresholds",
        )
    old = {name: _plain(parameters.get(name, usual)) for name, usual in (("temperature", 1.0), ("shift", 0.0))}
    parameters["temperature"] = round(old["temperature"] * scaling.temperature, 4)
    parameters["shift"] = round(old["shift"] / scaling.temperature + scaling.shift, 4)
    contract = dataclasses.replace(model.contract, parameters=parameters)
    module = build_module(contract)
    module.load_state_dict(model.module.state_dict())
    return Model.from_module(contract, module)


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
            held = np.isin(list(chip.labels), ice_labels(chip, positive))
            parts += _drawn(model, chip, np.log(np.maximum(found, _LEAST)), held, (place, pixels), rng)
    require(bool(parts), "no chip has labelled pixels that the model sees", "give chips with its inputs")
    joined = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in dataclasses.fields(Pixels)
        if f.name != "raised"
    }
    return Pixels(**joined, raised=parts[0].raised)


def fit_scaling(pixels: Pixels, near_share: float = NEAR_SHARE) -> Scaling:
    """Temperature and shift that minimise the weighted cross-entropy of the labels.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599) with an intercept (Platt 1999). A label that may be several
    classes costs the logarithm of their summed probability.
    """
    from scipy.optimize import minimize

    weight = pixels.weights(near_share)

    def cost(parameters: FloatArray) -> tuple[float, FloatArray]:
        logit = parameters[0] * pixels.log + parameters[1] * pixels.raised
        within = np.where(pixels.may, logit, -np.inf)
        all_, some = _logsumexp(logit), _logsumexp(within)
        slope = (np.exp(logit - all_[:, None]) - np.exp(within - some[:, None])) * weight[:, None]
        gradient = np.array([(slope * pixels.log).sum(), slope[:, pixels.raised].sum()])
        return float(weight @ (all_ - some)), gradient

    bounds = [(0.1, 10.0), (-5.0, 5.0)]
    found = minimize(cost, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    return Scaling(float(1.0 / found.x[0]), float(found.x[1]))


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


def _entropies(pixels: Pixels, scaling: Scaling) -> FloatArray:
    logit = pixels.logits(scaling)
    return _logsumexp(logit) - _logsumexp(np.where(pixels.may, logit, -np.inf))


def _bias(probability: FloatArray, truth: BoolArray, weight: FloatArray) -> float:
    true = float(weight @ truth)
    return float(weight @ probability) / true - 1.0 if true else float("nan")


def _logsumexp(values: FloatArray) -> FloatArray:
    largest = values.max(axis=1)
    found: FloatArray = largest + np.log(np.exp(values - largest[:, None]).sum(axis=1))
    return found


def _plain(value: Any) -> float:
    return float(value)
