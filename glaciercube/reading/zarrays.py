"""Bands that are arrays of a Zarr store, as the Copernicus Data Space publishes Sentinel-2: read with zarr itself.

GDAL reads no Zarr of version 3, and takes a chunk that a server refuses for one that was never written, whose pixels
are "no data". Here only a 404 means that; every other failure ends the read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.warp
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.geo.roi import roi_is_empty
from rasterio.enums import Resampling
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from glaciercube.reading.address import Address
from glaciercube.reading.retry import Failure

__all__ = ["warp_array"]

# Source pixels around what the cell covers: more than the widest kernel of `Resampling` reaches at that scale.
_MARGIN = 8

Fetch = Callable[[str], bytes | None]


def warp_array(
    address: Address,
    geobox: GeoBox,
    *,
    resampling: str,
    dtype: npt.DTypeLike,
    nodata: float,
    fetch: Fetch | None = None,
) -> npt.NDArray[Any]:
    """Read an array of a Zarr store onto a geobox; see `glaciercube.reading.warp.warp_onto`.

    Its grid is that of the coordinate arrays ``x`` and ``y`` beside it, which hold pixel centres, else the address's;
    its CRS is the address's.

    Parameters
    ----------
    address : Address
        The array.
    geobox : GeoBox
        Where the pixels go.
    resampling, dtype, nodata
        As of `warp_onto`.
    fetch : callable or None
        Gives the content of an object by its key, None for a 404; None for a store on disk.

    Raises
    ------
    Failure
        If it cannot be read, or does not say where it lies.
    """
    path = "/".join(part.strip("/") for part in (address.inner,) if part)
    store: Any = address.href if fetch is None else _Fetched(fetch)
    array = _open(store, path)
    source = _grid(store, path, array, address)
    out = np.full(geobox.shape, nodata, dtype)
    found = compute_reproject_roi(source, geobox, padding=_MARGIN * max(1, round(_shrink(source, geobox))))
    if roi_is_empty(found.roi_src):
        return out
    pixels = np.asarray(array[found.roi_src])
    missing = array.attrs.get("_FillValue", array.fill_value)
    known = isinstance(missing, int | float | np.number)
    rasterio.warp.reproject(
        pixels,
        out,
        src_crs=str(source.crs),
        src_transform=source[found.roi_src].affine,
        src_nodata=float(missing) if known else nodata,
        dst_crs=str(geobox.crs),
        dst_transform=geobox.affine,
        dst_nodata=nodata,
        resampling=Resampling[resampling],
    )
    return out


def _open(store: Any, path: str) -> Any:
    try:
        array = zarr.open_array(store, path=path, mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise Failure(f"there is no Zarr array {path or 'at its root'} ({type(error).__name__})", "permanent") from None
    if array.ndim != 2:
        raise Failure(f"the Zarr array has {array.ndim} dimensions, and a band has 2", "permanent")
    return array


def _grid(store: Any, path: str, array: Any, address: Address) -> GeoBox:
    if not address.crs:
        raise Failure("neither the item nor the Zarr array says its CRS", "permanent")
    transform = Affine(*address.transform[:6]) if address.transform else None
    group = path.rpartition("/")[0]
    try:
        x, y = (
            np.asarray(zarr.open_array(store, path=f"{group}/{name}".lstrip("/"), mode="r")[:]) for name in ("x", "y")
        )
    except (FileNotFoundError, KeyError, ValueError):
        x = y = np.empty(0)
    if (len(y), len(x)) == array.shape and min(array.shape) > 1:
        step_x, step_y = ((axis[-1] - axis[0]) / (len(axis) - 1) for axis in (x, y))
        transform = Affine(step_x, 0, x[0] - step_x / 2, 0, step_y, y[0] - step_y / 2)
    if transform is None:
        raise Failure("neither the item nor arrays x and y beside the Zarr array say where it lies", "permanent")
    return GeoBox(array.shape, transform, address.crs)


def _shrink(source: GeoBox, geobox: GeoBox) -> float:
    if source.crs == geobox.crs:
        return abs(geobox.resolution.x / source.resolution.x)
    return 1.0 if geobox.crs is None else abs(geobox.resolution.x) / abs(source.resolution.x)


class _Fetched(Store):
    """A Zarr store whose objects are fetched by a function, and that nobody writes to."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__(read_only=True)
        self._fetch = fetch

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The object of a key, or part of it; None if there is none."""
        content = await asyncio.to_thread(self._fetch, key)
        if content is None:
            return None
        return prototype.buffer.from_bytes(content[_slice(byte_range, len(content))])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of objects."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """True if there is an object of that key."""
        return await asyncio.to_thread(self._fetch, key) is not None

    @property
    def supports_writes(self) -> bool:
        """Never."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Never."""
        return False

    @property
    def supports_listing(self) -> bool:
        """Never: HTTP has no listings."""
        return False

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Refused."""
        raise NotImplementedError

    def list(self) -> AsyncIterator[str]:
        """Refused."""
        raise NotImplementedError

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refused."""
        raise NotImplementedError

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refused."""
        raise NotImplementedError


def _slice(part: ByteRequest | None, size: int) -> slice:
    match part:
        case RangeByteRequest(start, end):
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, size)
        case SuffixByteRequest(suffix):
            return slice(max(0, size - suffix), size)
        case _:
            return slice(0, size)
