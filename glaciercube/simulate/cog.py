"""Cloud-optimised GeoTIFFs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine

__all__ = ["write_cog"]


def write_cog(
    path: Path,
    pixels: npt.NDArray[np.generic],
    transform: Affine,
    crs: str,
    *,
    nodata: float | None = None,
    categorical: bool = False,
) -> None:
    """Write one band as a cloud-optimised GeoTIFF: DEFLATE, blocks of 512, overviews down to one block.

    Parameters
    ----------
    path : pathlib.Path
        File; its folder is made.
    pixels : (y, x) array
        The band.
    transform : affine.Affine
        From pixels to the CRS.
    crs : str
        Such as ``"EPSG:32606"``.
    nodata : float, optional
        Value that means no data. Blocks that hold nothing but it, or nothing but 0 without it, take no space.
    categorical : bool
        Whether overviews take the commonest class, and not the mean.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {
        "driver": "COG",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": 1,
        "dtype": pixels.dtype.name,
        "crs": crs,
        "transform": transform,
        "nodata": nodata,
        "compress": "DEFLATE",
        "level": 1,  # speed: these files live for a test or a demonstration
        "predictor": "YES",
        "blocksize": 512,
        "overview_resampling": "MODE" if categorical else "AVERAGE",
        "sparse_ok": True,
    }
    try:
        with rasterio.open(path, "w", **profile) as target:
            target.write(pixels, 1)
    except Exception as error:  # rasterio lets GDAL's own exceptions through, which have no public base
        raise OSError(f"{path.name}: {error}") from error
