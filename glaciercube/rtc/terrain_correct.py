"""Raw Sentinel-1 GRD made usable: calibrated, put on the map and flattened with sarsen (the extra ``sarsen``)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.warp import Resampling, reproject

from glaciercube.errors import BandError, ConfigError, ReadError, require
from glaciercube.region import Region
from glaciercube.rtc.distortion import layover_and_shadow
from glaciercube.sensors.sentinel1 import LAYOVER, OBSERVED, POLARIZATIONS, SHADOW

__all__ = ["RtcOptions", "terrain_correct"]

# sarsen sums areas over blocks that overlap by so many pixels, and cannot do with less ground than that.
_OVERLAP: Final = 128
_CHUNK: Final = 1024

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class RtcOptions:
    """How a GRD product is terrain-corrected.

    Attributes
    ----------
    geoid_height : float or None
        Metres of the elevation model's zero above the WGS84 ellipsoid: the geoid's height at the region for heights
        above the sea (Copernicus DEM: EGM2008), 0 for heights above the ellipsoid. When None, PROJ's grid of EGM2008
        gives it, if that is installed. 50 m too many move the image by about 60 m.
    flattening : {"gamma_bilinear", "gamma_nearest"}
        sarsen's way of summing the area that each image cell sees.
    oversampling : int
        Points of the ground to a pixel of the image, along each axis. sarsen counts them in cells of three by three
        pixels, whose counts differ by one row: with 1 the power of even ground is patchy by up to 12 %, with 2 by 6 %.
    margin : float
        Metres of ground around the region that may cast layover and shadow into it.
    """

    geoid_height: float | None = None
    flattening: Literal["gamma_bilinear", "gamma_nearest"] = "gamma_bilinear"
    oversampling: int = 2
    margin: float = 3000.0

    def __post_init__(self) -> None:
        require(self.oversampling >= 1, f"oversampling {self.oversampling} is not a number of points", "give 1 or 2")
        require(self.margin >= 0, f"margin {self.margin} is not a distance", "give metres, 0 or more")
        known = self.flattening in ("gamma_bilinear", "gamma_nearest")
        require(known, f"unknown flattening {self.flattening!r}", "choose gamma_bilinear or gamma_nearest")


def terrain_correct(
    safe_folder: str | Path, dem: str | Path, region: Region, options: RtcOptions | None = None
) -> xr.Dataset:
    """Calibrate, geocode and flatten a Sentinel-1 GRD product onto a region's grid.

    Thermal noise is not subtracted: xarray-sentinel reads the azimuth noise of one sub-swath only. Whole arrays are
    held in memory, about 400 bytes for each point of the ground over the region and its margin.

    Parameters
    ----------
    safe_folder : str or Path
        The unpacked product, ``….SAFE``, with its ``manifest.safe``.
    dem : str or Path
        Raster of elevations in metres, in any CRS; it should reach beyond the region by the margin.
    region : Region
        Its geobox is the grid. Where its pixels are larger than the product's, power is averaged.
    options : RtcOptions or None
        Vertical datum, method and margin.

    Returns
    -------
    Dataset (y, x)
        ``vv vh`` or ``hh hv`` float32, gamma nought as linear power, NaN where there is no data or radar shadow;
        ``local_incidence`` float32, degrees between the line of sight and the surface's normal; ``layover_shadow``
        uint8 flags (1 observed, 2 layover, 4 shadow; 0 no data).

    Raises
    ------
    ConfigError
        If sarsen is not installed, or the geoid's height is not known.
    ReadError
        If the product or the elevation model cannot be read, or the product lies elsewhere.
    BandError
        If it is not a GRD product.
    """
    options = options or RtcOptions()
    products = _open(safe_folder)
    first = next(iter(products.values()))
    spacing = float(first.measurement.attrs["range_pixel_spacing"])
    factor = max(1, math.ceil(abs(region.geobox.resolution.x) * options.oversampling / spacing - 1e-9))
    fine = region.geobox.zoom_to((region.geobox.shape[0] * factor, region.geobox.shape[1] * factor))
    pad = max(_OVERLAP, math.ceil(options.margin / abs(fine.resolution.x)))
    ground = fine.pad(pad)
    heights = _heights(Path(dem), ground)
    known = np.isfinite(heights)
    ellipsoidal = np.where(known, heights, 0.0) + _geoid(region, options)
    raster = _raster(ellipsoidal, ground)
    geometry = _geometry(first, raster, spacing=abs(ground.resolution.x))
    geometry["observed"] = geometry["observed"] & known
    inner = np.s_[pad:-pad, pad:-pad]
    layers: dict[str, Array] = {}
    for name, product in products.items():
        layers[name] = np.where(known, _gamma(product, raster, options), np.nan)[inner]
    return _on_grid(layers, {name: values[inner] for name, values in geometry.items()}, region.geobox, factor)


def _open(safe_folder: str | Path) -> dict[str, Any]:
    """Polarisation -> product."""
    try:
        from sarsen.sentinel1 import Sentinel1SarProduct
    except ImportError as error:
        raise ConfigError("sarsen is not installed", "pip install 'glaciercube[sarsen]'") from error
    folder = Path(safe_folder)
    if not (folder / "manifest.safe").is_file():
        raise ReadError(f"{folder} holds no manifest.safe", "give the unpacked .SAFE folder of a GRD product")
    try:
        groups = Sentinel1SarProduct(str(folder)).all_measurement_groups()
        products = {group.split("/")[1].lower(): Sentinel1SarProduct(str(folder), group) for group in groups}
        kinds = {product.product_type for product in products.values()}
    except Exception as error:
        raise ReadError(f"cannot read the product {folder} ({error})", "unpack it again, whole") from error
    if kinds != {"GRD"} or not set(products) <= set(POLARIZATIONS):
        raise BandError(f"{folder.name} is not a GRD product", "give IW or EW GRD, of high or medium resolution")
    return products


def _heights(dem: Path, grid: GeoBox) -> npt.NDArray[np.float64]:
    """Elevations on a grid, NaN where unknown: (y, x)."""
    found = np.full(grid.shape, np.nan)
    try:
        with rasterio.open(dem) as source:
            reproject(
                rasterio.band(source, 1),
                found,
                dst_transform=grid.transform,
                dst_crs=str(grid.crs),
                dst_nodata=np.nan,
                resampling=Resampling.cubic,
            )
    except rasterio.errors.RasterioError as error:
        raise ReadError(f"cannot read the elevation model {dem} ({error})", "check the path") from error
    if not np.isfinite(found).any():
        raise ReadError(f"the elevation model {dem} has nothing there", "give one that covers the region")
    return found


def _geoid(region: Region, options: RtcOptions) -> float:
    """Metres from the ellipsoid up to the elevation model's zero, at the region's middle."""
    if options.geoid_height is not None:
        return options.geoid_height
    west, south, east, north = region.bbox
    middle = ((west + east) / 2.0 if west <= east else (west + east + 360.0) / 2.0, (south + north) / 2.0)
    try:
        # Heights above EGM2008 on WGS84 to ellipsoidal ones.
        up = Transformer.from_crs("EPSG:9518", "EPSG:4979", always_xy=True, allow_ballpark=False, only_best=True)
        return float(up.transform(*middle, 0.0, errcheck=True)[2])
    except ProjError as error:
        raise ConfigError(
            "the height of the geoid there is not known, and PROJ's grid of EGM2008 is not installed",
            "give geoid_height in metres, or run: projsync --file us_nga_egm08_25.tif",
        ) from error


def _raster(heights: npt.NDArray[np.float64], grid: GeoBox) -> xr.DataArray:
    """As sarsen wants it: northings ascend, with chunks none of which is shorter than their overlap."""
    raster = xr.DataArray(heights, dims=("y", "x"), coords=xr_coords(grid, dims=("y", "x")), name="dem")
    parts = {str(dim): -(-size // max(1, size // _CHUNK)) for dim, size in raster.sizes.items()}
    ascending: xr.DataArray = raster.isel(y=slice(None, None, -1)).chunk(parts)
    return ascending


def _gamma(product: Any, raster: xr.DataArray, options: RtcOptions) -> npt.NDArray[np.float64]:
    """Flattened gamma nought of one polarisation: (y, x), northings descend."""
    from sarsen.apps import do_terrain_correction

    with np.errstate(all="ignore"):
        flattened, _ = do_terrain_correction(
            product, raster, correct_radiometry=options.flattening, interp_method="linear"
        )
        power = np.asarray(flattened.compute(scheduler="synchronous").to_numpy(), dtype=np.float64)[::-1]
    return np.where(np.isfinite(power) & (power > 0), power, np.nan)


def _geometry(product: Any, raster: xr.DataArray, spacing: float) -> dict[str, npt.NDArray[Any]]:
    """Local incidence (degrees), layover and shadow, and where the image has pixels: (y, x), northings descend."""
    from sarsen import geocoding, orbit, scene

    points = scene.convert_to_dem_ecef(raster.compute())
    track = orbit.OrbitPolyfitInterpolator.from_position(product.state_vectors())
    seen = geocoding.backward_geocode(points, track)
    away = seen["dem_distance"].transpose("axis", "y", "x").to_numpy()[:, ::-1]
    normal = scene.compute_dem_oriented_area(points).transpose("axis", "y", "x").to_numpy()[:, ::-1]
    seconds = (seen["azimuth_time"].to_numpy()[::-1] - np.datetime64(track.epoch)) / np.timedelta64(1, "s")
    distance = np.linalg.norm(away, axis=0)
    cosine = -(away * normal).sum(axis=0) / (distance * np.linalg.norm(normal, axis=0))
    satellite = points.transpose("axis", "y", "x").to_numpy()[:, ::-1] - away
    height = np.linalg.norm(satellite, axis=0)
    off_nadir = np.arccos(np.clip(-(away * satellite).sum(axis=0) / (distance * height), -1.0, 1.0))
    layover, shadow = layover_and_shadow(seconds, distance, off_nadir, spacing)
    times = product.measurement["azimuth_time"].to_numpy()
    first, last = ((edge - np.datetime64(track.epoch)) / np.timedelta64(1, "s") for edge in (times[0], times[-1]))
    return {
        "local_incidence": np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))),
        "layover": layover,
        "shadow": shadow,
        "observed": (seconds >= first) & (seconds <= last),
    }


def _on_grid(layers: dict[str, Array], geometry: dict[str, npt.NDArray[Any]], grid: GeoBox, factor: int) -> xr.Dataset:
    """Average power over the pixels of the region's grid; its pixels carry every flag of what they hold."""

    def cells(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        rows, columns = grid.shape
        return values.reshape(rows, factor, columns, factor).swapaxes(1, 2).reshape(rows, columns, factor**2)

    shadow = geometry["shadow"]
    out: dict[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]] = {}
    observed = np.zeros(grid.shape, dtype=bool)
    for name in (band for band in POLARIZATIONS if band in layers):
        values = cells(np.where(shadow | ~geometry["observed"], np.nan, layers[name]))
        count = np.isfinite(values).sum(axis=-1)
        power = np.nansum(values, axis=-1) / np.maximum(count, 1)
        observed |= cells(np.isfinite(layers[name])).any(axis=-1)
        attrs = {"units": "1", "long_name": f"{name.upper()} gamma nought, linear power"}
        out[name] = (grid.dims, np.where(count > 0, power, np.nan).astype(np.float32), attrs)
    flags = observed * np.uint8(OBSERVED)
    flags |= (cells(geometry["layover"]).any(axis=-1) & observed) * np.uint8(LAYOVER)
    flags |= (cells(shadow).any(axis=-1) & observed) * np.uint8(SHADOW)
    angle = np.where(observed, cells(geometry["local_incidence"]).mean(axis=-1), np.nan).astype(np.float32)
    out["local_incidence"] = (grid.dims, angle, {"units": "degree", "long_name": "local incidence angle"})
    masks = np.array([OBSERVED, LAYOVER, SHADOW], dtype=np.uint8)
    meanings = {"flag_masks": masks, "flag_meanings": "observed layover shadow", "long_name": "radar geometry"}
    out["layover_shadow"] = (grid.dims, flags.astype(np.uint8), meanings)
    if not observed.any():
        raise ReadError("the product has no pixel on the region's grid", "give one whose swath covers the region")
    return xr.Dataset(out, coords=xr_coords(grid))
