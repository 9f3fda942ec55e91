"""One training or calibration sample: a place at a date, as every sensor sees it, with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from glaciercube.simulate.acquisition import YEARS, draw_beyond_edge, draw_cover, draw_place_and_day, draw_sun
from glaciercube.simulate.clouds import add_clouds
from glaciercube.simulate.dem import stale_dem
from glaciercube.simulate.ground import SURFACE_CLASSES, surface_class
from glaciercube.simulate.landscape import random_landscape
from glaciercube.simulate.optical import render_optical
from glaciercube.simulate.radar import render_radar
from glaciercube.simulate.spectra import BANDS, Level

__all__ = ["SceneOptions", "draw_scene"]


@dataclass(frozen=True)
class SceneOptions:
    """What to hold fixed when a scene is drawn; None means drawn.

    Attributes
    ----------
    size : int
        Rows and columns.
    resolution : float or None
        Pixel size in metres; drawn from 10 to 30 (log-uniform) if None.
    level : {"boa", "toa"} or None
        Level of the reflectance; a third are "toa" if None.
    cloud_cover : float or None
        Share of the scene under cloud; if None, none in half of the scenes and up to 0.5 in the rest.
    stale : float or None
        Age of the elevation model in years; drawn from 0 to 15 if None.
    gaps : bool
        Whether some scenes have pixels without data (swath edge).
    """

    size: int = 128
    resolution: float | None = None
    level: Level | None = None
    cloud_cover: float | None = None
    stale: float | None = None
    gaps: bool = True


def draw_scene(seed: int, options: SceneOptions | None = None) -> xr.Dataset:
    """Draw a simulated scene: inputs as a user would have them, and the truth.

    Parameters
    ----------
    seed : int
        The same seed and options give the same scene.
    options : SceneOptions, optional
        What to hold fixed.

    Returns
    -------
    xarray.Dataset
        Dimensions (y, x), coordinates in metres (y falls). Inputs: `blue green red nir swir16 swir22` float32
        reflectance (NaN: no data), `scl` uint8 (0: no data), `vv vh` float32 linear gamma nought (NaN: no data),
        `elevation` float32 metres, an elevation model `stale` years older than the image that keeps the surface of
        ice since lost. Truth: `glacier` bool (clean, debris- and snow-covered glacier ice, no seasonal snow off
        it), `surface_class` uint8 (`flag_meanings`), `cloud`, `cloud_shadow`, `cast_shadow` bool. Attributes:
        `sun_azimuth`, `sun_elevation` (degrees), `level`, `resolution` (metres), `seed`, `date`, `latitude`, `orbit`,
        `dem_year`.
    """
    options = options or SceneOptions()
    rng = np.random.default_rng([seed, 1])
    resolution = options.resolution or float(np.exp(rng.uniform(np.log(10), np.log(30))))
    latitude, when = draw_place_and_day(rng)
    sun = draw_sun(rng, latitude, when)
    toa = rng.uniform() < 1 / 3
    level: Level = options.level or ("toa" if toa else "boa")
    shape = (options.size, options.size)
    landscape = random_landscape(seed, shape, resolution, years=YEARS, latitude=latitude)
    surface = landscape.surface(when)
    optical = render_optical(surface, sun_azimuth=sun[0], sun_elevation=sun[1], level=level, seed=seed)
    cover = draw_cover(rng) if options.cloud_cover is None else options.cloud_cover
    scene = add_clouds(optical, cover=cover, sun_azimuth=sun[0], sun_elevation=sun[1], level=level, seed=seed)
    radar = render_radar(surface, orbit="ascending" if rng.uniform() < 0.5 else "descending", seed=seed)
    age = float(rng.uniform(0, 15)) if options.stale is None else options.stale
    elevation = stale_dem(landscape, when.year - age, rng) + np.float32(rng.normal(0, 2))
    truth = {"glacier": surface.ice, "surface_class": surface_class(surface), "elevation": elevation}
    scene = scene.assign({name: (("y", "x"), value) for name, value in truth.items()})
    scene = scene.assign(vv=radar["vv"], vh=radar["vh"])
    if options.gaps:
        scene = _with_gaps(rng, scene)
    scene.attrs = {
        "sun_azimuth": sun[0],
        "sun_elevation": sun[1],
        "level": level,
        "resolution": resolution,
        "seed": seed,
        "date": when.isoformat(),
        "latitude": latitude,
        "orbit": radar.attrs["orbit"],
        "dem_year": when.year - age,
    }
    return _described(scene, resolution)


def _with_gaps(rng: np.random.Generator, scene: xr.Dataset) -> xr.Dataset:
    """Cut the optical bands off in one scene of eight, and the radar's in one of twelve."""
    shape = scene["scl"].shape
    if rng.uniform() < 1 / 8:
        keep = xr.DataArray(~draw_beyond_edge(rng, shape), dims=("y", "x"))
        scene = scene.assign({name: scene[name].where(keep) for name in BANDS}).assign(scl=scene["scl"] * keep)
        scene["scl"] = scene["scl"].astype(np.uint8)
    if rng.uniform() < 1 / 12:
        keep = xr.DataArray(~draw_beyond_edge(rng, shape), dims=("y", "x"))
        scene = scene.assign({name: scene[name].where(keep) for name in ("vv", "vh")})
    return scene


def _described(scene: xr.Dataset, resolution: float) -> xr.Dataset:
    """Add coordinates and the meaning of the flags."""
    rows, cols = scene["scl"].shape
    y = (rows - np.arange(rows) - 0.5) * resolution
    x = (np.arange(cols) + 0.5) * resolution
    scene = scene.assign_coords(y=("y", y, {"units": "m"}), x=("x", x, {"units": "m"}))
    scene["elevation"].attrs["units"] = "m"
    scene["surface_class"].attrs = {
        "flag_values": np.arange(len(SURFACE_CLASSES), dtype=np.uint8),
        "flag_meanings": " ".join(SURFACE_CLASSES),
    }
    return scene
