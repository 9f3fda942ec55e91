"""A simulated place: its grid, its landscape, and the glacier areas that are known to be true."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer
from scipy import ndimage

from glaciercube.errors import ConfigError
from glaciercube.region import Region, choose_crs
from glaciercube.simulate.landscape import Landscape, random_landscape

if TYPE_CHECKING:
    import geopandas as gpd

__all__ = ["World", "WorldOptions", "simulate_world"]

FINEST = 10.0  # m: pixels of Sentinel-2's visible bands
MARGIN = 320.0  # m of ground on every side of the region that the scenes show too
ANCHOR = 60.0  # m: Sentinel-2's grids of 10, 20 and 60 m have one origin
LEAST_OUTLINE = 0.05  # km2: smaller pieces join a glacier that they touch


@dataclass(frozen=True)
class WorldOptions:
    """What to simulate; all plain values.

    Attributes
    ----------
    seed : int
        The same seed gives the same world. The default is a coast with valley glaciers that lose a quarter of their
        ice in seven years.
    size : int
        Pixels a side of the region's grid.
    resolution : float
        Its pixel size in metres, a multiple of 10.
    years : tuple of int
        Years with images, in order.
    dates_per_year : int
        Sentinel-2 dates a year, late in summer; the clearest of each year is nearly free of cloud.
    cloud : float
        Mean cloud cover of the other dates, 0 to 1.
    longitude, latitude : float
        Middle of the region in degrees, anywhere but within a degree of a pole. By default it straddles the edges of
        four tiles of the elevation model, and so 60 N, where their spacing in longitude changes.
    ocean : bool or None
        With a coast or without; drawn if None.
    dem_year : int
        Year of the elevation model, from 20 years before the first year on.
    false_cloud : float
        Share of the ice, 0 to 1, that the classification calls cloud on every date, where it is bright.
    percentages : bool
        Whether L2A scenes have cloud and snow probabilities too.
    two_zones : bool
        Whether the eastern Sentinel-2 granule lies in the neighbouring UTM zone, as where two zones meet.
    """

    seed: int = 7090
    size: int = 256
    resolution: float = 20.0
    years: tuple[int, ...] = (2018, 2019, 2020, 2021, 2022, 2023, 2024)
    dates_per_year: int = 3
    cloud: float = 0.35
    longitude: float = -147.0
    latitude: float = 60.0
    ocean: bool | None = None
    dem_year: int = 2013
    false_cloud: float = 0.0
    percentages: bool = False
    two_zones: bool = False

    def __post_init__(self) -> None:
        years = tuple(int(year) for year in self.years)
        object.__setattr__(self, "years", years)  # a config file gives a list
        checks = (
            (self.size >= 16, f"size {self.size} is too small", "give 16 pixels or more"),
            (
                self.resolution >= FINEST and self.resolution % FINEST == 0,
                f"resolution {self.resolution} m is not a multiple of 10 m",
                "give 10, 20 or 30",
            ),
            (
                bool(years) and list(years) == sorted(set(years)),
                f"years {years} are not in order",
                "list each year once",
            ),
            (1 <= self.dates_per_year <= 12, f"dates_per_year {self.dates_per_year} is out of range", "give 1 to 12"),
            (0 <= self.cloud <= 1, f"cloud {self.cloud} is not a share", "give 0 to 1"),
            (0 <= self.false_cloud <= 1, f"false_cloud {self.false_cloud} is not a share", "give 0 to 1"),
            (abs(self.latitude) <= 89, f"latitude {self.latitude} is too near a pole", "give at most 89 degrees"),
            (abs(self.longitude) <= 180, f"longitude {self.longitude} is none", "give -180 to 180"),
        )
        for fine, problem, remedy in checks:
            if not fine:
                raise ConfigError(f"simulated world: {problem}", remedy)
        if not years[0] - 20 <= self.dem_year <= years[-1]:
            raise ConfigError(
                f"simulated world: the elevation model of {self.dem_year} is out of range",
                f"give dem_year {years[0] - 20} to {years[-1]}",
            )


@dataclass(frozen=True, eq=False)
class World:
    """A simulated place and its truth.

    Attributes
    ----------
    options : WorldOptions
        What it was made from.
    region : glaciercube.region.Region
        Name, grid, and the glacier outlines of the first year.
    ground : odc.geo.geobox.GeoBox
        Grid of `landscape`, 10 m, wider than the region by 320 m on every side.
    landscape : Landscape
        Ground and ice.
    truth : xarray.Dataset
        ``ice (year, y, x)`` bool on the region's grid: at least half of the pixel is glacier ice.
    outlines : geopandas.GeoDataFrame
        Glaciers of the first year: ``outline`` (str), ``area_km2`` (km2), geometry in the region's CRS.
    """

    options: WorldOptions
    region: Region
    ground: GeoBox = field(repr=False)
    landscape: Landscape = field(repr=False)
    truth: xr.Dataset = field(repr=False)
    outlines: gpd.GeoDataFrame = field(repr=False)
    labels: npt.NDArray[np.int32] = field(repr=False)

    def true_area(self) -> pd.DataFrame:
        """Ice area per outline and year, counted in the truth.

        Returns
        -------
        pandas.DataFrame
            Columns ``outline`` (str), ``year`` (int), ``area_km2`` (float, km2).
        """
        names = list(self.outlines["outline"])
        pixel = self.options.resolution**2 / 1e6
        frames = []
        for year in self.options.years:
            ice = self.truth["ice"].sel(year=year).to_numpy()
            counts = np.bincount(self.labels[ice], minlength=len(names) + 1)[1:]
            frames.append(pd.DataFrame({"outline": names, "year": year, "area_km2": counts * pixel}))
        return pd.concat(frames, ignore_index=True).sort_values(["outline", "year"], ignore_index=True)


def simulate_world(options: WorldOptions) -> World:
    """Simulate a glacierised place.

    Parameters
    ----------
    options : WorldOptions
        What to simulate.
    """
    grid, ground = _grids(options)
    landscape = random_landscape(
        options.seed,
        (ground.shape[0], ground.shape[1]),
        FINEST,
        years=(options.years[0], options.years[-1]),
        ocean=options.ocean,
        latitude=options.latitude,
    )
    blocks = _Blocks(grid.shape[0], round(options.resolution / FINEST), round(MARGIN / FINEST))
    ice = np.stack([blocks.share(landscape.ice(year)) >= 0.5 for year in options.years])
    coords = {"year": list(options.years), **xr_coords(grid)}
    truth = xr.Dataset({"ice": (("year", *grid.dims), ice)}, coords=coords)
    truth["ice"].attrs.update(long_name="glacier ice, clean or under debris", grid_mapping="spatial_ref")
    labels = _join_slivers(blocks.greatest(landscape.glaciers(options.years[0])), ice[0], options.resolution)
    labels, outlines = _outline(labels, grid, options.resolution)
    region = Region("simulated", grid, outlines)
    return World(options, region, ground, landscape, truth, outlines, labels)


@dataclass(frozen=True)
class _Blocks:
    """Pixels of the region's grid as blocks of the ground's."""

    size: int
    factor: int
    margin: int

    def _split(self, fine: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        inner = fine[
            self.margin : self.margin + self.size * self.factor, self.margin : self.margin + self.size * self.factor
        ]
        return inner.reshape(self.size, self.factor, self.size, self.factor)

    def share(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Share of each block that is True."""
        return np.asarray(self._split(mask).mean(axis=(1, 3)), dtype=np.float64)

    def greatest(self, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Greatest label of each block: a pixel that is half ice has one."""
        return np.asarray(self._split(labels).max(axis=(1, 3)), dtype=np.int32)


def _grids(options: WorldOptions) -> tuple[GeoBox, GeoBox]:
    """Grid of the region, and that of the ground around it."""
    place = (options.longitude, options.latitude)
    crs = choose_crs((*place, *place))
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*place)
    half = options.size * options.resolution / 2
    left, top = (round(edge / ANCHOR) * ANCHOR for edge in (x - half, y + half))
    grid = GeoBox((options.size, options.size), Affine(options.resolution, 0, left, 0, -options.resolution, top), crs)
    count = round((2 * half + 2 * MARGIN) / FINEST)
    count += count % 2  # whole pixels of 20 m
    return grid, GeoBox((count, count), Affine(FINEST, 0, left - MARGIN, 0, -FINEST, top + MARGIN), crs)


def _join_slivers(
    labels: npt.NDArray[np.int32], ice: npt.NDArray[np.bool_], resolution: float
) -> npt.NDArray[np.int32]:
    """Give pieces under 0.05 km2 to the glacier that they touch most; those that touch none stay. (y, x) int32."""
    labels = np.where(ice, labels, 0)
    around = np.ones((3, 3), dtype=bool)
    parts, count = ndimage.label(labels > 0, structure=around)
    for part in range(1, count + 1):
        inside = parts == part
        for label in np.unique(labels[inside]):
            piece = inside & (labels == label)
            if piece.sum() * resolution**2 >= LEAST_OUTLINE * 1e6:
                continue
            touched = labels[ndimage.binary_dilation(piece, around) & inside & ~piece]
            if touched.size:
                labels[piece] = np.bincount(touched).argmax()
    return labels.astype(np.int32)


def _outline(
    labels: npt.NDArray[np.int32], grid: GeoBox, resolution: float
) -> tuple[npt.NDArray[np.int32], gpd.GeoDataFrame]:
    """Number the glaciers from the largest, and draw them: labels (y, x) and outlines."""
    import geopandas as gpd
    from rasterio.features import shapes
    from shapely.geometry import shape

    counts = np.bincount(labels.ravel())
    counts[0] = 0
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    number = np.zeros(counts.size, dtype=np.int32)
    number[order] = np.arange(1, order.size + 1)
    labels = number[labels]
    drawn = [
        (f"SIM-{int(value):05d}", shape(polygon)) for polygon, value in shapes(labels, labels > 0, 4, grid.transform)
    ]
    frame = gpd.GeoDataFrame(drawn, columns=["outline", "geometry"], geometry="geometry", crs=str(grid.crs))
    frame = frame.dissolve(by="outline", as_index=False) if len(frame) else frame
    frame.insert(1, "area_km2", counts[order] * resolution**2 / 1e6)
    return labels, frame
