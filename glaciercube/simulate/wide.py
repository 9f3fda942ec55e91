"""What real scenes hold and simulated landscapes lacked: debris by degrees, shapes of tongues, even ground, old snow.

`glaciercube.simulate.landscape` draws worlds whose pictures and areas are relied on; sequences for training widen them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.simulate.landscape import Landscape
from glaciercube.simulate.surface import BoolArray, FloatArray
from glaciercube.simulate.terrain import spectral_noise

__all__ = ["WideLandscape", "widen"]

FULL = 15.0  # m of ice from which on debris has its full relief


@dataclass(frozen=True, eq=False)
class WideLandscape(Landscape):
    """A landscape with relief of its debris and more kinds of snow.

    Attributes
    ----------
    hummocks : (y, x) float32
        Metres by which ice stands above its smooth surface.
    """

    hummocks: FloatArray = field(repr=False, kw_only=True)

    def elevation(self, year: float) -> FloatArray:
        """Surface of ice, water or ground of a year in metres, with the relief of its debris: (y, x) float32."""
        smooth, thickness = super().elevation(year), self.thickness(year)
        rough = smooth + self.hummocks * np.minimum(thickness / FULL, 1)
        return np.asarray(np.where(thickness > 0, np.maximum(rough, smooth - 0.7 * thickness), smooth), np.float32)

    def snow_line(self, when: dt.date) -> float:
        """Altitude in metres above which snow lies on even ground at a date; it scatters by 130 m in all."""
        scatter = np.random.default_rng([self.seed, 81, when.year]).normal(20, 90)
        return super().snow_line(when) + float(scatter)

    def _snow(self, rng: np.random.Generator, when: dt.date, ice: BoolArray, elevation: FloatArray) -> FloatArray:
        cover = super()._snow(rng, when, ice, elevation)
        kind = rng.random()
        if kind > 0.65:  # snow that lies on ground as on ice, in one sheet
            lying = elevation - self.snow_line(when) + rng.uniform(0.1, 1.0) * self.drift - rng.uniform(-60, 160)
            cover = np.where(ice, cover, np.maximum(cover, np.clip(0.5 + lying / rng.uniform(50, 150), 0, 1)))
        elif kind < 0.25:  # what is left in hollows of the ground long after the ice beside is bare
            left = elevation - self.snow_line(when) + 1.5 * self.drift - rng.uniform(-40, 200)
            cover = np.where(ice, cover, np.maximum(cover, np.clip(0.5 + left / 60, 0, 1)))
        return np.asarray(cover, dtype=np.float32)


def widen(landscape: Landscape) -> WideLandscape:
    """Give a landscape debris by degrees, the relief of its debris, and ground and ice of any roughness.

    Debris cover comes to lie farther up some glaciers, and fades over a longer way. Where it is thick the ice is
    hummocky and stands above its sides or has sunk between the ridges of old moraines. Ground is filled with talus and
    till in most landscapes, so that snow on it is as even as on ice, and some ice is broken.

    Parameters
    ----------
    landscape : Landscape
        Any.
    """
    rng = np.random.default_rng([landscape.seed, 82])
    shape, resolution = (landscape.bed.shape[0], landscape.bed.shape[1]), landscape.resolution
    load = np.clip(landscape.debris, 1e-4, 1 - 1e-4)
    degree = np.log(load / (1 - load))
    farther = rng.uniform(0, 9) if rng.uniform() < 0.5 else 0.0
    fading = float(np.exp(rng.uniform(np.log(0.25), np.log(1.2))))
    patchy = spectral_noise(rng, shape, resolution, longest=200, slope=2.0)
    sheltered = degree > -9 + 1e-3  # above the snow line none comes to light
    debris = 1 / (1 + np.exp(-fading * (degree + farther + 0.8 * patchy)))
    debris = np.where(sheltered & (landscape.debris > 2e-4), debris, landscape.debris).astype(np.float32)
    ice = landscape.thickness(landscape.years[0] - 15) > 0
    lumps = spectral_noise(rng, shape, resolution, longest=float(rng.uniform(80, 220)), slope=2.4)
    inner = np.minimum(ndimage.distance_transform_edt(ice) * resolution / 180, 1)
    bulge = rng.uniform(-14, 22) * np.sqrt(inner)
    hummocks = debris * (bulge + rng.uniform(1, 5) * lumps)
    moraines = _moraines(rng, landscape, ice, debris)
    evened = np.random.default_rng([landscape.seed, 83])
    known = {each.name: getattr(landscape, each.name) for each in fields(Landscape)}
    known |= {"debris": debris, "bed": _filled(evened, landscape, ice) + moraines}
    hummocks += _broken(evened, landscape)
    return WideLandscape(**known, hummocks=hummocks.astype(np.float32))


def _filled(rng: np.random.Generator, landscape: Landscape, ice: BoolArray) -> FloatArray:
    """Bed in metres whose relief off the ice is smoothed, by any degree up to all of what is shorter than 200 m."""
    if rng.uniform() < 0.35:
        return landscape.bed
    reach = float(np.exp(rng.uniform(np.log(20), np.log(200))))
    share: float | npt.NDArray[np.float64] = float(rng.uniform(0.3, 1.0))
    smooth = ndimage.gaussian_filter(landscape.bed, reach / landscape.resolution)
    kept = ice | landscape.sea | ~np.isnan(landscape.lake_level)
    if not kept.all() and kept.any():  # it begins beside what it must not change
        share = share * np.minimum(ndimage.distance_transform_edt(~kept) * landscape.resolution / 90, 1)
    filled = landscape.bed + np.where(kept, 0, share * (smooth - landscape.bed))
    land = ~landscape.sea & (landscape.bed > 0)
    return np.asarray(np.where(land, np.maximum(filled, 0.5), filled), dtype=np.float32)


def _broken(rng: np.random.Generator, landscape: Landscape) -> FloatArray:
    """Metres of relief of clean ice, of crevasses, waves and channels: none in half of the landscapes."""
    if rng.uniform() < 0.5:
        return np.zeros(landscape.bed.shape, dtype=np.float32)
    shape, resolution = (landscape.bed.shape[0], landscape.bed.shape[1]), landscape.resolution
    waves = spectral_noise(rng, shape, resolution, longest=float(rng.uniform(100, 400)), slope=float(rng.uniform(2, 3)))
    return np.asarray(float(rng.uniform(0.5, 5)) * waves, dtype=np.float32)


def _moraines(rng: np.random.Generator, landscape: Landscape, ice: BoolArray, debris: FloatArray) -> FloatArray:
    """Ridges that stand along what was once the side of a debris-covered tongue: metres on the bed."""
    if not ice.any() or ice.all():
        return np.zeros(ice.shape, dtype=np.float32)
    away, nearest = ndimage.distance_transform_edt(~ice, return_indices=True)
    away = away * landscape.resolution
    middle, width = rng.uniform(20, 70), rng.uniform(15, 35)
    ridge = rng.uniform(0, 30) * np.exp(-(((away - middle) / width) ** 2)) * (away > 0)
    dry = np.isnan(landscape.lake_level) & ~landscape.sea
    return np.asarray(ridge * debris[tuple(nearest)] * dry, dtype=np.float32)
