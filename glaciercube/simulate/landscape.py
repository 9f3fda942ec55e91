"""A glacierised landscape through the years: its ground, its ice, and what lies on them at a date."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.region.sun import DAYS_PER_YEAR
from glaciercube.simulate.ice import IceStates, draw_climate, grow_ice
from glaciercube.simulate.surface import LAKE, OCEAN, BoolArray, FloatArray, IntArray, Surface
from glaciercube.simulate.terrain import Relief, carve_relief, draw_style, spectral_noise

__all__ = ["Landscape", "random_landscape"]

EARLIER, LATER = 20, 5  # years before and after those asked for in which the ice is known too
LEAST_ICE = 0.03  # km2: smaller patches are left to the snow; RGI 7 keeps none below 0.01
DOMAIN = 9000.0  # m: the least extent on which glaciers are grown; smaller windows are cut from it


@dataclass(frozen=True, eq=False)
class Landscape:
    """Ground and ice of a place from 20 years before ``years[0]`` to 5 after ``years[1]``.

    Attributes
    ----------
    resolution : float
        Pixel size in metres; rows run from north to south.
    bed : (y, x) float32
        Bedrock, ground, lake bed or sea bed in metres.
    years : tuple of int
        First and last year.
    sea : (y, x) bool
        Ground below sea level, under water or under a tidewater tongue.
    early, late : (y, x) float32
        Signed ice thickness in metres of the two states between which the years lie; below 0 off the ice.
    progress : (n) float64
        Share of the way from `early` to `late` for each year from ``years[0] - 20`` to ``years[1] + 5``.
    line, rise : float
        Equilibrium line altitude (m) of `early`, and its rise to `late`.
    debris : (y, x) float32
        Cover of rock debris on what is ice, 0 to 1.
    drift : (y, x) float32
        How much higher (m) a place lies for its snow than it does in truth: shade, lee and hollows.
    lake_level : (y, x) float32
        Level (m) of the lake that fills the place once it is free of ice; NaN where there is none.
    basin : (y, x) int32
        Number of the glacier basin, from 1.
    latitude : float
        Latitude in degrees; the sign sets the season.
    seed : int
        Seed of what changes with the date.
    """

    resolution: float
    bed: FloatArray
    years: tuple[int, int]
    sea: BoolArray
    early: FloatArray = field(repr=False)
    late: FloatArray = field(repr=False)
    progress: npt.NDArray[np.float64] = field(repr=False)
    line: float
    rise: float
    debris: FloatArray = field(repr=False)
    drift: FloatArray = field(repr=False)
    lake_level: FloatArray = field(repr=False)
    basin: npt.NDArray[np.int32] = field(repr=False)
    latitude: float
    seed: int

    def passed(self, year: float) -> float:
        """Share of the way from the early to the late ice at a year, 0 to 1."""
        first = self.years[0] - EARLIER
        return float(np.interp(year, first + np.arange(len(self.progress)), self.progress))

    def thickness(self, year: float) -> FloatArray:
        """Ice thickness of a year in metres, 0 off the ice: (y, x) float32."""
        share = np.float32(self.passed(year))
        signed = self.early + share * (self.late - self.early)
        labels, count = ndimage.label(signed > 0, structure=np.ones((3, 3)))
        if count:
            large = np.bincount(labels.ravel()) * self.resolution**2 >= LEAST_ICE * 1e6
            large[0] = False
            signed = np.where(large[labels], signed, 0)
        return np.asarray(np.maximum(signed, 0), dtype=np.float32)

    def ice(self, year: float) -> BoolArray:
        """Glacier ice of a year, clean and under debris: (y, x) bool. What is once lost never comes back."""
        return np.asarray(self.thickness(year) > 0, dtype=bool)

    def lake(self, year: float) -> BoolArray:
        """Water of lakes of a year, where the ice has left their bed: (y, x) bool."""
        return np.asarray((self.bed < self.lake_level) & ~self.ice(year) & ~self.sea, dtype=bool)

    def elevation(self, year: float) -> FloatArray:
        """Surface of ice, water or ground of a year in metres, 0 on the ocean: (y, x) float32."""
        thickness = self.thickness(year)
        ice = thickness > 0
        ground = np.where(self.bed < self.lake_level, self.lake_level, self.bed)
        # A front stands above the water that it ends in: 8 m above the sea, 2 m above a lake.
        water = np.where(self.sea, 8, np.where(self.bed < self.lake_level, self.lake_level + 2, -np.inf))
        top = np.maximum(self.bed + thickness, water)
        return np.asarray(np.where(ice, top, np.where(self.sea, 0, ground)), dtype=np.float32)

    def glaciers(self, year: float) -> npt.NDArray[np.int32]:
        """Number of the glacier of each ice pixel of a year, parted at ice divides; 0 off the ice: (y, x) int32."""
        return np.where(self.ice(year), self.basin, 0).astype(np.int32)

    def snow_line(self, when: dt.date) -> float:
        """Altitude in metres above which snow lies on even ground at a date.

        It peaks at the start of September (of March in the south) at the year's equilibrium line, which scatters by
        90 m about its trend, and sinks as the cosine of the season.
        """
        scatter = np.random.default_rng([self.seed, 1, when.year]).normal(0, 90)
        peak = 244 if self.latitude >= 0 else 62
        season = np.cos(2 * np.pi * (when.timetuple().tm_yday - peak) / DAYS_PER_YEAR)
        return float(self.line + self.rise * self.passed(when.year) + scatter - 700 * (1 - season))

    def surface(self, when: dt.date) -> Surface:
        """State of the ground at a date.

        The ice is that of the year; snow, and the sediment in the water, are those of the day.

        Parameters
        ----------
        when : datetime.date
            The date.
        """
        rng = np.random.default_rng([self.seed, 2, when.toordinal()])
        ice, elevation = self.ice(when.year), self.elevation(when.year)
        ocean, lake = self.sea & ~ice, self.lake(when.year)
        water: IntArray = np.where(ocean, OCEAN, np.where(lake, LAKE, 0)).astype(np.uint8)
        snow = np.where(water > 0, 0, self._snow(rng, when, ice, elevation))
        return Surface(
            resolution=self.resolution,
            elevation=elevation,
            ice=ice,
            debris=np.where(ice, self.debris * (1 - snow), 0).astype(np.float32),
            snow=snow.astype(np.float32),
            water=water,
            turbidity=self._turbidity(rng, ice, water),
        )

    def _snow(self, rng: np.random.Generator, when: dt.date, ice: BoolArray, elevation: FloatArray) -> FloatArray:
        """Cover of snow, 0 to 1: (y, x) float32. Patches off the ice, a snow line on it, now and then a fresh fall."""
        above = elevation - self.snow_line(when)
        patches = above + 1.3 * self.drift - rng.uniform(80, 350)
        cover = np.where(ice, 0.5 + (above + 0.5 * self.drift) / 90, 0.5 + patches / 70)
        if rng.random() < 0.12:
            fresh = (above + rng.uniform(150, 700) + 0.3 * self.drift) / 120
            cover = np.maximum(cover, np.minimum(fresh, rng.uniform(0.4, 1.0)))
        return np.asarray(np.clip(cover, 0, 1), dtype=np.float32)

    def _turbidity(self, rng: np.random.Generator, ice: BoolArray, water: IntArray) -> FloatArray:
        """Sediment in the water, most beside the ice: (y, x) float32, 0 clear to 1 milky."""
        turbid = np.zeros(ice.shape, dtype=np.float32)
        if not (water > 0).any():
            return turbid
        away = ndimage.distance_transform_edt(~ice) * self.resolution if ice.any() else np.full(ice.shape, 1e5)
        labels, count = ndimage.label(water == LAKE)
        if count:
            nearest = ndimage.minimum(away, labels, np.arange(count + 1))
            milky = np.where(nearest < 400, rng.uniform(0.45, 1.0, count + 1), rng.uniform(0.0, 0.35, count + 1))
            turbid = np.asarray(milky[labels], dtype=np.float32)
        plume = rng.uniform(0.3, 0.9) * np.exp(-away / rng.uniform(300, 900)) + rng.uniform(0.02, 0.15)
        return np.asarray(np.where(water == OCEAN, plume, np.where(water == LAKE, turbid, 0)), dtype=np.float32)


def random_landscape(
    seed: int,
    shape: tuple[int, int],
    resolution: float,
    *,
    years: tuple[int, int] = (2015, 2025),
    ocean: bool | None = None,
    latitude: float = 60.0,
    lakes: float = 1.0,
    dirt: float | None = None,
) -> Landscape:
    """Draw a glacierised landscape.

    The relief and the ice are made on a coarse grid of at least 9 km, from which a window is cut.

    Parameters
    ----------
    seed : int
        The same seed gives the same landscape.
    shape : tuple of int
        Rows and columns.
    resolution : float
        Pixel size in metres.
    years : tuple of int
        First and last year.
    ocean : bool, optional
        With a coast or without; drawn (one in four has one) if not given.
    latitude : float
        Latitude in degrees; the sign sets the season and which slopes lie in the shade.
    lakes : float
        How many times as many lakes as usual.
    dirt : float, optional
        How much of the rock that falls on the ice shows at its surface, 0 to 1; drawn if not given.
    """
    rng = np.random.default_rng([seed, 0])
    coast = bool(rng.random() < 0.25) if ocean is None else ocean
    extent = max(DOMAIN, 1.12 * max(shape) * resolution)
    cell = max(90.0, extent / 140)
    coarse = (round(extent / cell), round(extent / cell))
    style, climate = draw_style(rng, ocean=coast), draw_climate(rng, ocean=coast)
    relief = carve_relief(rng, coarse, cell, style, ocean=coast)
    decades = (years[1] - years[0] + EARLIER + LATER) / 10
    states = grow_ice(rng, relief, cell, climate, wanted_loss=1 - (1 - climate.loss) ** decades, poleward=latitude >= 0)
    progress = _progress(rng, states, years, climate.loss)
    window = _Window(shape, resolution, cell, _corner(rng, relief, states, shape, resolution / cell))
    draft = _Draft(relief, states, progress, style.roughness, climate.debris if dirt is None else dirt, lakes)
    return Landscape(
        resolution=resolution,
        years=years,
        progress=progress,
        line=states.line,
        rise=states.rise,
        basin=window.cut(states.basin, order=0).astype(np.int32),
        latitude=latitude,
        seed=seed,
        **_refine(rng, window, draft),
    )


@dataclass(frozen=True)
class _Window:
    """A fine grid within the coarse one."""

    shape: tuple[int, int]
    resolution: float
    cell: float
    corner: tuple[float, float]  # in coarse cells

    def cut(self, coarse: npt.NDArray[np.generic], order: Literal[0, 1, 3] = 3) -> FloatArray:
        """Interpolate a coarse field to the window: (y, x) float32."""
        ratio = self.resolution / self.cell
        offset = [edge + 0.5 * ratio - 0.5 for edge in self.corner]
        matrix, source = np.array([ratio, ratio]), np.asarray(coarse, dtype=np.float32)
        fine = ndimage.affine_transform(source, matrix, np.array(offset), self.shape, None, order, "nearest")
        return np.asarray(fine, dtype=np.float32)


@dataclass(frozen=True)
class _Draft:
    """What is known on the coarse grid; roughness in metres, dirt 0 to 1, lakes as a multiple."""

    relief: Relief
    states: IceStates
    progress: npt.NDArray[np.float64]
    roughness: float
    dirt: float
    lakes: float


def _progress(
    rng: np.random.Generator, states: IceStates, years: tuple[int, int], loss: float
) -> npt.NDArray[np.float64]:
    """Share of the way from early to late per year, so that the area shrinks by `loss` per decade, unevenly."""
    count = years[1] - years[0] + EARLIER + LATER + 1
    steps = rng.gamma(3.0, 1 / 3.0, count - 1)
    time = np.concatenate([[0], np.cumsum(steps)]) * (count - 1) / steps.sum()
    left = (1 - loss) ** (time / 10)
    glacier = states.early > 0
    vanish = states.early[glacier] / (states.early[glacier] - states.late[glacier])
    return np.clip(np.quantile(vanish, 1 - left), 0, 1) if glacier.any() else np.linspace(0, 1, count)


def _corner(
    rng: np.random.Generator, relief: Relief, states: IceStates, shape: tuple[int, int], ratio: float
) -> tuple[float, float]:
    """Choose a window that holds some ice and some ground, and on a coast often some sea. In coarse cells."""
    size = [n * ratio for n in shape]
    room = [n - s for n, s in zip(relief.bed.shape, size, strict=True)]
    if max(size) > 0.8 * max(relief.bed.shape):
        return room[0] / 2, room[1] / 2
    glacier = states.early + 0.5 * (states.late - states.early) > 0
    wanted, wet = rng.uniform(0.1, 0.7), rng.uniform(0.05, 0.4) if rng.random() < 0.85 else 0.0
    best, corner = np.inf, (0.0, 0.0)
    for trial in rng.uniform(0, 1, (40, 2)):
        edge = (float(trial[0] * room[0]), float(trial[1] * room[1]))
        part = tuple(slice(int(e), int(e + s) + 1) for e, s in zip(edge, size, strict=True))
        icy, sea = float(glacier[part].mean()), float(relief.sea[part].mean())
        miss = abs(icy - wanted) + (abs(sea - wet) - 0.3 * (min(icy, sea) > 0.03) if relief.sea.any() else 0)
        if miss < best:
            best, corner = miss, edge
    return corner


def _refine(rng: np.random.Generator, window: _Window, draft: _Draft) -> dict[str, Any]:
    """Bring the coarse relief and ice to the window's resolution, with detail of their own: fields of `Landscape`."""
    relief, states = draft.relief, draft.states
    smooth = window.cut(relief.bed)
    steep = np.hypot(*np.gradient(smooth, window.resolution))
    fine = spectral_noise(rng, window.shape, window.resolution, longest=180, slope=3.2)
    detail = draft.roughness * (0.25 + steep) * fine
    bed = smooth + detail
    sea = (window.cut(relief.sea, order=1) > 0.02) & (bed < 0)
    if relief.sea.any():
        bed = np.where(sea, bed, np.maximum(bed, 0.5))
    level, depth = _lakes(rng, window, smooth, draft)
    depth[sea] = 0
    early = window.cut(states.early) - 0.7 * detail + depth
    late = window.cut(states.late) - 0.7 * detail + depth
    hollow = np.clip(ndimage.gaussian_filter(bed, 120 / window.resolution) - bed, -60, 60)
    wavy = spectral_noise(rng, window.shape, window.resolution, longest=500, slope=2.6)
    drift = window.cut(states.favour) + 60 * wavy + 2.5 * hollow
    fields = {"bed": bed - depth, "early": early, "late": np.minimum(late, early - 0.5), "drift": drift}
    return {
        **{name: value.astype(np.float32) for name, value in fields.items()},
        "sea": sea,
        "debris": _debris(rng, window, draft, smooth),
        "lake_level": level,
    }


def _debris(rng: np.random.Generator, window: _Window, draft: _Draft, smooth: FloatArray) -> FloatArray:
    """Cover of debris on the ice, 0 to 1: (y, x) float32; most near the snouts and in stripes down the flow."""
    states, dirt = draft.states, draft.dirt
    if dirt <= 0 or not (states.early > 0).any():
        return np.zeros(window.shape, dtype=np.float32)
    load = np.log10(states.debris + 1e-4)
    least = float(np.quantile(load[states.early > 0], 1 - 0.45 * dirt))
    speckle = spectral_noise(rng, window.shape, window.resolution, longest=250, slope=2.2)
    cover = 1 / (1 + np.exp(-(window.cut(load, order=1) - least + 0.12 * speckle) / 0.1))
    low = 1 / (1 + np.exp((smooth - states.line - 0.5 * states.rise) / 40))
    return np.asarray(cover * low, dtype=np.float32)


def _lakes(
    rng: np.random.Generator, window: _Window, smooth: FloatArray, draft: _Draft
) -> tuple[FloatArray, FloatArray]:
    """Dig basins where large tongues end, and a few tarns: level (m, NaN where none) and depth dug (m)."""
    states, progress = draft.states, draft.progress
    level = np.full(window.shape, np.nan, dtype=np.float32)
    depth = np.zeros(window.shape, dtype=np.float32)
    thickness, late = window.cut(states.early, order=1), window.cut(states.late, order=1)
    steep = np.hypot(*np.gradient(smooth, window.resolution))
    vanish = np.where(thickness > 0, thickness / (thickness - late).clip(1e-3), 9)
    snout = (vanish > progress[EARLIER // 2]) & (vanish < progress[-1] + 0.05) & (steep < 0.3)
    tarn = (thickness < -30) & (steep < 0.2)
    area = window.shape[0] * window.shape[1] * window.resolution**2 / 1e6
    y, x = np.mgrid[: window.shape[0], : window.shape[1]]
    rough = np.exp(0.3 * spectral_noise(rng, window.shape, window.resolution, longest=300))
    for places, rate, largest in ((snout, 0.12, 420), (tarn, 0.05, 160)):
        candidates = np.flatnonzero(places & (smooth > 5))  # not in the sea
        for _ in range(min(rng.poisson((0.4 + rate * area) * draft.lakes), 12) if candidates.size else 0):
            row, col = np.unravel_index(int(rng.choice(candidates)), window.shape)
            radius, stretch, turn = rng.uniform(60, largest), rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
            along = (np.cos(turn) * (x - col) + np.sin(turn) * (y - row)) * window.resolution
            across = (-np.sin(turn) * (x - col) + np.cos(turn) * (y - row)) * window.resolution / stretch
            bowl = np.clip(1 - (np.hypot(along, across) / radius * rough) ** 2, 0, None)
            inside = (bowl > 0) & (smooth < smooth[row, col] + 0.25 * radius) & np.isnan(level)
            depth = np.where(inside, np.maximum(depth, smooth - smooth[row, col] + bowl * radius * 0.1), depth)
            level = np.where(inside, smooth[row, col], level)
    return level.astype(np.float32), np.maximum(depth, 0).astype(np.float32)
