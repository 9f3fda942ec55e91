"""What a backend is asked for: layers of one sensor that are stored alike, on one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pystac
import xarray as xr
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes
from glaciercube.reading.address import Address
from glaciercube.reading.retry import ReadOptions
from glaciercube.sensors import BandSource, Sensor

__all__ = ["Backend", "Request", "requests"]


@dataclass(frozen=True)
class Request:
    """Layers of one sensor whose numbers mean the same.

    Attributes
    ----------
    node : str
        The sensor's node in the tree.
    items : tuple of pystac.Item
        Scenes that say only what reading needs, under our band names; ``datetime`` is the observation's label.
    bands : tuple of BandSource
        What to read of each; a scene may lack optional ones.
    offset : float
        Additive offset that decoding applies, physical units.
    geobox : GeoBox
        The grid.
    cell : int
        Side of a lattice cell in pixels: the chunks of what is returned.
    resampling : mapping
        Band name -> GDAL's name of the method.
    signing : str
        How assets are signed when read.
    read : ReadOptions
        How patient reads are.
    """

    node: str
    items: tuple[pystac.Item, ...]
    bands: tuple[BandSource, ...]
    offset: float
    geobox: GeoBox
    cell: int
    resampling: Mapping[str, str]
    signing: str = ""
    read: ReadOptions = field(default_factory=ReadOptions)


class Backend(Protocol):
    """Reads requests."""

    def __call__(self, request: Request) -> xr.Dataset:
        """Lay a request's layers on its grid, lazily.

        Parameters
        ----------
        request : Request
            What to read.

        Returns
        -------
        Dataset (time, y, x)
            Stored pixels by band name in their own dtype, one layer per observation's label, chunks of one time and
            one lattice cell, each with ``nodata`` in its attributes; nodata where no scene has a pixel. A read that
            fails raises `glaciercube.errors.ReadError` when it is computed.
        """


def requests(sensor: Sensor, scenes: Scenes, geobox: GeoBox, cell: int) -> list[Request]:
    """Part a sensor's scenes into requests: pixels stored in different ways meet in physical units only.

    Parameters
    ----------
    sensor : Sensor
        Whose scenes.
    scenes : Scenes
        Of this sensor alone.
    geobox : GeoBox
        The grid.
    cell : int
        Side of a lattice cell in pixels.
    """
    parts: dict[Any, list[tuple[pystac.Item, tuple[BandSource, ...]]]] = {}
    rows = zip(scenes.items(), scenes.bands(), scenes.table["time"], scenes.table["offset"], strict=True)
    for item, sources, time, offset in rows:
        bands = tuple(sources.values())
        alike = (float(offset), tuple(band.stored_as for band in bands))
        parts.setdefault(alike, []).append((_lean(item, bands, sensor.node, time), bands))
    target = abs(geobox.resolution.x)
    return [
        Request(
            node=sensor.node,
            items=tuple(item for item, _ in members),
            bands=members[0][1],
            offset=offset,
            geobox=geobox,
            cell=cell,
            resampling={band.band: _resampling(band, target) for band in members[0][1]},
            signing=scenes.signing,
        )
        for (offset, _), members in sorted(parts.items(), key=lambda part: str(part[0]))
    ]


def _lean(item: pystac.Item, bands: tuple[BandSource, ...], node: str, time: Any) -> pystac.Item:
    """A copy that says only what reading needs, under our names: providers differ in the rest."""
    keep = ("proj:code", "proj:epsg", "proj:shape", "proj:transform", "proj:wkt2", "proj:bbox")
    lean = pystac.Item(
        id=item.id,
        geometry=item.geometry,
        bbox=item.bbox,
        datetime=time.to_pydatetime(),
        properties={key: item.properties[key] for key in keep if key in item.properties},
        # One collection for all: the reader's configuration then needs no provider names.
        collection=node,
    )
    lean.stac_extensions = [uri for uri in item.stac_extensions if "/projection/" in uri]
    for band in bands:
        source = item.assets[band.asset]
        fields = {key: value for key, value in source.extra_fields.items() if key in keep}
        nodata = "nan" if band.nodata is None else band.nodata
        fields["raster:bands"] = [{"data_type": band.dtype, "nodata": nodata}]
        # The address says whose pixels they are: an error or a record names the scene, whatever backend reads.
        href = _address(item, band, fields).uri
        asset = pystac.Asset(href, media_type=source.media_type, roles=["data"], extra_fields=fields)
        lean.add_asset(band.band, asset)
    return lean


def _address(item: pystac.Item, band: BandSource, fields: Mapping[str, Any]) -> Address:
    known = {**item.properties, **fields}
    epsg, asset = known.get("proj:epsg"), item.assets[band.asset]
    href, inner = asset.href, band.inner
    array = bool(inner) or "zarr" in (asset.media_type or "")
    if array and not inner:
        # An asset that is an array: its coordinates lie beside it, in the group.
        href, _, inner = href.rstrip("/").rpartition("/")
    return Address(
        href=href,
        scene=item.id,
        band=band.band,
        inner=inner,
        # Arrays of a Zarr store say neither CRS nor grid; every other file does, and is believed.
        crs=str(known.get("proj:code") or (f"EPSG:{epsg}" if epsg else "")) if array else "",
        transform=tuple(fields.get("proj:transform") or ()) if array else (),
        options=band.options,
    )


def _resampling(band: BandSource, target: float) -> str:
    shrink = target / band.resolution
    if band.categorical:
        return "mode" if shrink > 1.5 else "nearest"
    # GDAL widens its bilinear kernel on coarser grids by a ratio that it takes from the window, which is another one
    # where a scene ends within a cell; the mean over a pixel's area is the same everywhere.
    return "average" if shrink > 1.02 else "bilinear"
