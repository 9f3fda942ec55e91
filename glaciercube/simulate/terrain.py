"""Bedrock relief: valleys cut by running water, widened by ice, roughened at small scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from glaciercube.simulate.surface import BoolArray, FloatArray

__all__ = ["Relief", "TerrainStyle", "carve_relief", "draw_style", "spectral_noise"]

NEIGHBOURS: tuple[tuple[int, int], ...] = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
CONCAVITY = 0.45  # channel slope ~ area^-0.45: the concavity of steady rivers, e.g. Whipple & Tucker (1999)


@dataclass(frozen=True)
class TerrainStyle:
    """What makes one mountain range differ from another.

    Attributes
    ----------
    hillslope : float
        Gradient of the valley sides, m/m: 0.45 rounded to 0.95 steep alpine.
    valley_width : float
        Width of the floors of trunk valleys in metres.
    relief : float
        Wanted height range in metres over 8 km.
    roughness : float
        Standard deviation of the relief under about 150 m of wavelength, in metres.
    rounding : float
        Scale of smoothing of crests in metres.
    base : float
        Elevation of the lowest ground in metres, 0 at the coast.
    """

    hillslope: float
    valley_width: float
    relief: float
    roughness: float
    rounding: float
    base: float


@dataclass(frozen=True)
class Relief:
    """A coarse bed and the way that water leaves it.

    Attributes
    ----------
    bed : (y, x) float32
        Elevation in metres; below 0 is sea bed.
    downstream : (y * x) int64
        Flat index of the next cell on the way out; the cell itself at an outlet.
    sea : (y, x) bool
        Cells below sea level.
    """

    bed: FloatArray
    downstream: npt.NDArray[np.int64]
    sea: BoolArray


def draw_style(rng: np.random.Generator, *, ocean: bool) -> TerrainStyle:
    """Draw a mountain range: steep alpine, rounded, or coastal.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    ocean : bool
        Whether the range stands in the sea, so that its base is 0 m.
    """
    steepness = rng.uniform(0, 1)
    return TerrainStyle(
        hillslope=0.5 + 0.45 * steepness,
        valley_width=float(rng.uniform(300, 800)),
        relief=1000 + 1400 * steepness * float(rng.uniform(0.7, 1.05)),
        roughness=float(1.5 + 4.5 * steepness * rng.uniform(0.6, 1.2)),
        rounding=float((1 - steepness) * rng.uniform(20, 120)),
        base=0.0 if ocean else float(rng.uniform(100, 3000)),
    )


def spectral_noise(
    rng: np.random.Generator, shape: tuple[int, int], resolution: float, *, longest: float, slope: float = 3.0
) -> FloatArray:
    """Draw a Gaussian field with a power-law spectrum below a longest wavelength.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        Rows and columns.
    resolution : float
        Pixel size in metres.
    longest : float
        Wavelength in metres above which the spectrum is flat.
    slope : float
        Exponent of the power spectrum over the wave number.

    Returns
    -------
    (y, x) float32
        Mean 0, standard deviation 1, no unit.
    """
    ny, nx = (n + max(8, min(n, int(longest / resolution))) for n in shape)  # a margin, since the FFT wraps round
    wave = np.hypot(np.fft.fftfreq(ny, resolution)[:, None], np.fft.rfftfreq(nx, resolution)[None, :])
    amplitude = np.maximum(wave, 1 / longest) ** (-slope / 2)
    amplitude[0, 0] = 0
    white = rng.standard_normal((ny, nx), dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(ny, nx))[: shape[0], : shape[1]]
    return np.asarray((field - field.mean()) / (field.std() + 1e-12), dtype=np.float32)


def carve_relief(
    rng: np.random.Generator, shape: tuple[int, int], cell: float, style: TerrainStyle, *, ocean: bool
) -> Relief:
    """Make bedrock relief in which every cell drains to the rim or to the sea.

    Elevation is the least height gained on any way from the outlets, with a gradient that is that of the hillslope
    above the channel heads and falls with the drained area below them (steady rivers, Whipple & Tucker 1999,
    doi:10.1029/1999JB900120); three rounds bring elevation and drained area into agreement. Trunk valleys are as
    wide as ice makes them: the low gradient of the channel holds for the whole floor.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        Rows and columns of the coarse grid.
    cell : float
        Its pixel size in metres.
    style : TerrainStyle
        The mountain range.
    ocean : bool
        Whether a part of the domain is sea.
    """
    sea = _sea(rng, shape, cell) if ocean else np.zeros(shape, dtype=bool)
    outlets = _outlets(rng, shape, sea)
    texture = np.exp(0.45 * spectral_noise(rng, shape, cell, longest=2500, slope=2.2)).clip(0, 1.9).astype(np.float32)
    gradient = texture * style.hillslope
    area = np.full(shape, cell**2, dtype=np.float32)
    downstream = np.arange(area.size)
    bed = np.zeros(shape, dtype=np.float32)
    for _ in range(3):
        bed, downstream = _climb(gradient, outlets, cell)
        area = _drained_area(bed, downstream, cell)
        gradient = texture * _gradient(area, style, cell)
    bed, downstream = _climb(gradient, outlets, cell)
    bed = _finish(bed, area, style, cell)
    wanted = style.relief * float(np.clip(min(shape) * cell / 8000, 0.8, 1.3)) / max(float(np.percentile(bed, 99.8)), 1)
    steep = float(np.median(np.hypot(*np.gradient(bed, cell))[~sea]))
    bed *= np.float32(min(wanted, 0.75 * style.hillslope / steep))
    bed += np.float32(style.base)
    if ocean:
        depth = np.asarray(ndimage.distance_transform_edt(sea), dtype=np.float32) * cell
        bed[sea] = -np.minimum(0.25 * depth[sea] + 5, 250)
        shore = np.exp(-np.abs(depth + ndimage.distance_transform_edt(~sea) * cell) / 200)
        bed += (shore * (ndimage.gaussian_filter(bed, 1.2) - bed)).astype(np.float32)
        sea = np.asarray(bed < 0, dtype=bool)
    return Relief(bed, downstream, sea)


def _sea(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> BoolArray:
    """Draw a coast with inlets along one side of the domain: (y, x) bool."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    seaward = np.cos(angle) * x + np.sin(angle) * y + 0.33 * spectral_noise(rng, shape, cell, longest=4000, slope=3.5)
    sea = np.asarray(seaward > np.quantile(seaward, 1 - rng.uniform(0.08, 0.28)), dtype=bool)
    labels, count = ndimage.label(sea)
    if count > 1:
        sea = np.asarray(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]), dtype=bool)
    return sea


def _outlets(rng: np.random.Generator, shape: tuple[int, int], sea: BoolArray) -> npt.NDArray[np.int64]:
    """Choose where water leaves: the sea, or a few valleys through the rim. Flat indices."""
    ny, nx = shape
    if sea.any():
        return np.flatnonzero(sea)
    count = int(rng.integers(3, 6)) + int(ny * nx / 30000)
    start = rng.uniform(0, 1)
    around = (start + (np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count) % 1 * 4
    side, along = around.astype(int), around % 1
    rows = np.select(
        [side == 0, side == 1, side == 2], [0 * along, along * (ny - 1), ny - 1 + 0 * along], along * (ny - 1)
    )
    cols = np.select(
        [side == 0, side == 1, side == 2], [along * (nx - 1), nx - 1 + 0 * along, along * (nx - 1)], 0 * along
    )
    return np.unique(rows.astype(np.int64) * nx + cols.astype(np.int64))


def _climb(
    gradient: FloatArray, outlets: npt.NDArray[np.int64], cell: float
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Integrate a gradient (m/m) uphill from the outlets: elevation (m) and the next cell downstream."""
    ny, nx = gradient.shape
    index = np.arange(ny * nx).reshape(ny, nx)
    rows, cols, costs = [], [], []
    for dy, dx in NEIGHBOURS:
        here = (slice(max(0, -dy), ny - max(0, dy)), slice(max(0, -dx), nx - max(0, dx)))
        there = (slice(max(0, dy), ny - max(0, -dy)), slice(max(0, dx), nx - max(0, -dx)))
        rows.append(index[here].ravel())
        cols.append(index[there].ravel())
        costs.append((gradient[there] * (cell * np.hypot(dy, dx))).ravel())
    graph = csr_array((np.concatenate(costs), (np.concatenate(rows), np.concatenate(cols))), shape=(ny * nx, ny * nx))
    height, previous, _ = dijkstra(graph, indices=outlets, min_only=True, return_predecessors=True)
    downstream = np.where(previous < 0, np.arange(ny * nx), previous).astype(np.int64)
    return height.reshape(ny, nx).astype(np.float32), downstream


def _drained_area(bed: FloatArray, downstream: npt.NDArray[np.int64], cell: float) -> FloatArray:
    """Add up the area (m2) that drains through each cell: (y, x) float32."""
    area = [cell**2] * bed.size
    target = downstream.tolist()
    for here in np.argsort(-bed, axis=None).tolist():
        there = target[here]
        if there != here:
            area[there] += area[here]
    return np.array(area, dtype=np.float32).reshape(bed.shape)


def _gradient(area: FloatArray, style: TerrainStyle, cell: float) -> FloatArray:
    """Gradient (m/m) of hillslope or channel, the channel's over the whole valley floor."""
    head = 1.2e5  # m2 drained where channels begin
    slope = style.hillslope * np.minimum(1, (area / head) ** -CONCAVITY)
    half = style.valley_width / 2 / cell
    for share, least in ((0.5, 8e5), (1.0, 4e6)):
        reach = max(1, round(half * share))
        floor = np.where(area > least, slope, np.inf)
        slope = np.minimum(slope, 1.4 * ndimage.minimum_filter(floor, size=2 * reach + 1))
    return np.asarray(slope, dtype=np.float32)


def _finish(bed: FloatArray, area: FloatArray, style: TerrainStyle, cell: float) -> FloatArray:
    """Round the valley floors, and the crests of old mountains."""
    smooth = ndimage.gaussian_filter(bed, 1.3)
    floor = np.clip(ndimage.gaussian_filter(np.log10(area / 1e5).clip(0, 2), 1.5), 0, 1)
    bed = bed + floor * (smooth - bed)
    if style.rounding > 0:
        bed = ndimage.gaussian_filter(bed, style.rounding / cell)
    return np.asarray(bed, dtype=np.float32)
