"""The pixel reader: odc-loader's rasterio driver with time-outs, retries and errors that name the file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from odc.loader._rio import RioReader
from odc.loader.types import RasterLoadParams, RasterSource

from glaciercube.catalog.scenes import without_secrets
from glaciercube.cube.warp import warp_onto
from glaciercube.errors import ReadError

__all__ = ["GDAL_SETTINGS", "Driver"]

# odc-loader hands rasterio arrays whose georeference it passes beside them; the warning would come with every block.
warnings.filterwarnings("ignore", "Dataset has no geotransform", rasterio.errors.NotGeoreferencedWarning)

# GDAL waits for ever by default; a stalled server must not hold a run.
GDAL_SETTINGS: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_MULTIRANGE": "YES",
}


class _Reader(RioReader):
    def read(
        self,
        cfg: RasterLoadParams,
        dst_geobox: GeoBox,
        *,
        dst: np.ndarray[Any, Any] | None = None,
        selection: Any = None,  # noqa: ARG002 - one band of a file is all that we ask for
    ) -> tuple[tuple[slice, slice], np.ndarray[Any, Any]]:
        try:
            pixels = warp_onto(
                self._src.uri,
                dst_geobox,
                resampling=cfg.resampling,
                dtype=cfg.dtype or "float32",
                nodata=float("nan") if cfg.fill_value is None else cfg.fill_value,
                band=self._src.band,
            )
        except rasterio.errors.RasterioError as error:
            uri = without_secrets(str(self._src.uri))
            reason = without_secrets(str(error.__cause__ or error)).splitlines()[0].replace(str(self._src.uri), "it")
            raise ReadError(
                f"cannot read {uri} ({reason})",
                "check that the file is whole and reachable, or leave its scene out; nothing was filled in for it",
            ) from None
        if dst is not None:
            np.copyto(dst, pixels)
        return (slice(0, pixels.shape[0]), slice(0, pixels.shape[1])), pixels


class Driver(RioDriver):
    """Reads rasters with rasterio; a failed read raises `ReadError` and is never filled with a value."""

    def open(self, src: RasterSource, ctx: Any) -> RioReader:
        """Make the reader of one band of one file."""
        return _Reader(src, ctx)

    @contextmanager
    def restore_env(self, env: dict[str, Any], load_state: Any) -> Iterator[Any]:
        """Set GDAL up where the read happens, also on a remote worker; the user's own settings win."""
        with super().restore_env({**GDAL_SETTINGS, **env}, load_state) as context:
            yield context
