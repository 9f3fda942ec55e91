"""Scores of a model on samples: overlap, calibration, and both by subset of sensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from glaciercube.errors import ModelError
from glaciercube.models.base import Model
from glaciercube.training.samples import FloatArray, Sample

__all__ = ["Scores", "evaluate", "fit_scaling", "predict_sample", "scores"]

_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Pixels of all scenes pooled.

    Attributes
    ----------
    iou, f1 : float
        Intersection over union and F1 of probability > 0.5 against the label, 0 to 1.
    ece : float
        Expected calibration error over 15 equal bins (Guo et al. 2017, arXiv:1706.04599), 0 to 1.
    bias : float
        Sum of probability over true ice area, less one: what the expected area is off by.
    pixels : int
        How many were compared.
    """

    iou: float
    f1: float
    ece: float
    bias: float
    pixels: int


def scores(pairs: Iterable[tuple[FloatArray, npt.NDArray[np.bool_]]]) -> Scores:
    """Pool probabilities and labels of several scenes.

    Parameters
    ----------
    pairs : iterable of ((y, x) float32, (y, x) bool)
        Probability (NaN is left out) and label.

    Raises
    ------
    ModelError
        If there is no pixel to compare.
    """
    flat = [(p[np.isfinite(p)], truth[np.isfinite(p)]) for p, truth in pairs]
    probability = np.concatenate([p for p, _ in flat]).astype(np.float64)
    truth = np.concatenate([t for _, t in flat])
    if probability.size == 0:
        raise ModelError("no pixel has both a probability and a label", "give scenes that the model can see")
    said = probability > 0.5
    both, either = int((said & truth).sum()), int((said | truth).sum())
    index = np.minimum((probability * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(index, minlength=_BINS)
    gap = np.bincount(index, weights=probability - truth, minlength=_BINS)
    return Scores(
        iou=both / max(1, either),
        f1=2 * both / max(1, both + either),
        ece=float(np.abs(gap).sum() / counts.sum()),
        bias=float(probability.sum() / max(1, truth.sum()) - 1.0),
        pixels=int(probability.size),
    )


def predict_sample(model: Model, sample: Sample, shown: Sequence[str]) -> FloatArray:
    """Probability (y, x) of one sample from the modalities that are shown, NaN where undefined."""
    tensors = {name: torch.from_numpy(sample.inputs[name].astype(np.float32)) for name in shown}
    static = {name: values for name, values in tensors.items() if model.contract.modality(name).static}
    dynamic = {name: values[None] for name, values in tensors.items() if name not in static}
    predicted: FloatArray = model.predict(dynamic, static)[0].numpy()
    return predicted


def evaluate(
    model: Model, samples: Sequence[Sample], subsets: Mapping[str, Sequence[str]], *, clear: bool = True
) -> dict[str, Scores]:
    """Score a model on samples for each subset of its sensors.

    Parameters
    ----------
    model : Model
        Any.
    samples : sequence of Sample
        Not those it was trained on.
    subsets : mapping of str to sequence of str
        Modalities that are shown, by name of the subset.
    clear : bool
        Whether to leave out pixels under cloud.
    """
    results: dict[str, Scores] = {}
    for name, shown in subsets.items():
        pairs = []
        for sample in samples:
            probability = predict_sample(model, sample, shown)
            kept = sample.weight >= 1.0 if clear else np.ones_like(sample.label)
            pairs.append((np.where(kept, probability, np.float32(np.nan)), sample.label))
        results[name] = scores(pairs)
    return results


def fit_scaling(
    probabilities: Sequence[FloatArray], labels: Sequence[npt.NDArray[np.bool_]], weights: Sequence[FloatArray]
) -> tuple[float, float]:
    """Temperature and shift of the logit that minimise the cross-entropy of held-out scenes.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599) with an intercept (Platt 1999).

    Parameters
    ----------
    probabilities : sequence of (y, x) float32
        At temperature 1 and shift 0; NaN is left out.
    labels : sequence of (y, x) bool
        Truth.
    weights : sequence of (y, x) float32
        Of each pixel.

    Returns
    -------
    (float, float)
        To be used as ``sigmoid(logit / temperature + shift)``.
    """
    from scipy.optimize import minimize

    p = np.concatenate([values.ravel() for values in probabilities]).astype(np.float64)
    truth = np.concatenate([values.ravel() for values in labels]).astype(np.float64)
    weight = np.concatenate([values.ravel() for values in weights]).astype(np.float64)
    weight = np.where(np.isfinite(p), weight, 0.0) / max(1.0, float(weight.sum()))
    p = np.clip(np.nan_to_num(p, nan=0.5), 1e-6, 1 - 1e-6)
    logit = np.log(p) - np.log1p(-p)

    def cross_entropy(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scaled = parameters[0] * logit + parameters[1]
        error = weight * (1.0 / (1.0 + np.exp(-scaled)) - truth)
        value = float((weight * (np.logaddexp(0.0, scaled) - truth * scaled)).sum())
        return value, np.array([(error * logit).sum(), error.sum()])

    found = minimize(cross_entropy, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.2, 5.0), (-3.0, 3.0)])
    return float(1.0 / found.x[0]), float(found.x[1])
