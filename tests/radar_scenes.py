"""A small static catalogue of Sentinel-1 scenes with known pixels, for several tests."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy import ndimage

from glaciercube.region import Region
from glaciercube.simulate.items import collection
from glaciercube.simulate.passes import RadarPass
from glaciercube.simulate.radar import LOOKS
from glaciercube.simulate.stac import write_radar_scene
from glaciercube.simulate.world import WorldOptions

SIDE = 96
GRID = GeoBox((SIDE, SIDE), Affine(10, 0, 500000, 0, -10, 8700000), "EPSG:32633")
REGION = Region("radar", GRID)

Scene = tuple[RadarPass, Mapping[str, npt.NDArray[np.float32]]]


def radar_pass(day: str = "2023-07-01", hour: float = 6.0, **changes: Any) -> RadarPass:
    """A pass on a day; by default descending on orbit 37 of Sentinel-1A, IW, VV and VH."""
    when = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC) + dt.timedelta(hours=hour)
    fields: dict[str, Any] = {
        "when": when,
        "day": when.date(),
        "direction": "descending",
        "orbit": 37,
        "absolute_orbit": 49000 + int(when.timestamp()) // 6000 % 1000,
        "seed": int(when.timestamp()) % 10**6,
    }
    return RadarPass(**fields | changes)


def write_scenes(folder: Path, scenes: Sequence[Scene], grid: GeoBox = GRID) -> Path:
    """Write the scenes and their catalogue; give its path."""
    items = [write_radar_scene(view, grid, power, folder) for view, power in scenes]
    home = folder / "sentinel-1-rtc"
    for item in items:
        (home / item["id"] / f"{item['id']}.json").write_text(json.dumps(item))
    (home / "collection.json").write_text(json.dumps(collection("sentinel-1-rtc", items, WorldOptions())))
    child = {"rel": "child", "href": "./sentinel-1-rtc/collection.json", "type": "application/json"}
    path = folder / "catalog.json"
    content = {"type": "Catalog", "id": "radar", "stac_version": "1.0.0", "description": "Simulated.", "links": [child]}
    path.write_text(json.dumps(content))
    return path


def even_ground(power: float, looks: float, shape: tuple[int, int], seed: int) -> npt.NDArray[np.float32]:
    """Ground of one backscatter under speckle that no two pixels share: (y, x) float32, linear power.

    Parameters
    ----------
    power : float
        Its mean.
    looks : float
        Equivalent number of looks: squared mean over variance.
    shape : (int, int)
        Rows and columns.
    seed : int
        Of the speckle.
    """
    return (power * np.random.default_rng([seed, 43]).gamma(looks, 1 / looks, shape)).astype(np.float32)


def plant_border_noise(
    power: npt.NDArray[np.float32], *, side: int, width: int, level: float, seed: int
) -> npt.NDArray[np.float32]:
    """Cut a swath off and line its edge with noise, as products of before March 2018 have it.

    Parameters
    ----------
    power : array (y, x)
        Linear power; not changed.
    side : int
        Columns on the left that become nodata.
    width : int
        Mean width of the noise behind them, pixels; it frays by a third.
    level : float
        Mean of the noise, dB.
    seed : int
        Of the noise and of its fraying.

    Returns
    -------
    array (y, x)
        float32, NaN where there is no data.
    """
    rng = np.random.default_rng([seed, 44])
    rows, columns = power.shape
    fray = ndimage.gaussian_filter1d(rng.standard_normal(rows), 6, mode="wrap")
    reach = side + np.rint(width * (1 + fray / (3 * np.abs(fray).max()))).astype(int)
    column = np.arange(columns)[None, :]
    noise = 10 ** (level / 10) * rng.gamma(LOOKS, 1 / LOOKS, power.shape)
    lined = np.where(column < reach[:, None], noise, power)
    return np.where(column < side, np.nan, lined).astype(np.float32)
