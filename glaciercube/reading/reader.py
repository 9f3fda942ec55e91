"""The pixel reader: one cell of one file, tried again where there is sense in it, signed when it is read.

`read_cell` is all of it; `Driver` is its face to odc-loader. A read gives the file's pixels or raises `ReadError`: a
value is never made up for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import rasterio
from odc.geo.geobox import GeoBox
from odc.loader import RioDriver
from odc.loader._rio import RioReader
from odc.loader.types import RasterLoadParams, RasterSource
from rasterio._err import CPLE_BaseError
from rasterio.io import FilePath

from glaciercube.errors import ReadError
from glaciercube.reading.access import Access
from glaciercube.reading.address import Address
from glaciercube.reading.carried import Carried
from glaciercube.reading.gdal import clear, failure_of, first_line, heard
from glaciercube.reading.leaving import is_left_out
from glaciercube.reading.retry import Failure, FailureKind, ReadOptions, Turn
from glaciercube.reading.transport import Remote, RemoteFile, forget
from glaciercube.reading.warp import warp_onto
from glaciercube.reading.zarrays import warp_array

__all__ = ["Driver", "is_readable", "read_cell"]

# odc-loader hands rasterio arrays whose georeference it passes beside them; the warning would come with every block.
warnings.filterwarnings("ignore", "Dataset has no geotransform", rasterio.errors.NotGeoreferencedWarning)

# GDAL learns of Python files once in a process. `rasterio.open(opener=...)` would make it learn, and forget, a new kind
# of file with each read, while other threads look through its list of kinds: a crash now and then.
with rasterio.Env():
    pass

# What rasterio opens, or what gives it.
_File: TypeAlias = str | Callable[[], Any]

# What rasterio and GDAL raise of files that make no sense.
_UNREADABLE: Final = (rasterio.errors.RasterioError, CPLE_BaseError, ValueError, ArithmeticError)
# How often a file that ends too early is read again.
_CUT_OFF: Final = 3
_REMEDIES: Final[Mapping[FailureKind, str]] = {
    "transient": "try again later, or give more time (load: {read: {attempts: ..., budget: ...}})",
    "authorisation": "check the credentials for it, or leave its scene out",
    "permanent": "check that the file is whole and reachable, or leave its scene out",
}


def read_cell(
    uri: str,
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: npt.DTypeLike,
    nodata: float,
    band: int = 1,
    signing: str = "",
    options: ReadOptions | None = None,
) -> npt.NDArray[Any]:
    """Read one file onto one cell of the grid.

    Parameters
    ----------
    uri : str
        A path or URI, or an `Address` as a URI.
    geobox : GeoBox
        The cell.
    resampling : str
        GDAL's name of the method.
    dtype : dtype
        dtype of the pixels that are returned.
    nodata : float
        Their value where the file has no data, and everywhere if its scene is left out (`leaving_out`).
    band : int
        Which band of the file, from 1.
    signing : str
        How the file is signed; see `Access`.
    options : ReadOptions or None
        How patient.

    Returns
    -------
    ndarray (y, x)
        Stored pixels.

    Raises
    ------
    ReadError
        If it cannot be read; the error says of which scene, which band and why.
    """
    address = Address.parse(uri)
    kind = np.dtype(dtype)
    if is_left_out(address.scene) and (kind.kind == "f" or np.isfinite(nodata)):
        return np.full(geobox.shape, nodata, kind)

    def warp(file: _File) -> npt.NDArray[Any]:
        return warp_onto(file, geobox, resampling=resampling, dtype=kind, nodata=nodata, band=band)

    def warp_zarr(fetch: Callable[[str], bytes | None] | None) -> npt.NDArray[Any]:
        return warp_array(address, geobox, resampling=resampling, dtype=kind, nodata=nodata, fetch=fetch)

    turn, access = Turn(options or ReadOptions()), Access(signing)
    with Carried.nothing().applied({}, dict(address.options)):
        try:
            if address.is_zarr:
                return _from_zarr(address, access, turn, warp_zarr)
            return _read(address, access, turn, warp)
        except Failure as found:
            failure = found
    # Raised here, so that no other exception hangs on it: theirs may quote signed URLs.
    raise _error(address, failure)


def is_readable(uri: str, signing: str = "", options: ReadOptions | None = None) -> bool:
    """True if a file can be opened here and now: it is asked for, whatever is kept of it.

    Parameters
    ----------
    uri, signing, options
        As of `read_cell`.
    """
    address = Address.parse(uri)
    driver = Driver(signing, options)
    forget(address.href)

    def look(file: _File) -> npt.NDArray[Any]:
        with rasterio.open(file() if callable(file) else file, sharing=False) as source:
            return np.zeros(source.count)

    with (
        driver.restore_env(driver.capture_env(), None),
        Carried.nothing().applied({}, dict(address.options)),
    ):
        try:
            if address.is_remote and not address.is_http:
                clear(address.href)
            if address.is_zarr:
                return _has_zarr(address, Access(signing), Turn(driver.options))
            _read(address, Access(signing), Turn(driver.options), look)
        except Failure:
            return False
    return True


def _has_zarr(address: Address, access: Access, turn: Turn) -> bool:
    names = [f"{address.inner}/{name}".lstrip("/") for name in ("zarr.json", ".zarray")]
    if not address.is_http:
        return any((Path(address.href) / name).is_file() for name in names)
    parts = [replace(address, href=f"{address.href.rstrip('/')}/{name}") for name in names]
    for part in parts:
        forget(part.href)
    return any(Remote(part, access, turn).whole() is not None for part in parts)


_Warp: TypeAlias = "Callable[[_File], npt.NDArray[Any]]"


def _read(address: Address, access: Access, turn: Turn, warp: _Warp) -> npt.NDArray[Any]:
    if not address.is_http:
        return _through_gdal(address, turn, warp)
    try:
        return _over_http(address, access, turn, warp)
    except Failure as failure:
        # Bytes that GDAL cannot make sense of, or of two versions of the file: fetched anew once.
        forget(address.href)
        if failure.kind != "permanent" or not failure.garbled:
            raise
    return _over_http(address, access, turn, warp)


def _over_http(address: Address, access: Access, turn: Turn, warp: _Warp) -> npt.NDArray[Any]:
    remote = Remote(address, access, turn)
    # An empty or missing file is told from a bad one before GDAL sees it.
    remote.size()
    name = PurePosixPath(urlsplit(address.href).path).name or "file"
    reason, pixels = "", None

    try:
        # Python files cannot be read by GDAL's own threads.
        with rasterio.Env(GDAL_NUM_THREADS="1"):
            pixels = warp(lambda: _PythonFile(RemoteFile(remote), name))
    except _UNREADABLE as error:
        reason = first_line(error, name) or "it cannot be decoded"
    # Whatever GDAL made of it: a file whose bytes did not all come was not read.
    if remote.failure is not None:
        raise remote.failure
    if pixels is None:
        raise Failure(reason, "permanent", garbled=True)
    return pixels


def _from_zarr(
    address: Address,
    access: Access,
    turn: Turn,
    warp: Callable[[Callable[[str], bytes | None] | None], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    if address.is_remote and not address.is_http:
        raise Failure("Zarr stores are read from disk and over HTTP only", "permanent")
    failures: list[Failure] = []

    def fetch(key: str) -> bytes | None:
        part = replace(address, href=f"{address.href.rstrip('/')}/{key}")
        try:
            return Remote(part, access, turn).whole()
        except Failure as failure:
            failures.append(failure)
            raise

    try:
        pixels = warp(fetch if address.is_http else None)
    except Failure as failure:
        failures.append(failure)
    except Exception as error:  # noqa: BLE001 - codecs raise whatever they like on bytes that make no sense
        failures.append(Failure(f"it cannot be decoded ({type(error).__name__})", "permanent"))
    if failures:
        raise failures[0]
    return pixels


class _PythonFile(FilePath):  # type: ignore[misc]
    """A Python file that GDAL reads."""

    def __init__(self, file: RemoteFile, name: str) -> None:
        # Past rasterio's word that `opener` is to be used instead, which threads cannot.
        super(FilePath, self).__init__(file, filename=name)


def _through_gdal(address: Address, turn: Turn, warp: _Warp) -> npt.NDArray[Any]:
    failed = 0
    while True:
        with heard() as lines:
            try:
                return warp(address.href)
            except _UNREADABLE as error:
                failure = failure_of(error, address, lines)
        if failure.kind != "transient" or not address.is_remote:
            raise failure
        failed += 1
        if failure.garbled and failed > _CUT_OFF:
            # Cut off on its way, or where it is kept: the second does not heal.
            raise Failure(failure.reason, "permanent")
        turn.pause(failure, failed)
        clear(address.href)


def _error(address: Address, failure: Failure) -> ReadError:
    of = f" of scene {address.scene}" if address.scene else ""
    band = f" ({address.band})" if address.band else ""
    return ReadError(
        f"cannot read {address.shown}{band}{of} ({failure.reason})",
        f"{_REMEDIES[failure.kind]}; nothing was filled in for it",
        failure=failure.kind,
        uri=address.shown,
        scene=address.scene,
        band=address.band,
        reason=failure.reason,
    )


class _Reader(RioReader):
    def __init__(self, src: RasterSource, ctx: Any, signing: str, options: ReadOptions) -> None:
        super().__init__(src, ctx)
        self._signing, self._options = signing, options

    def read(
        self,
        cfg: RasterLoadParams,
        dst_geobox: GeoBox,
        *,
        dst: npt.NDArray[Any] | None = None,
        selection: Any = None,  # noqa: ARG002 - one band of a file is all that we ask for
    ) -> tuple[tuple[slice, slice], npt.NDArray[Any]]:
        pixels = read_cell(
            self._src.uri,
            dst_geobox,
            resampling=cfg.resampling,
            dtype=cfg.dtype or "float32",
            nodata=float("nan") if cfg.fill_value is None else cfg.fill_value,
            band=self._src.band,
            signing=self._signing,
            options=self._options,
        )
        if dst is not None:
            np.copyto(dst, pixels)
        return (slice(0, pixels.shape[0]), slice(0, pixels.shape[1])), pixels


class Driver(RioDriver):
    """Reads with `read_cell`, wherever the task runs.

    Parameters
    ----------
    signing : str
        How files are signed; see `Access`. They are signed when they are read, not when the graph is built.
    options : ReadOptions or None
        How patient.
    """

    def __init__(self, signing: str = "", options: ReadOptions | None = None) -> None:
        super().__init__()
        self.signing, self.options = signing, options or ReadOptions()

    def open(self, src: RasterSource, ctx: Any) -> RioReader:
        """Make the reader of one band of one file."""
        return _Reader(src, ctx, self.signing, self.options)

    def capture_env(self) -> dict[str, Any]:
        """GDAL's settings and the credentials as they are here, wrapped so that no text shows them."""
        return {"carried": Carried.capture(Access(self.signing).variable)}

    @contextmanager
    def restore_env(self, env: dict[str, Any], load_state: Any) -> Iterator[Any]:  # noqa: ARG002 - nothing is shared
        """Set GDAL up as it was where the graph was built, also on a remote worker."""
        carried: Carried = env.get("carried", Carried.nothing())
        with carried.applied(_defaults(self.options)):
            yield None


def _defaults(options: ReadOptions) -> dict[str, str]:
    """GDAL's settings for what it fetches itself (S3 and the like); it waits for ever by default."""
    return {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "GDAL_HTTP_CONNECTTIMEOUT": f"{max(1, round(options.connect_timeout))}",
        "GDAL_HTTP_TIMEOUT": f"{max(1, round(options.timeout))}",
        "GDAL_HTTP_MAX_RETRY": f"{min(3, options.attempts - 1)}",
        "GDAL_HTTP_RETRY_DELAY": f"{options.delay:g}",
        "GDAL_HTTP_MULTIRANGE": "YES",
        # Half a tile is not a tile.
        "GTIFF_IGNORE_READ_ERRORS": "NO",
    }
