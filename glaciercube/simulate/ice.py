"""Glaciers on a relief: ice routed downhill from where it gains mass to where it has all melted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csr_array

from glaciercube.simulate.surface import FloatArray
from glaciercube.simulate.terrain import NEIGHBOURS, Relief, spectral_noise

__all__ = ["Climate", "IceStates", "draw_climate", "grow_ice"]

# Flux per width q = DEFORMATION * H^5 * s^3 (shallow ice, n = 3): 2 A (rho g)^3 / 5 with A = 2.4e-24 Pa^-3 s^-1
# (Cuffey & Paterson 2010, table 3.4, 0 degC) is 2.2e-5 m^-3 a^-1 for s in m/m; doubled for sliding.
DEFORMATION = 4.4e-5
CALVING = 60.0  # m/a of ice lost over deep water, so that tongues end soon after they reach it


@dataclass(frozen=True)
class Climate:
    """Where ice gains and loses mass.

    Attributes
    ----------
    share : float
        Wanted share of the land under ice in the first state, 0 to 1.
    loss : float
        Share of the ice area lost per decade, 0 to 1.
    debris : float
        How much of the rock that falls on the ice shows at its surface, 0 none to 1 heavy.
    """

    share: float
    loss: float
    debris: float


@dataclass(frozen=True)
class IceStates:
    """Two states of the ice on the coarse grid, between which the years lie.

    Attributes
    ----------
    early, late : (y, x) float32
        Signed thickness in metres: below 0 off the ice, the more the farther from having any.
    line : float
        Equilibrium line altitude of the early state in metres.
    rise : float
        How much higher it is in the late state, in metres.
    debris : (y, x) float32
        Rock per ice in the flow, relative; large near the snouts.
    favour : (y, x) float32
        How many metres higher a place lies for its snow than it does in truth: shade, lee, hollows.
    basin : (y, x) int32
        Number of the glacier basin, from 1: all cells whose ice leaves by the same snout.
    """

    early: FloatArray
    late: FloatArray
    line: float
    rise: float
    debris: FloatArray
    favour: FloatArray
    basin: npt.NDArray[np.int32]


def draw_climate(rng: np.random.Generator, *, ocean: bool) -> Climate:
    """Draw how much ice there is, how fast it goes, and how dirty it is.

    Area loss lies between 10 and 35 % per decade, with one in eight landscapes losing at most 2 %.
    """
    loss = rng.uniform(0.0, 0.02) if rng.random() < 0.125 else rng.uniform(0.10, 0.35)
    debris = 0.0 if rng.random() < 0.3 else rng.uniform(0.1, 1.0) ** 1.5
    share = rng.uniform(0.35, 0.7) if ocean else rng.uniform(0.2, 0.65)
    return Climate(float(min(0.75, share * (1 - loss) ** -1.2)), float(loss), float(debris))


def grow_ice(
    rng: np.random.Generator,
    relief: Relief,
    cell: float,
    climate: Climate,
    *,
    wanted_loss: float,
    poleward: bool = True,
) -> IceStates:
    """Grow the glaciers of two equilibrium lines on one relief.

    Balance flux: each cell hands on what it receives plus its own mass balance, and never less than nothing; the
    flow divides among the lower neighbours. Thickness follows from the flux and the slope by the shallow-ice law.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    relief : Relief
        The bed.
    cell : float
        Its pixel size in metres.
    climate : Climate
        Share of ice and debris.
    wanted_loss : float
        Share of the early area that must be gone in the late state, 0 to 1.
    poleward : bool
        Whether ground that faces north lies in the shade, as in the northern hemisphere.
    """
    bed = relief.bed
    steady = np.asarray(ndimage.gaussian_filter(bed, 1.0), dtype=np.float32)
    line = float(np.quantile(steady[~relief.sea], 1 - 0.62 * climate.share))
    favour = _favour(rng, steady, cell, 110 if poleward else -110)
    span = float(np.quantile(steady[~relief.sea], 0.98)) - line
    lines = line + span * np.array([0.0, 0.12, 0.25, 0.45, 0.75])
    balance = np.stack([_balance(steady, favour, each, relief) for each in lines], axis=-1)
    routes = _routes(steady, relief.downstream, cell)
    flux, _ = _route(routes, balance[..., :1] * cell, relief.bed.shape)
    filled = ndimage.gaussian_filter(steady + _thickness(flux[..., 0], steady, cell).clip(0), 1.2)
    routes = _routes(np.asarray(filled, dtype=np.float32), relief.downstream, cell)
    flux, inflow = _route(routes, balance * cell, relief.bed.shape)
    states = [_spread(bed, _thickness(inflow[..., k], filled, cell)) for k in range(len(lines))]
    left = [float((np.minimum(state, states[0]) > 0).sum()) / max(1, int((states[0] > 0).sum())) for state in states]
    late = next((k for k in range(1, len(lines)) if left[k] < 1 - wanted_loss), len(lines) - 1)
    rock = _rockfall(rng, steady, cell)[..., None]
    load, _ = _route(routes, rock, relief.bed.shape)
    return IceStates(
        early=states[0],
        late=np.minimum(states[late], states[0] - 1),
        line=float(lines[0]),
        rise=float(lines[late] - lines[0]),
        debris=np.asarray(load[..., 0] / (flux[..., late] + 0.1 * flux[..., 0] + 20), dtype=np.float32),
        favour=favour,
        basin=_basins(relief, states[0] > 0, cell),
    )


def _favour(rng: np.random.Generator, bed: FloatArray, cell: float, shaded: float) -> FloatArray:
    """How many metres higher a place lies for its snow, by shade, drift and hollows: (y, x) float32."""
    down, right = np.gradient(bed, cell)
    steep = np.hypot(down, right)
    shade = np.clip(down, -1, 1)  # rows run south: ground that falls northward faces north
    hollow = ndimage.gaussian_filter(bed, 400 / cell) - bed
    wind = rng.uniform(0, 2 * np.pi)
    lee = np.clip(np.cos(wind) * right + np.sin(wind) * down, -1, 1)
    patchy = spectral_noise(rng, (bed.shape[0], bed.shape[1]), cell, longest=2000)
    favour = (
        shaded * shade + 60 * lee + 0.5 * np.clip(hollow, -150, 250) + 40 * patchy - 250 * np.clip(steep - 0.75, 0, 1)
    )
    return np.asarray(favour, dtype=np.float32)


def _balance(bed: FloatArray, favour: FloatArray, line: float, relief: Relief) -> FloatArray:
    """Mass balance in m/a of ice; gradients of temperate glaciers (Cuffey & Paterson 2010, ch. 4)."""
    above = bed + favour - line
    balance = np.where(above > 0, np.minimum(0.005 * above, 2.5), 0.0075 * above)
    deep = np.clip(-relief.bed / 150, 0, 1)
    return np.asarray(np.where(relief.sea, -4 - CALVING * deep, balance), dtype=np.float32)


def _routes(surface: FloatArray, downstream: npt.NDArray[np.int64], cell: float) -> csr_array:
    """Sparse matrix that hands the flux of each cell on to its lower neighbours, and a share along the valley."""
    ny, nx = surface.shape
    index = np.arange(ny * nx).reshape(ny, nx)
    weights = np.zeros((len(NEIGHBOURS), ny, nx), dtype=np.float32)
    target = np.zeros((len(NEIGHBOURS), ny, nx), dtype=np.int64)
    for k, (dy, dx) in enumerate(NEIGHBOURS):
        here = (slice(max(0, -dy), ny - max(0, dy)), slice(max(0, -dx), nx - max(0, dx)))
        there = (slice(max(0, dy), ny - max(0, -dy)), slice(max(0, dx), nx - max(0, -dx)))
        drop = (surface[here] - surface[there]) / (cell * np.hypot(dy, dx))
        weights[k][here] = np.maximum(drop, 0) ** 1.5
        target[k][here] = index[there]
    total = weights.sum(axis=0).ravel()
    moving = downstream != index.ravel()  # the cells of the rim that drain the domain let the ice out
    along = np.where(total > 0, 0.15, 1.0) * moving
    shares = weights.reshape(len(NEIGHBOURS), -1) * np.where(total > 0, 0.85 / np.maximum(total, 1e-12), 0) * moving
    source = np.broadcast_to(index.ravel(), shares.shape)
    rows = np.concatenate([target.reshape(shares.shape).ravel(), downstream])
    cols = np.concatenate([source.ravel(), index.ravel()])
    values = np.concatenate([shares.ravel(), along]).astype(np.float32)
    keep = values > 1e-3
    return csr_array((values[keep], (rows[keep], cols[keep])), shape=(index.size, index.size))


def _route(routes: csr_array, source: FloatArray, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Solve flux = max(0, routes @ flux + source) by iteration: the flux, and the sum before it is cut at 0."""
    gain = source.reshape(routes.shape[0], -1)
    flux = np.maximum(gain, 0)
    total = gain
    for step in range(2 * max(shape[:2])):
        total = routes @ flux + gain
        new = np.maximum(total, 0)
        if step % 16 == 15 and np.abs(new - flux).max() < 1e-3 * new.max() + 1e-6:
            break
        flux = new
    return np.maximum(total, 0).reshape(source.shape), total.reshape(source.shape)


def _thickness(inflow: FloatArray, surface: FloatArray, cell: float) -> FloatArray:
    """Signed thickness (m) from the balance flux (m2/a) and the slope of the surface."""
    steep = np.hypot(*np.gradient(ndimage.gaussian_filter(surface, 1.5), cell)).clip(0.05)
    thickness = np.sign(inflow) * (np.abs(inflow) / (DEFORMATION * steep**3)) ** 0.2
    crest = np.clip(surface - ndimage.gaussian_filter(surface, 260 / cell), 0, 120)
    bare = 8 + 60 * np.clip(steep - 0.6, 0, 1) + 0.45 * crest  # steep walls shed their ice, wind strips the crests
    return np.asarray(thickness - bare, dtype=np.float32)


def _spread(bed: FloatArray, thickness: FloatArray) -> FloatArray:
    """Let the ice fill the width of its valley: level the surface across, keep the sign off the ice. Metres."""
    weight = np.clip(thickness, 0, 200) ** 1.5
    surface = ndimage.gaussian_filter(weight * (bed + thickness), 1.6) / (ndimage.gaussian_filter(weight, 1.6) + 1e-3)
    near = ndimage.gaussian_filter((thickness > 0).astype(np.float32), 1.6) > 0.18
    level = np.where(near, surface - bed - 8, -np.inf)
    smooth = ndimage.gaussian_filter(np.clip(thickness, -150, 400), 0.7)
    return np.asarray(np.maximum(smooth, np.minimum(level, smooth + 90)), dtype=np.float32)


def _rockfall(rng: np.random.Generator, bed: FloatArray, cell: float) -> FloatArray:
    """Rock that falls on the ice from steep walls, in patches of weak rock: (y, x) float32, relative."""
    steep = np.hypot(*np.gradient(bed, cell))
    weak = spectral_noise(rng, (bed.shape[0], bed.shape[1]), cell, longest=900, slope=2.0)
    return np.asarray(np.clip(steep - 0.7, 0, 1) * np.exp(1.2 * weak) * cell, dtype=np.float32)


def _basins(relief: Relief, ice: npt.NDArray[np.bool_], cell: float) -> npt.NDArray[np.int32]:
    """Part the ground by the snout through which its ice leaves; snouts within two cells are one. (y, x) int32."""
    target = relief.downstream
    inside = ice.ravel()
    last = np.where(inside & inside[target], target, np.arange(target.size))
    for _ in range(int(np.ceil(np.log2(target.size)))):
        last = last[last]
    ends = np.zeros(target.size, dtype=bool)
    ends[last[inside]] = True
    snouts, _ = ndimage.label(ndimage.binary_dilation(ends.reshape(ice.shape), iterations=2))
    basin = np.where(inside, snouts.ravel()[last], 0).reshape(ice.shape)
    small = np.bincount(basin.ravel()) * cell**2 < 5e4  # m2
    basin[small[basin]] = 0
    if not basin.any():
        return np.ones(ice.shape, dtype=np.int32)
    nearest = ndimage.distance_transform_edt(basin == 0, return_distances=False, return_indices=True)
    return np.asarray(basin[tuple(nearest)], dtype=np.int32)
