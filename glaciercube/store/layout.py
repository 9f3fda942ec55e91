"""The layout of the probability cube: arrays, packing, sharding, CF and GeoZarr metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.errors import StoreError, require
from glaciercube.inference.lazy import PREDICTION_ATTRS

__all__ = [
    "CONVENTIONS",
    "FILL",
    "GRID_MAPPING",
    "NO_TIME",
    "SCALE",
    "StoreOptions",
    "encoding",
    "grid_attributes",
    "pack",
    "template",
]

# Probability p is stored as round(p / 0.004), 0 to 250; 255 is "missing". Half a step, 0.002, is the largest error.
SCALE: Final = 0.004
FILL: Final = 255
GRID_MAPPING: Final = "spatial_ref"
# The stored time of a row that was begun and not finished; numpy's and xarray's "not a time".
NO_TIME: Final = np.iinfo(np.int64).min
# User and password within an address; a user alone is, of some kinds of path, the name of a container.
_USER: Final = re.compile(r"//[^/?#]*@")
_PASSWORD: Final = re.compile(r"//[^/?#]*:[^/?#]*@")
_DIMS: Final = ("time", "y", "x")
Kind: TypeAlias = Literal["auto", "zarr", "icechunk"]

# The registered Zarr conventions `proj:` and `spatial:`, which together make a GeoZarr.
CONVENTIONS: Final = [
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/geo-proj/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
        "description": "Coordinate reference system information for geospatial data",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
        "description": "Spatial coordinate information",
    },
]


@dataclass(frozen=True)
class StoreOptions:
    """How the probability cube is laid out.

    Attributes
    ----------
    path : str
        A folder, or ``s3://bucket/prefix``. Credentials stand in the environment (``AWS_ACCESS_KEY_ID`` and so on), and
        are refused here.
    shard : int
        Side of a shard in pixels: one file, one unit of work. Rounded up to whole chunks.
    chunk : int
        Side of a chunk in pixels: what a reader decompresses at once.
    kind : {"auto", "zarr", "icechunk"}
        Plain Zarr, or an Icechunk repository. By default what is there; for a new one, Icechunk if the path ends in
        ``.icechunk``.
    endpoint : str
        Address of an S3 server that is not Amazon's; by default what ``AWS_ENDPOINT_URL`` says.
    """

    path: str
    shard: int = 1024
    chunk: int = 256
    kind: Kind = "auto"
    endpoint: str = ""

    def __post_init__(self) -> None:
        for name, value in (("shard", self.shard), ("chunk", self.chunk)):
            require(value >= 1, f"{name} {value} is not a number of pixels", "give 1 or more, such as 256")
        # Paths and endpoints are told in errors and kept as provenance.
        for name, found in (("path", _PASSWORD.search(self.path)), ("endpoint", _USER.search(self.endpoint))):
            remedy = "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
            require(found is None, f"the {name} of the store has credentials in it", remedy)
        kinds = ", ".join(get_args(Kind))
        require(self.kind in get_args(Kind), f"{self.kind!r} is no kind of store", f"give one of {kinds}")

    @property
    def block(self) -> int:
        """Side of a shard in pixels, a whole number of chunks."""
        return -(-max(self.shard, self.chunk) // self.chunk) * self.chunk

    def slices(self, block: tuple[int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
        """Pixels of a shard on a grid of that height and width."""
        y, x = (slice(i * self.block, min((i + 1) * self.block, n)) for i, n in zip(block, shape, strict=True))
        return y, x


def pack(probability: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Pack probability into uint8.

    Parameters
    ----------
    probability : array
        0 to 1, NaN where missing; values outside are clipped first, since 1.03 would wrap to about 0.

    Returns
    -------
    array of uint8
        Same shape; 255 where missing.
    """
    missing = np.isnan(probability)
    scaled = np.rint(np.clip(np.where(missing, 0.0, probability), 0.0, 1.0) / SCALE)
    return np.where(missing, FILL, scaled).astype(np.uint8)


def template(geobox: GeoBox, times: npt.NDArray[np.datetime64], extra: xr.Dataset, attrs: dict[str, Any]) -> xr.Dataset:
    """The empty cube: lazy arrays of the right shape, with coordinates and metadata.

    Parameters
    ----------
    geobox : GeoBox
        The region's grid.
    times : (time) datetime64
        Rows.
    extra : Dataset (time)
        Per-row variables and ``time_bnds``, written as they are.
    attrs : dict
        Global attributes.

    Raises
    ------
    StoreError
        If there are no rows.
    """
    import dask.array as da

    if not len(times):
        raise StoreError("a store needs at least one date", "widen the interval")
    shape = (len(times), *geobox.shape)
    # One chunk: dask would make a task for each, and only the shape is wanted. The encoding says how Zarr chunks them.
    data = {
        "glacier_probability": (_DIMS, da.zeros(shape, chunks=-1, dtype="float64")),
        "quality": (_DIMS, da.zeros(shape, chunks=-1, dtype="uint8")),
    }
    out = xr.Dataset(data, coords={"time": ("time", times), **_grid_coords(geobox)})
    for name, known in PREDICTION_ATTRS.items():
        out[name].attrs = {**known, "grid_mapping": GRID_MAPPING}
    for flags in ("flag_masks", "flag_values"):
        out["quality"].attrs[flags] = np.array(PREDICTION_ATTRS["quality"][flags], "uint8")
    out["time"].attrs = {"standard_name": "time", "axis": "T"}
    out = out.assign({name: extra[name].variable for name in extra.data_vars})
    out = out.assign_coords({name: extra[name].variable for name in extra.coords if name != "time"})
    if "time_bnds" in out.coords:
        out["time"].attrs["bounds"] = "time_bnds"
    return out.assign_attrs(
        {"Conventions": "CF-1.12", "zarr_conventions": CONVENTIONS, **grid_attributes(geobox), **attrs}
    )


def encoding(options: StoreOptions, names: list[str]) -> dict[str, dict[str, Any]]:
    """On-disk encoding of each variable, for `xarray.Dataset.to_zarr`."""
    block, chunk = (1, options.block, options.block), (1, options.chunk, options.chunk)
    sharded = {"chunks": chunk, "shards": block, "dtype": "uint8"}
    seconds = {"units": "seconds since 1970-01-01", "dtype": "int64", "chunks": (4096,)}
    known: dict[str, dict[str, Any]] = {
        # The Zarr fill value too: with the default 0 an unwritten shard would read as probability 0.
        "glacier_probability": {**sharded, "scale_factor": SCALE, "_FillValue": FILL, "fill_value": FILL},
        "quality": {**sharded, "fill_value": 0},
        "time": {**seconds, "fill_value": NO_TIME},
        "time_bnds": {**seconds, "chunks": (4096, 2)},
    }
    return {name: known[name] for name in names if name in known}


def _grid_coords(geobox: GeoBox) -> dict[str, Any]:
    from odc.geo.xr import xr_coords

    coords = xr_coords(geobox, crs_coord_name=GRID_MAPPING)
    out: dict[str, Any] = {str(name): coords[name] for name in coords}
    for axis in ("x", "y"):
        out[axis].attrs.update(standard_name=f"projection_{axis}_coordinate", units="m", axis=axis.upper())
        out[axis].encoding.clear()
    return out


def grid_attributes(geobox: GeoBox) -> dict[str, Any]:
    """Global attributes by which the grid is known, after the conventions ``proj`` and ``spatial``.

    Raises
    ------
    StoreError
        If the grid has no CRS.
    """
    if geobox.crs is None:
        raise StoreError("the grid has no CRS", "make the region with one")
    a, epsg = geobox.affine, geobox.crs.epsg
    return {
        **({"proj:code": f"EPSG:{epsg}"} if epsg else {"proj:wkt2": geobox.crs.wkt}),
        "spatial:dimensions": ["y", "x"],
        "spatial:transform": [a.a, a.b, a.c, a.d, a.e, a.f],
        "spatial:bbox": list(geobox.boundingbox),
        "spatial:shape": list(geobox.shape),
        "spatial:registration": "pixel",
    }
