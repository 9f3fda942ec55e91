"""Chips drawn lazily from a cube and an inventory: each is read when it is asked for, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords  # noqa: F401 - registers the .odc accessor

from glaciercube.errors import CubeError, OutlineError, require
from glaciercube.models.chips import Chip
from glaciercube.models.contract import VARIABLES
from glaciercube.training.inventory import Inventory, read_inventory
from glaciercube.training.seen import clear_enough, seen_weight
from glaciercube.training.sites import Site
from glaciercube.training.truth import DebrisLayer, TruthOptions, debris_of, label_window, labels_of
from glaciercube.training.windows import Window, WindowOptions, choose_windows

if TYPE_CHECKING:
    import geopandas as gpd

    from glaciercube.training.exchange import StoredChips

__all__ = ["SampleOptions", "SampledChips", "SamplesConfig", "crs_name", "sample_chips"]


@dataclass(frozen=True)
class SampleOptions:
    """How chips are drawn.

    Attributes
    ----------
    windows : WindowOptions
        Where they lie.
    truth : TruthOptions
        How far the outlines are trusted.
    dates : int or None
        Images of a chip, one after another in time; 1 by default. None: all that the cube has.
    months : tuple of int
        Calendar months of images; all by default. At the end of summer snow hides least: DL4GAM takes August to the
        middle of October in the Alps.
    variables : tuple of str
        Of the cube; by default all that a model of this package may ask for.
    hidden : float
        Weight, 0 to 1, of a pixel under cloud or its shadow, or that the optical sensor did not see, where radar sees
        it: it still teaches, at a fifth of a clear one's weight by default, as in the training on simulated glaciers.
        Where there is no radar it weighs nothing.
    clear : float
        Share of a chip's pixels, 0 to 1, that at least one of its images has to show free of cloud. Above 0,
        `sample_chips` reads the cube's masks, date by date; 0 by default reads nothing.
    name : str
        Of the cube, with which the chips' names begin.
    """

    windows: WindowOptions = field(default_factory=WindowOptions)
    truth: TruthOptions = field(default_factory=TruthOptions)
    dates: int | None = 1
    months: tuple[int, ...] = ()
    variables: tuple[str, ...] = ()
    hidden: float = 0.2
    clear: float = 0.0
    name: str = "cube"

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", tuple(self.variables))
        object.__setattr__(self, "months", tuple(self.months))
        fine = all(1 <= month <= 12 for month in self.months)
        require(fine, f"months {list(self.months)} are none", "give numbers from 1 to 12")
        require(self.dates is None or self.dates >= 1, f"chips of {self.dates} dates", "give 1 or more, or null")
        require(0 <= self.hidden <= 1, f"hidden {self.hidden} is not a weight", "give 0 to 1")
        require(0 <= self.clear <= 1, f"clear {self.clear} is not a share", "give 0 to 1")


@dataclass(frozen=True)
class SamplesConfig(SampleOptions):
    """Where samples come from, as the user writes it: outlines on a cube, or sets that were exported.

    Attributes
    ----------
    outlines, debris, date, date_column
        As of `sample_chips`; paths.
    sets : tuple of str
        Folders of `glaciercube.training.exchange.write_set`, instead of a cube and outlines.
    """

    outlines: str | None = None
    debris: str | None = None
    date: str | None = None
    date_column: str | None = None
    sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sets", tuple(self.sets))
        require(not (self.outlines and self.sets), "samples have both outlines and sets", "give one of them")

    def chips(self, cube: Callable[[], xr.Dataset]) -> SampledChips | StoredChips:
        """The chips, lazily.

        Parameters
        ----------
        cube : callable
            Makes the cube, where one is needed: `glaciercube.config.CubeConfig.cube`.

        Raises
        ------
        ConfigError
            If there are neither outlines nor sets.
        """
        if self.sets:
            from glaciercube.training.exchange import read_sets

            return read_sets(self.sets)
        require(self.outlines is not None, "samples have neither outlines nor sets", "give one of them")
        return sample_chips(
            cube(), str(self.outlines), self, date=self.date, date_column=self.date_column, debris=self.debris
        )


@dataclass(frozen=True, eq=False)
class SampledChips(Sequence[Chip]):
    """A sequence of chips, each of which is read when it is asked for: one dask computation of one window.

    Attributes
    ----------
    cube : Dataset
        The variables that are read, and what says which of their pixels are hidden.
    inventory : Inventory
        The truth.
    debris : callable or None
        Where debris lies.
    options : SampleOptions
        How they are drawn.
    drawn : tuple of (Window, tuple of int)
        Of every chip: where, and which dates of the cube.
    messages : tuple of str
        What was left out, and why.
    """

    cube: xr.Dataset
    inventory: Inventory
    debris: DebrisLayer | None
    options: SampleOptions
    drawn: tuple[tuple[Window, tuple[int, ...]], ...]
    messages: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.drawn)

    @overload
    def __getitem__(self, item: int) -> Chip: ...

    @overload
    def __getitem__(self, item: slice) -> SampledChips: ...

    def __getitem__(self, item: int | slice) -> Chip | SampledChips:
        if isinstance(item, slice):
            return replace(self, drawn=self.drawn[item])
        return self._read(*self.drawn[item])

    def __iter__(self) -> Iterator[Chip]:
        return (self._read(*entry) for entry in self.drawn)

    def take(self, indices: Iterable[int]) -> SampledChips:
        """Some of the chips, in a given order, such as those of a split; nothing is read."""
        return replace(self, drawn=tuple(self.drawn[i] for i in indices))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the chips lie; nothing is read."""
        return tuple(Site(self._name(w, days), w.place, w.footprint, w.area) for w, days in self.drawn)

    @property
    def labels(self) -> Mapping[str, tuple[str, ...]]:
        """Labels of every chip, in order, and the classes that each may be."""
        return labels_of(self.options.truth, debris=self.debris is not None)

    def summary(self) -> dict[str, Any]:
        """What was drawn, in what JSON can hold."""
        windows = {(window.row, window.column): window for window, _ in self.drawn}
        without = sum(window.area == 0 for window in windows.values())
        days = self.cube["time"].to_numpy()[sorted({day for _, days in self.drawn for day in days})]
        return {
            "chips": len(self),
            "windows": len(windows),
            "windows without glacier": without,
            "places": len({window.place for window in windows.values()}),
            "dates": [str(day)[:10] for day in days],
            "variables": [str(name) for name in _asked(self.cube, self.options)],
            "labels": {name: list(classes) for name, classes in self.labels.items()},
            "outlines": self.inventory.source,
            "messages": list(self.messages),
        }

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) over what they are drawn from: grid, dates, windows, options, outlines; no image is read."""
        grid: GeoBox = self.cube.odc.geobox
        times, given = self.cube["time"].to_numpy(), asdict(self.options)
        said: dict[str, Any] = {each.name: given[each.name] for each in fields(SampleOptions)}
        said |= {"crs": crs_name(grid), "grid": [*grid.affine[:6], *grid.shape]}
        attrs = {str(name): text for name, text in self.cube.attrs.items() if isinstance(text, str)}
        said |= {"asked": _asked(self.cube, self.options), "attrs": attrs}
        said["drawn"] = [(w.row, w.column, [str(times[day]) for day in days]) for w, days in self.drawn]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        digest.update(self.inventory.fingerprint.encode())
        if self.debris is not None:
            size = self.options.windows.size
            for row, column in dict.fromkeys((w.row, w.column) for w, _ in self.drawn):
                digest.update(self.debris(grid[row : row + size, column : column + size]).tobytes())
        return digest.hexdigest()

    def _name(self, window: Window, days: tuple[int, ...]) -> str:
        date = str(self.cube["time"].to_numpy()[days[0]].astype("datetime64[s]"))
        return f"{self.options.name}-{window.row}-{window.column}-{date.replace('-', '').replace(':', '')}"

    def _read(self, window: Window, days: tuple[int, ...]) -> Chip:
        size = self.options.windows.size
        rows, columns = slice(window.row, window.row + size), slice(window.column, window.column + size)
        part = self.cube.isel(y=rows, x=columns, time=list(days)).compute()
        grid: GeoBox = self.cube.odc.geobox[rows, columns]
        time = part["time"].to_numpy().astype("datetime64[s]")
        truth = label_window(grid, time, self.inventory, self.options.truth, self.debris)
        seen = seen_weight(part, self.options.hidden)
        names = list(dict.fromkeys(self.inventory.outlines["glacier"]))
        found = {str(n): names[n - 1] for n in np.unique(truth.glaciers).tolist() if n}
        return Chip(
            variables={
                name: part[name].transpose("time", "y", "x", missing_dims="ignore").to_numpy().astype(np.float32)
                for name in _asked(part, self.options)
            },
            label=truth.label,
            labels=self.labels,
            weight=(truth.weight * seen).astype(np.float32),
            time=time,
            resolution=float(abs(grid.resolution.x)),
            name=self._name(window, days),
            place=window.place,
            centre=_middle(grid),
            glaciers=truth.glaciers,
            sure=truth.sure & (seen >= 1),
            attributes={
                "footprint": [list(point) for point in window.footprint],
                "glacier_km2": window.area,
                "glaciers": found,
                "outline_age": [_age(self.inventory, date, set(found.values())) for date in time],
                "crs": crs_name(grid),
                "transform": list(grid.affine)[:6],
                "reflectance": str(self.cube.attrs.get("reflectance", "")),
            },
        )


def sample_chips(
    cube: xr.Dataset,
    outlines: str | Path | gpd.GeoDataFrame,
    options: SampleOptions | None = None,
    *,
    date: str | None = None,
    date_column: str | None = None,
    debris: str | Path | gpd.GeoDataFrame | None = None,
) -> SampledChips:
    """Draw chips from a cube and outlines, lazily.

    Parameters
    ----------
    cube : Dataset (time, y, x)
        From `glaciercube.compose`, or with variables of the same names and units, on a metric grid with a CRS.
    outlines : path or GeoDataFrame
        RGI 6 or 7, GLIMS, or the user's own polygons, in any CRS.
    options : SampleOptions or None
        How.
    date, date_column : str or None
        When outlines were drawn, see `glaciercube.training.inventory.read_inventory`.
    debris : path or GeoDataFrame or None
        Polygons of debris cover, or a raster file of 1 (debris) and 0: ice is then clean or covered, and either where
        the raster ends. By default what GLIMS has of it, or nothing: ice may be either.

    Returns
    -------
    SampledChips
        A sequence. Nothing of the cube is read before a chip is asked for, unless `SampleOptions.clear` is above 0.

    Raises
    ------
    CubeError
        If the cube has no CRS, no time, or none of the variables.
    OutlineError
        If no outline meets the cube or is of an age that can be used, or none says its date.
    """
    options = options or SampleOptions()
    cube = _checked(cube, options)
    geobox: GeoBox = cube.odc.geobox
    raster = isinstance(debris, str | Path) and Path(debris).suffix.lower() in (".tif", ".tiff", ".vrt")
    margin = max(options.windows.within, 2000.0, options.truth.beyond or 0.0)
    inventory = read_inventory(
        outlines, geobox, date=date, date_column=date_column, debris=None if raster else debris, margin=margin
    )
    layer = debris_of(debris if raster else inventory.debris)
    labels_of(options.truth, debris=layer is not None)
    days, messages = _usable(cube["time"], inventory, options)
    windows = choose_windows(geobox, inventory, options.windows)
    step = options.dates or len(days)
    groups = [tuple(days[i : i + step]) for i in range(0, len(days), step)]
    index = [(window, group) for window in windows for group in groups]
    if options.clear > 0:
        kept = clear_enough(cube, index, options.windows.size, options.clear)
        if len(kept) < len(index):
            messages += (f"{len(index) - len(kept)} of {len(index)} chips show too little, and are left out",)
        index = kept
    return SampledChips(cube, inventory, layer, options, tuple(index), (*inventory.messages, *messages))


def _checked(cube: xr.Dataset, options: SampleOptions) -> xr.Dataset:
    """What is read of a cube."""
    missing = [name for name in ("time", "y", "x") if name not in cube.dims]
    if missing:
        raise CubeError(
            f"the cube has no dimension {', '.join(missing)}", "give what glaciercube.compose makes, or expand_dims"
        )
    if cube.odc.geobox is None or cube.odc.geobox.crs is None:
        raise CubeError("the cube has no CRS or no regular grid", "give it one, for instance with rio.write_crs")
    if not cube.odc.geobox.crs.projected:
        raise CubeError(f"the cube lies on a grid of degrees ({cube.odc.geobox.crs})", "load it on a metric grid")
    absent = [name for name in options.variables if name not in cube]
    if absent or not _asked(cube, options):
        raise CubeError(
            f"the cube has no {', '.join(absent) or 'variable that models ask for'}",
            f"it has {', '.join(map(str, cube.data_vars)) or 'none'}",
        )
    wanted = [*_asked(cube, options), *(["optical_flags"] if "optical_flags" in cube else [])]
    return cube[wanted].sortby("time")


def _asked(cube: xr.Dataset, options: SampleOptions) -> list[str]:
    """Variables of the chips."""
    return [str(name) for name in options.variables or VARIABLES if name in cube.data_vars]


def _usable(times: xr.DataArray, inventory: Inventory, options: SampleOptions) -> tuple[list[int], tuple[str, ...]]:
    """Dates of the wanted months that are near enough to some outline's."""
    most, time = options.truth.max_age, times.to_numpy()
    month = times.dt.month.to_numpy()
    wanted = [day for day in range(len(time)) if not options.months or month[day] in options.months]
    if not wanted:
        raise CubeError(f"the cube has no image of the months {list(options.months)}", "give others, or none for all")
    days = [day for day in wanted if bool((np.abs(inventory.ages(time[day])) <= most).any())]
    if not days:
        dates = inventory.outlines["date"].dropna()
        raise OutlineError(
            f"all images ({str(time[0])[:10]} to {str(time[-1])[:10]}) are more than {most:g} years from the outlines "
            f"({dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d})",
            "give outlines or images of other years, or a larger max_age",
        )
    lost = len(wanted) - len(days)
    return days, ((f"{lost} of {len(wanted)} dates are more than {most:g} years from all outlines",) if lost else ())


def crs_name(grid: GeoBox) -> str:
    """EPSG code of a grid, or its whole description where it has none."""
    epsg = None if grid.crs is None else grid.crs.epsg
    return f"EPSG:{epsg}" if epsg else str(grid.crs)


def _middle(grid: GeoBox) -> tuple[float, float]:
    """Longitude and latitude of a grid's middle."""
    from pyproj import Transformer

    x, y = grid.affine * (grid.shape[1] / 2.0, grid.shape[0] / 2.0)
    longitude, latitude = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True).transform(x, y)
    return round(float(longitude), 6), round(float(latitude), 6)


def _age(inventory: Inventory, date: np.datetime64, glaciers: set[str]) -> float | None:
    """Years between an image and the outlines of some glaciers: their median, None where nothing is known."""
    rows = inventory.nearest_in_time(date)
    there = inventory.outlines["glacier"].isin(glaciers).to_numpy()[rows]
    ages = inventory.ages(date)[rows][there]
    ages = ages[np.isfinite(ages)]
    return round(float(np.median(ages)), 2) if ages.size else None
