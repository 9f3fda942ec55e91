"""How the front models of the benchmark are trained: few glaciers, so that each image is bent, lit and cut anew.

Fronts of three glaciers are to teach what fronts are like, and not where they lie: the training knows no other place
than the drawn line's. Targets are soft, exp(-d^2 / 2 s^2) of the distance d to the line, and pixels near the line, also
those beyond its ends, weigh more than the rest.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from glaciercube.bench.front_set import sides_of
from glaciercube.models.architectures.segmenter import Segmenter, Supervised
from glaciercube.models.base import GlacierModule, Masked
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.training.precision import has_fast_bfloat16

__all__ = ["RARITY", "Recipe", "Trained", "train"]

#: Weight of the front's pixels where it is learned alone: by how much rarer they are, as Mohajerani et al. have it.
RARITY = 241.15
#: Distances to the front are told up to this many pixels.
_FAR = 40.0


@dataclass(frozen=True)
class Recipe:
    """Options of the training.

    Attributes
    ----------
    seconds : float
        Processor seconds, of one thread.
    steps : int or None
        No more batches than this.
    batch : int
        Crops of a step.
    size : (int, int)
        Rows and columns of a crop.
    rate : float
        Highest learning rate of AdamW; it falls as a cosine.
    warm : int
        Steps over which the rate rises.
    sigma : float
        Width of the soft line in pixels.
    front, near, beside : float
        Weights of the line, of pixels within 15 of it, and of what lies beside the front's ends, against 1.
    bend : float
        Standard deviation in pixels of the random bends.
    belt : float
        Share of crops in which the sea at the front is made as bright as the ice, or brighter, as melange under snow.
    average : float
        The averaged weights, which are the result, take 1 / `average` of each step's.
    seed : int
        Of weights and crops.
    """

    seconds: float = 400.0
    steps: int | None = None
    batch: int = 8
    size: tuple[int, int] = (256, 192)
    rate: float = 2e-3
    warm: int = 60
    sigma: float = 1.5
    front: float = 10.0
    near: float = 2.0
    beside: float = 0.5
    bend: float = 4.0
    belt: float = 0.4
    average: float = 100.0
    seed: int = 0


class Trained(NamedTuple):
    """A trained module and what it took.

    Attributes
    ----------
    module : GlacierModule
        With averaged weights, in evaluation mode.
    steps : int
        Batches.
    seconds : float
        Processor seconds.
    """

    module: GlacierModule
    steps: int
    seconds: float


class _Batch(NamedTuple):
    """Crops: brightness with NaN where missing, distance to the front in pixels, share inland, weight; (n, y, x)."""

    image: Tensor
    distance: Tensor
    inland: Tensor
    weight: Tensor


def train(
    module: Segmenter,
    contract: Contract,
    chips: Sequence[Chip],
    recipe: Recipe,
    told: Callable[[float, float], None] | None = None,
) -> Trained:
    """Train a module on chips of `glaciercube.bench.front_set`.

    Parameters
    ----------
    module : Segmenter
        Of two classes (``other``, ``front``) or of `SIDES`; changed in place.
    contract : Contract
        With one modality of one variable, ``brightness``.
    chips : sequence of Chip
        All of one size. Each glacier is drawn in proportion to the root of its chips.
    recipe : Recipe
        Options.
    told : callable, optional
        Called after each step with the share of the budget that is spent and the loss.
    """
    rng = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    layers = torch.stack([_layers(chip, recipe) for chip in chips])
    lines = [np.array(chip.attributes["drawn"], np.float64) for chip in chips]
    places = [chip.place for chip in chips]
    share = np.array([1.0 / math.sqrt(places.count(place)) for place in places])
    module.train()
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(module)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.rate, weight_decay=1e-3)
    begun, step = time.process_time(), 0
    while True:
        spent = (time.process_time() - begun) / recipe.seconds
        done = max(spent, step / recipe.steps if recipe.steps else 0.0)
        if done >= 1.0:
            break
        for group in optimiser.param_groups:
            group["lr"] = (
                recipe.rate * min(1.0, (step + 1) / recipe.warm) * (0.5 + 0.5 * math.cos(math.pi * done) + 1e-3)
            )
        which = rng.choice(len(chips), recipe.batch, p=share / share.sum())
        batch = _light(_belted(_crops(layers[which], [lines[k] for k in which], recipe, rng), recipe, rng), rng)
        loss = _loss(module, contract, batch, recipe)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 2.0)
        optimiser.step()
        step += 1
        if told is not None:
            told(done, float(loss.detach()))
        _follow(average, module, max(1.0 / recipe.average, 20.0 / (step + 20.0)))
    average.eval()
    return Trained(average, step, time.process_time() - begun)


def _follow(average: nn.Module, module: nn.Module, share: float) -> None:
    with torch.no_grad():
        for kept, now in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(now, share)
            else:
                kept.copy_(now)


def _layers(chip: Chip, recipe: Recipe) -> Tensor:
    """Brightness and whether it is there, distance to the front, inland, and weight: (5, y, x)."""
    grey = np.asarray(chip.variables["brightness"], np.float32)[0]
    line = np.array(chip.attributes["drawn"])
    free = np.ones(grey.shape, bool)
    free[tuple(line.T)] = False
    distance = np.minimum(ndimage.distance_transform_edt(free), _FAR)
    weight = np.full(grey.shape, recipe.beside)
    weight[:, line[:, 1].min() : line[:, 1].max() + 1] = 1.0
    inland = sides_of(line, grey.shape) > 0
    parts = (np.nan_to_num(grey), np.isfinite(grey), distance, inland, weight)
    return torch.from_numpy(np.stack([np.asarray(part, np.float32) for part in parts]))


def _crops(layers: Tensor, lines: Sequence[np.ndarray], recipe: Recipe, rng: np.random.Generator) -> _Batch:
    """Turned (20 degrees), scaled (0.67 to 1.5), stretched, sheared, mirrored and bent crops about the fronts."""
    count, (high, wide) = len(layers), recipe.size

    def spread(width: float) -> Tensor:
        return torch.from_numpy(rng.uniform(-width, width, count)).float()

    turn, scale, ratio, shear = spread(math.radians(20.0)), spread(0.4).exp(), spread(0.15).exp(), spread(0.15)
    mirror = torch.from_numpy(rng.choice([-1.0, 1.0], count)).float()
    cos, sin = turn.cos(), turn.sin()
    rows = [torch.stack([cos * mirror, shear - sin], dim=1), torch.stack([sin * mirror, cos], dim=1)]
    matrix = torch.stack(rows, dim=1) / scale[:, None, None] * torch.stack([ratio, 1.0 / ratio], dim=1)[:, :, None]
    middles = []
    for line in lines:
        pull = rng.uniform(0.0, 0.5)
        row, column = (1.0 - pull) * line.mean(axis=0) + pull * line[rng.integers(len(line))]
        middles.append((column + rng.uniform(-25.0, 25.0), row + rng.uniform(-50.0, 50.0)))
    middle = torch.tensor(middles, dtype=torch.float32)
    ys, xs = torch.meshgrid(torch.arange(high) - high / 2 + 0.5, torch.arange(wide) - wide / 2 + 0.5, indexing="ij")
    at = torch.einsum("bij,hwj->bhwi", matrix, torch.stack([xs, ys], dim=-1)) + middle[:, None, None]
    bends = _smooth(rng, (count, 2, 6, 5), (high, wide)) * recipe.bend
    at = at + bends.permute(0, 2, 3, 1)
    size = torch.tensor([layers.shape[3], layers.shape[2]], dtype=torch.float32)
    at = (at + 0.5) / size * 2.0 - 1.0
    padding = "reflection" if rng.random() < 0.3 else "zeros"
    found = functional.grid_sample(layers, at, mode="bilinear", padding_mode=padding, align_corners=False)
    inside = (at.abs() <= 1.0).all(dim=-1)
    there = (found[:, 1] > 0.99) & (inside | (padding == "reflection"))
    image = torch.where(there, found[:, 0] / found[:, 1].clamp(min=0.5), torch.nan)
    return _Batch(
        image,
        torch.where(inside, found[:, 2] * scale[:, None, None], _FAR),
        (found[:, 3] > 0.5).float(),
        found[:, 4] * (inside & (found[:, 1] > 0.99)),
    )


def _belted(batch: _Batch, recipe: Recipe, rng: np.random.Generator) -> _Batch:
    """Crops of which some have a belt of melange before the front, in which no step of brightness marks it."""
    count = len(batch.image)
    known, near = torch.isfinite(batch.image), (1.0 - batch.distance / _FAR).clamp(min=0.0)
    inland = batch.inland * (near > 0) * known
    sea = (1.0 - batch.inland) * (near > 0) * known
    grey = torch.nan_to_num(batch.image)
    ice, water = ((grey * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1.0) for part in (inland, sea))
    strength = torch.from_numpy((rng.random(count) < recipe.belt) * rng.uniform(0.3, 1.3, count)).float()
    signed = torch.where(batch.inland > 0.5, -batch.distance, batch.distance)
    # Some pixels wide, since the drawn line is not exact; it fades away from the front.
    belt = torch.sigmoid(signed / 1.5) * near.sqrt()
    return batch._replace(image=batch.image + (strength * (ice - water))[:, None, None] * belt)


def _light(batch: _Batch, rng: np.random.Generator) -> _Batch:
    """Other contrast and brightness, shade, cloud, blur, noise, and patches of one grey."""
    image = batch.image
    count, high, wide = image.shape

    def each(low: float, top: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, top, (count, 1, 1))).float()

    image = image.clamp(0.0, 2.0) ** each(-0.7, 0.7).exp()
    image = image * each(-0.35, 0.35).exp() + each(-0.15, 0.15)
    image = image * (0.15 * each(0, 1) * _smooth(rng, (count, 1, 4, 3), (high, wide))[:, 0]).exp()
    image = image + 0.1 * (each(0, 1) < 0.3) * _smooth(rng, (count, 1, 5, 4), (high, wide))[:, 0]
    if rng.random() < 0.3:
        blurred = functional.avg_pool2d(image[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
        image = torch.where(torch.isfinite(blurred), blurred, image)
    noise = torch.from_numpy(rng.standard_normal(image.shape, np.float32))
    image = image + noise * each(0.0, 0.05)
    if rng.random() < 0.5:
        for sample in range(count):
            for _ in range(2):
                row, column = rng.integers(high - 30), rng.integers(wide - 30)
                tall, broad = rng.integers(8, 30, 2)
                image[sample, row : row + tall, column : column + broad] = float(rng.random())
    return batch._replace(image=image)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    coarse = torch.from_numpy(rng.standard_normal(shape, np.float32))
    return functional.interpolate(coarse, size, mode="bicubic", align_corners=True)


def _loss(module: Segmenter, contract: Contract, batch: _Batch, recipe: Recipe) -> Tensor:
    (modality,) = contract.modalities
    valid = torch.isfinite(batch.image)[:, None]
    scaled = (torch.nan_to_num(batch.image)[:, None] - modality.mean[0]) / modality.std[0]
    if modality.clip is not None:
        scaled = scaled.clamp(*modality.clip)
    values = torch.where(valid, scaled, 0.0).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16()):
        maps = module.supervised({modality.name: Masked(values, valid)}, {})
    total = torch.zeros(())
    for place, found in enumerate(maps):
        margin = contract.windows.margin if contract.windows is not None and place == 0 else 0
        total = total + found.weight * _map_loss(found, _reduced(batch, found, margin), recipe)
    return total / sum(found.weight for found in maps)


def _reduced(batch: _Batch, found: Supervised, margin: int) -> _Batch:
    """Targets at a map's resolution, of the middle half if it shows that alone; without a window's margin."""
    if margin:
        inner = torch.zeros_like(batch.weight)
        inner[:, margin:-margin, margin:-margin] = 1.0
        batch = batch._replace(weight=batch.weight * inner)
    if found.middle:
        high, wide = batch.weight.shape[1:]
        middle = (slice(None), slice(high // 4, high - high // 4), slice(wide // 4, wide - wide // 4))
        batch = _Batch(*(part[middle] for part in batch))
    factor = batch.weight.shape[-1] // found.logit.shape[-1]
    if factor > 1:
        nearest = -functional.max_pool2d(-batch.distance[:, None], factor)[:, 0]
        rest = [functional.avg_pool2d(part[:, None], factor)[:, 0] for part in (batch.inland, batch.weight)]
        batch = _Batch(batch.image, nearest, *rest)
    return batch


def _map_loss(found: Supervised, batch: _Batch, recipe: Recipe) -> Tensor:
    """Cross-entropy with soft targets, and half the Dice loss of the front."""
    logit = found.logit.float()
    line = torch.exp(-batch.distance.square() / (2.0 * recipe.sigma**2))
    known = batch.weight > 0
    weight = torch.where(batch.distance < 15.0, batch.weight.clamp(min=recipe.near), batch.weight)
    weight = (weight + recipe.front * line) * known
    if logit.ndim == 3:
        weight = torch.where(line > 0.5, RARITY, 1.0) * known
        entropy = functional.binary_cross_entropy_with_logits(logit, (line > 0.5).float(), reduction="none")
        return (entropy * weight).sum() / weight.sum().clamp(min=1.0)
    target = torch.stack([(1.0 - line) * (1.0 - batch.inland), line, (1.0 - line) * batch.inland], dim=1)
    entropy = -(target * functional.log_softmax(logit, dim=1)).sum(dim=1)
    said, line = logit.softmax(dim=1)[:, 1] * known, line * known
    overlap = 1.0 - (2.0 * (said * line).sum() + 1.0) / (said.square().sum() + line.square().sum() + 1.0)
    return (entropy * weight).sum() / weight.sum().clamp(min=1.0) + 0.5 * overlap
