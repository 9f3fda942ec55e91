"""The reflectance offset of every Sentinel-2 scene, settled by what its pixels show."""

from __future__ import annotations

import json
import threading
import warnings
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pystac
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from scipy import ndimage

from glaciercube.catalog import Scenes
from glaciercube.cube.offset_record import FAILED, SENSOR, declared_offset, looked_at
from glaciercube.errors import GlaciercubeError
from glaciercube.reading import backend_odc
from glaciercube.reading.address import Address
from glaciercube.reading.request import requests
from glaciercube.reading.retry import ReadOptions
from glaciercube.region import Region
from glaciercube.sensors import BandSource, get_sensor
from glaciercube.sensors.sentinel2 import BASELINE_OFFSET, QUANTIFICATION

__all__ = ["Look", "judge", "settle_offsets"]

# Bands in which something is dark nearly everywhere: ice, snow, water, shade and woods. Two of them are looked at, in
# this order.
LOOK_BANDS: Final = ("swir22", "swir16", "red")
# Pixels a side of a look: the coarsest overview of a granule of 10980 or 5490.
SIDE: Final = 343
# DN that stands for reflectance 0 where 1000 was added (RADIO_ADD_OFFSET and BOA_ADD_OFFSET of -1000).
ADDED: Final = round(-BASELINE_OFFSET / QUANTIFICATION)
# Below 750 a scene with the 1000 added would show a reflectance under -0.025, which only stray pixels have: noise and
# aerosol correction make a few thousandths. One pixel in a hundred is enough to say that nothing was added.
_BELOW = ADDED - 250
_SHARE_BELOW = 0.01
_STRAY = 0.001
# Something was added where the darkest pixels pile up against 1000 from above: within reflectances of -0.005 to 0.015
# lies one pixel in a hundred at least, and under them next to nothing, in both bands: a sheet of cloud may be as dark
# as that in one by chance, and hardly in two.
_EDGE = (ADDED - 50, ADDED + 150)
_LEAST_PIXELS = 200
# A look is worth little patience: what is not decided by it is decided by what is declared, or by the next run's.
_PATIENCE: Final = ReadOptions(attempts=2, timeout=15.0, budget=45.0)
# Looks in a row that a host may fail before it is left alone.
_HOST_FAILS: Final = 3


@dataclass(frozen=True)
class Look:
    """What the pixels of one scene show.

    Attributes
    ----------
    offset : float or None
        -0.1 if 1000 was added to the numbers, 0 if not; None if they do not tell.
    darkest : mapping
        Band -> first percentile of its valid numbers.
    reason : str
        Why they do not tell.
    """

    offset: float | None
    darkest: Mapping[str, int]
    reason: str = ""


def settle_offsets(
    scenes: Scenes, region: Region, *, threads: int = 8, progress: bool = False, read: ReadOptions | None = None
) -> Scenes:
    """Hold the offset of every Sentinel-2 scene against its pixels, at the size of an overview.

    Pixels that tell decide; else what the provider says; else the processing baseline. The date never does. All three
    are kept in ``notes`` (``offset_by_data``, ``offset_by_provider``, ``offset_by_baseline``), with the darkest
    percentile seen (``darkest_dn``). Scenes that were settled before are not read again, except where reading failed.

    Parameters
    ----------
    scenes : Scenes
        From `glaciercube.catalog.find`; other sensors' scenes stay as they are.
    region : Region
        Looked at where a scene does not say its grid.
    threads : int
        Scenes read at a time.
    progress : bool
        Show a progress bar.
    read : ReadOptions or None
        How patient looks are; by default 2 attempts and 45 s. A host that fails three in a row is left alone, and the
        scenes that it has keep what is declared.

    Returns
    -------
    Scenes
        With ``offset`` and ``notes`` settled.

    Warns
    -----
    UserWarning
        Once for every kind of scene (collection, baseline, what the provider says) whose pixels say otherwise, and
        once if looks failed.
    """
    from tqdm.auto import tqdm

    table = scenes.table.copy()
    rows = [index for index in table.index if _unsettled(table.loc[index])]
    if not rows:
        return scenes
    read = read or _PATIENCE
    views = [_view(replace(scenes, table=table.loc[[index]]), region, read) for index in rows]
    # Readers swap the filters of warnings, which are the process's, from several threads: this puts them back.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        found = pool.map(_Looks(), views)
        looks = list(tqdm(found, "looking at offsets", len(rows), disable=not progress, unit="scene"))
    settled = []
    for index, look in zip(rows, looks, strict=True):
        notes = {key: value for key, value in json.loads(table.at[index, "notes"]).items() if key != "offset_undecided"}
        notes |= {"offset_by_data": look.offset, "darkest_dn": dict(look.darkest)}
        notes |= {"offset_undecided": look.reason} if look.reason else {}
        declared = declared_offset(notes, table.at[index, "offset"])
        table.at[index, "notes"] = json.dumps(notes, sort_keys=True)
        table.at[index, "offset"] = declared if look.offset is None else float(look.offset)
        kind = (table.at[index, "collection"], notes.get("baseline"), notes.get("offset_by_provider"), declared)
        settled.append((*kind, look.offset))
    _report(settled)
    _report_failed([look.reason for look in looks])
    return replace(scenes, table=table)


def judge(bands: Mapping[str, npt.NDArray[Any]], nodata: Mapping[str, float | None]) -> Look:
    """Tell from numbers whether 1000 was added to them.

    Parameters
    ----------
    bands : mapping of str to (y, x) integer array
        Stored numbers.
    nodata : mapping
        Band -> its number for "no data".

    Returns
    -------
    Look
    """
    darkest: dict[str, int] = {}
    edges: list[bool] = []
    for name, numbers in bands.items():
        missing = numbers == (0 if nodata.get(name) is None else nodata[name])
        # Overviews made without regard to nodata mix it into the pixels beside it.
        beside = ndimage.binary_dilation(missing, iterations=2) if missing.any() else missing
        valid = numbers[~beside].astype(np.int64)
        if valid.size < _LEAST_PIXELS:
            continue
        darkest[name] = int(np.percentile(valid, 1))
        below = float((valid < _BELOW).mean())
        if below >= _SHARE_BELOW:
            return Look(0.0, darkest)
        low, high = _EDGE
        pile = float(((valid >= low) & (valid <= high)).mean())
        under = float((valid < low).mean())
        edges.append(below <= _STRAY and pile >= _SHARE_BELOW and under <= pile / 10)
    if not edges:
        return Look(None, darkest, "too few pixels with data")
    return Look(BASELINE_OFFSET, darkest) if all(edges) else Look(None, darkest, "nothing dark enough to tell")


def _unsettled(row: pd.Series[Any]) -> bool:
    return row["sensor"] == SENSOR and not looked_at(json.loads(row["notes"]))


@dataclass(frozen=True)
class _View:
    """A scene at the size of an overview, lazily, and who serves it; empty where there is nothing to look at."""

    pixels: xr.Dataset
    origin: str = ""


def _view(scene: Scenes, region: Region, read: ReadOptions) -> _View:
    bands = {name: band for name, band in scene.bands()[0].items() if _is_dn(band)}
    chosen: dict[str, BandSource] = {name: bands[name] for name in [name for name in LOOK_BANDS if name in bands][:2]}
    if not chosen:
        return _View(xr.Dataset())
    table = scene.table.assign(bands=json.dumps({name: source.as_dict() for name, source in chosen.items()}))
    (item,) = scene.items()
    grid = _grid(item, chosen, region)
    (request,) = requests(get_sensor(SENSOR), replace(scene, table=table), grid, max(grid.shape))
    request = replace(request, resampling=dict.fromkeys(chosen, "nearest"), read=read)
    origin = Address(item.assets[next(iter(chosen.values())).asset].href).origin
    return _View(backend_odc.read(request).isel(time=0), origin)


def _is_dn(band: BandSource) -> bool:
    """Whether a band holds ESA's numbers; some archives hold reflectance itself."""
    return band.dtype in ("uint16", "int16", "uint32", "int32") and bool(np.isclose(band.scale, QUANTIFICATION))


class _Looks:
    """Looks at scenes, from several threads, and at no more of a host that fails one after the other."""

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, view: _View) -> Look:
        """Look at one; a look that fails decides nothing."""
        if not view.pixels.data_vars:
            return Look(None, {}, "no band of plain numbers to look at")
        with self._lock:
            if self._failed[view.origin] >= _HOST_FAILS:
                return Look(None, {}, f"{FAILED} look: {view.origin} failed {_HOST_FAILS} looks in a row")
        try:
            numbers = view.pixels.compute(scheduler="synchronous")
        except GlaciercubeError as error:
            # One file that is gone or spoilt says nothing of the others of its host.
            if getattr(error, "failure", "transient") != "permanent":
                with self._lock:
                    self._failed[view.origin] += 1
            # Their messages are without secrets.
            told = error.problem
            return Look(None, {}, told if told.startswith(FAILED) else f"{FAILED} look: {told}")
        with self._lock:
            self._failed[view.origin] = 0
        bands = {str(name): band.to_numpy() for name, band in numbers.data_vars.items()}
        return judge(bands, {name: numbers[name].attrs.get("nodata") for name in bands})


def _grid(item: pystac.Item, bands: Mapping[str, BandSource], region: Region) -> GeoBox:
    """The scene's own grid at the size of an overview; the region's where the item does not state one."""
    fields = {**item.properties, **item.assets[next(iter(bands.values())).asset].extra_fields}
    code = fields.get("proj:code") or (f"EPSG:{fields['proj:epsg']}" if fields.get("proj:epsg") else None)
    shape, transform = fields.get("proj:shape"), fields.get("proj:transform")
    grid = region.geobox
    if code and shape and transform:
        grid = GeoBox((int(shape[0]), int(shape[1])), Affine(*transform[:6]), code)
    longest = max(grid.shape)
    if longest <= SIDE:
        return grid
    high, wide = (max(round(size * SIDE / longest), 1) for size in grid.shape)
    small: GeoBox = grid.zoom_to((high, wide))
    return small


def _report(settled: list[tuple[Any, ...]]) -> None:
    """Say, once for each kind of scene, that pixels and declarations disagree."""
    kinds = pd.DataFrame(settled, columns=["collection", "baseline", "provider", "declared", "data"])
    names = ["collection", "baseline", "provider", "declared"]
    for (collection, baseline, _, declared), kind in kinds.groupby(names, dropna=False):
        against = kind["data"][kind["data"].notna() & (kind["data"] != declared)]
        if against.empty:
            continue
        silent = int(kind["data"].isna().sum())
        kept = f"; {silent} do not tell and keep {declared:g}" if silent else ""
        by = "the provider" if kind["provider"].notna().all() else "the processing baseline"
        warnings.warn(
            f"{len(against)} of {len(kind)} scenes of {collection} (baseline {baseline}) have reflectance offset "
            f"{against.iloc[0]:g} by their pixels and {declared:g} by {by}: the pixels are believed{kept}",
            UserWarning,
            stacklevel=3,
        )


def _report_failed(reasons: list[str]) -> None:
    """Say how many looks failed."""
    failed = [reason for reason in reasons if reason.startswith(FAILED)]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(reasons)} looks at the pixels of Sentinel-2 scenes failed, and their offset is "
            f"what is declared until a later run looks again; the first: {failed[0]}",
            UserWarning,
            stacklevel=3,
        )
