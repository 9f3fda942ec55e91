"""Relief of the second family of worlds: folded noise with troughs and talus, and no running water.

Nothing here is taken from `glaciercube.simulate.terrain`, whose relief is carved by drainage: a model that is trained
on one family is tested on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.simulate.surface import FloatArray

__all__ = ["Highland", "fold_relief", "lattice_noise"]

REPOSE = 0.78  # m/m: loose rock lies no steeper than 38 degrees
# Metres from the lowest to the highest ground. With it half of the ground is steeper than 25 to 30 degrees; on real
# tiles of the western Himalaya it is 23 (the elevation that comes with debris_hma).
RELIEF = (500.0, 1250.0)


@dataclass(frozen=True)
class Highland:
    """A coarse bed.

    Attributes
    ----------
    bed : (y, x) float32
        Elevation in metres; below 0 is sea bed if `coast`.
    floor : (y, x) float32
        Height in metres above the bottom of the valley around.
    cell : float
        Pixel size in metres.
    coast : bool
        Whether ground below 0 lies under the sea.
    """

    bed: FloatArray
    floor: FloatArray
    cell: float
    coast: bool


def lattice_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    pixel: float,
    *,
    longest: float,
    octaves: int = 4,
    gain: float = 0.5,
) -> FloatArray:
    """Draw smooth noise: random numbers on lattices of halving spacing, joined by cubic splines.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int)
        Rows and columns.
    pixel : float
        Pixel size in metres.
    longest : float
        Spacing of the widest lattice in metres.
    octaves : int
        Lattices at most; none is finer than two pixels.
    gain : float
        Standard deviation of each lattice over that of the wider one.

    Returns
    -------
    (y, x) float32
        Mean 0, standard deviation 1, no unit.
    """
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        spacing = longest / pixel / 2**octave
        if spacing < 2 and octave:
            break
        knots = [int(np.ceil(n / spacing)) + 4 for n in shape]
        lattice = rng.standard_normal(knots).astype(np.float32)
        start = rng.uniform(0.5, 1.5, 2)
        step = np.array([1 / spacing, 1 / spacing])
        total += gain**octave * ndimage.affine_transform(lattice, step, start, shape, None, 3, "nearest")
    return np.asarray((total - total.mean()) / (total.std() + 1e-9), dtype=np.float32)


def fold_relief(rng: np.random.Generator, shape: tuple[int, int], cell: float, *, coast: bool) -> Highland:
    """Fold noise into mountains: valleys run where it changes sign, crests where finer noise does.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int)
        Rows and columns of the coarse grid.
    cell : float
        Its pixel size in metres.
    coast : bool
        Whether the lowest ground lies under the sea.
    """
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    bend = [lattice_noise(rng, shape, cell, longest=2000, octaves=3) * 180 / cell for _ in range(2)]
    at = np.stack([y + bend[0], x + bend[1]])

    def bent(field: FloatArray) -> FloatArray:
        return np.asarray(ndimage.map_coordinates(field, at, order=1, mode="mirror"), dtype=np.float32)

    trunk = np.abs(bent(lattice_noise(rng, shape, cell, longest=float(rng.uniform(2800, 4500)), octaves=2)))
    side = np.abs(bent(lattice_noise(rng, shape, cell, longest=float(rng.uniform(1000, 1700)), octaves=3)))
    crest = 1 - np.abs(bent(lattice_noise(rng, shape, cell, longest=float(rng.uniform(500, 900)), octaves=3, gain=0.6)))
    mass = np.minimum(trunk, 1.6) ** rng.uniform(0.6, 0.95)
    height = mass * (0.5 + 0.35 * np.minimum(side, 1.5) + rng.uniform(0.2, 0.45) * np.maximum(crest, -0.5))
    turn = rng.uniform(0, 2 * np.pi)
    tilt = (np.cos(turn) * x / shape[1] + np.sin(turn) * y / shape[0]) * rng.uniform(0.1, 0.45)
    height = height + tilt.astype(np.float32)
    relief = float(rng.uniform(*RELIEF))
    low, high = np.quantile(height, [0.01, 0.995])
    bed = _slump((height - low) / (high - low) * relief, cell)
    floor = bed - ndimage.gaussian_filter(ndimage.minimum_filter(bed, size=2 * round(500 / cell) + 1), 400 / cell)
    floor = np.clip(floor, 0, None)
    depth = rng.uniform(30, 110)  # ice of the past has widened the bottoms
    bed = ndimage.gaussian_filter(bed - 0.75 * floor * np.exp(-floor / depth), 0.8)
    bed += -np.quantile(bed, rng.uniform(0.08, 0.25)) if coast else rng.uniform(200, 3800)
    return Highland(bed.astype(np.float32), floor.astype(np.float32), cell, coast)


def _slump(height: npt.NDArray[np.floating], cell: float) -> FloatArray:
    """Let what is steeper than the angle of repose slide down, in part."""
    bed = np.asarray(height, dtype=np.float32)
    for _ in range(6):
        steep = np.hypot(*np.gradient(bed, cell))
        loose = np.clip((steep - REPOSE) / 0.6, 0, 0.8)
        bed = bed + loose * (ndimage.uniform_filter(bed, 3) - bed)
    return np.asarray(bed, dtype=np.float32)
