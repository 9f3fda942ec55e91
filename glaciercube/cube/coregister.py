"""By how much two dates, or an outline and an image, lie apart. Shifts are measured and told, and never applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from glaciercube.errors import CubeError

__all__ = ["Shift", "image_shift", "outline_shift"]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shift:
    """How far something lies from where the reference has it.

    Attributes
    ----------
    x, y : float
        Metres to the east and to the north that it lies off; NaN where that cannot be told.
    score : float
        Of images, the height of the correlation's peak above its own noise, in standard deviations: below some 8 the
        shift is a guess. Of outlines, the contrast across the outline that the shift gains, as a share of the best.
    """

    x: float
    y: float
    score: float


def image_shift(
    image: npt.NDArray[np.floating],
    reference: npt.NDArray[np.floating],
    resolution: float,
    *,
    fraction: int = 50,
    reach: float = 200.0,
) -> Shift:
    """Shift between two images of a place by phase correlation, to a fraction of a pixel.

    The peak of the normalised cross-power spectrum (Kuglin & Hines 1975), found again on a lattice of 1/``fraction``
    pixel around it by a matrix-multiplied transform (Guizar-Sicairos et al. 2008, Opt. Lett. 33:156-158). Both images
    are high-passed and tapered, so that neither light nor the frame correlates; missing pixels count as flat ground.

    Parameters
    ----------
    image, reference : (y, x) floating
        The same band on the same grid, north up, NaN where missing.
    resolution : float
        Pixel size in metres.
    fraction : int
        Parts of a pixel.
    reach : float
        Largest shift in metres that is looked for.

    Returns
    -------
    Shift
        Of the image against the reference; NaN if less than half of the pixels are seen in both.

    Raises
    ------
    CubeError
        If the images differ in shape.
    """
    if image.shape != reference.shape:
        raise CubeError(f"images of {image.shape} and {reference.shape} pixels", "lay both on one grid")
    both = np.isfinite(image) & np.isfinite(reference)
    if both.mean() < 0.5 or min(image.shape) < 16:
        return Shift(float("nan"), float("nan"), 0.0)
    first, second = (fft.fft2(_flattened(values, both)) for values in (image, reference))
    cross = first * np.conj(second)
    cross /= np.maximum(abs(cross), 1e-12 * abs(cross).max() + 1e-300)
    # Noise lives at the finest waves, which resampling has smoothed away.
    wave = np.hypot(*np.meshgrid(*(fft.fftfreq(n) for n in image.shape), indexing="ij"))
    cross *= np.exp(-((wave / 0.2) ** 2))
    surface = fft.ifft2(cross).real
    rows, columns = (fft.fftfreq(n, 1 / n) for n in image.shape)
    near = np.hypot(rows[:, None], columns[None]) * resolution <= reach
    peak = np.unravel_index(int(np.argmax(np.where(near, surface, -np.inf))), surface.shape)
    score = float((surface[peak] - surface.mean()) / surface.std())
    fine = np.arange(-fraction, fraction + 1) / fraction
    down, right = rows[peak[0]] + fine, columns[peak[1]] + fine
    turned = np.exp(2j * np.pi * down[:, None] * fft.fftfreq(image.shape[0])[None])
    also = np.exp(2j * np.pi * fft.fftfreq(image.shape[1])[:, None] * right[None])
    best = np.unravel_index(int(np.argmax((turned @ cross @ also).real)), (len(fine), len(fine)))
    return Shift(float(right[best[1]]) * resolution, -float(down[best[0]]) * resolution, score)


def _flattened(values: npt.NDArray[np.floating], both: BoolArray) -> FloatArray:
    """Local contrast, tapered to the frame and to what is missing."""
    weight = both.astype(np.float64)
    filled = np.where(both, values, 0.0).astype(np.float64)
    around = ndimage.gaussian_filter(weight, 8.0) + 1e-9
    mean = ndimage.gaussian_filter(filled, 8.0) / around
    rough = np.where(both, filled - mean, 0.0)
    spread = np.sqrt(ndimage.gaussian_filter(rough**2, 8.0) / around)
    rough = rough / (spread + 0.05 * spread.max() + 1e-12)
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in values.shape))
    return np.asarray(rough * taper * ndimage.gaussian_filter(weight, 2.0))


def outline_shift(
    values: npt.NDArray[np.floating], inside: BoolArray, resolution: float, *, reach: float = 100.0
) -> Shift:
    """Shift of an outline that makes what lies on its two sides differ most.

    Parameters
    ----------
    values : (y, x) floating
        What ice is high in: a glacier probability, NDSI or a band ratio; NaN where missing.
    inside : (y, x) bool
        Pixels inside the outline, on the same grid, north up.
    resolution : float
        Pixel size in metres.
    reach : float
        Largest shift in metres that is looked for, along each axis.

    Returns
    -------
    Shift
        Of the outline against the image: (100, 0) if the outline lies 100 m too far east. A parabola through the best
        pixel and its neighbours gives a fraction of a pixel. NaN if the outline has no two sides here.
    """
    steps = int(np.ceil(reach / resolution)) + 1
    within, beyond = (ndimage.binary_dilation(side, iterations=2) for side in (inside, ~inside))
    ring = within & beyond
    rows, columns = np.nonzero(ring)
    fits = (rows >= steps) & (rows < inside.shape[0] - steps) & (columns >= steps) & (columns < inside.shape[1] - steps)
    rows, columns = rows[fits], columns[fits]
    sign = np.where(inside[rows, columns], 1.0, -1.0)
    if not (sign > 0).any() or not (sign < 0).any():
        return Shift(float("nan"), float("nan"), 0.0)
    offsets = range(-steps, steps + 1)
    contrast = np.array(
        [[_contrast(values[rows + down, columns + right], sign) for right in offsets] for down in offsets]
    )
    inner = contrast[1:-1, 1:-1]
    if not np.isfinite(inner).any():
        return Shift(float("nan"), float("nan"), 0.0)
    best = np.unravel_index(int(np.nanargmax(inner)), inner.shape)
    row, column = best[0] + 1, best[1] + 1
    down = row - steps + _vertex(contrast[row - 1 : row + 2, column])
    right = column - steps + _vertex(contrast[row, column - 1 : column + 2])
    top = float(contrast[row, column])
    gain = (top - float(contrast[steps, steps])) / abs(top) if top else 0.0
    # The image is found at an offset from the outline: the outline lies off by as much the other way.
    return Shift(-right * resolution, down * resolution, gain)


def _contrast(found: npt.NDArray[np.floating], sign: FloatArray) -> float:
    seen = np.isfinite(found)
    ice, other = found[seen & (sign > 0)], found[seen & (sign < 0)]
    return float(ice.mean() - other.mean()) if ice.size and other.size else float("nan")


def _vertex(three: FloatArray) -> float:
    """Where a parabola through three values, the middle one the largest, is highest: -0.5 to 0.5."""
    bend = three[0] - 2 * three[1] + three[2]
    if not np.isfinite(bend) or bend >= 0:
        return 0.0
    return float(np.clip(0.5 * (three[0] - three[2]) / bend, -0.5, 0.5))
