"""Temperature and shift of a model's logits, and the labelled pixels that they are fitted to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError
from glaciercube.models.base import Model

__all__ = ["NEAR_SHARE", "Pixels", "Scaling", "fit_scaling", "rescaled"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Share of a place's weight that its pixels near outlines have.
NEAR_SHARE = 0.5


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

    def entropies(self, scaling: Scaling) -> FloatArray:
        """Cross-entropy of the labels, (pixel,) in nats, with another calibration."""
        logit = self.logits(scaling)
        return _logsumexp(logit) - _logsumexp(np.where(self.may, logit, -np.inf))


def fit_scaling(pixels: Pixels, near_share: float = NEAR_SHARE) -> Scaling:
    """Temperature and shift that minimise the weighted cross-entropy of the labels.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599) with an intercept (Platt 1999). A label that may be several
    classes costs the logarithm of their summed probability.

    Parameters
    ----------
    pixels : Pixels
        Of several places.
    near_share : float
        Share of a place's weight that its pixels within 50 m of outlines have.
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
    old = {name: _number(parameters.get(name, usual)) for name, usual in (("temperature", 1.0), ("shift", 0.0))}
    parameters["temperature"] = round(old["temperature"] * scaling.temperature, 4)
    parameters["shift"] = round(old["shift"] / scaling.temperature + scaling.shift, 4)
    contract = dataclasses.replace(model.contract, parameters=parameters)
    module = build_module(contract)
    module.load_state_dict(model.module.state_dict())
    return Model.from_module(contract, module)


def _logsumexp(values: FloatArray) -> FloatArray:
    largest = values.max(axis=1)
    found: FloatArray = largest + np.log(np.exp(values - largest[:, None]).sum(axis=1))
    return found


def _number(value: Any) -> float:
    return float(value)
