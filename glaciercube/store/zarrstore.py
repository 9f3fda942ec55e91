"""The probability cube in a Zarr folder: made once, written shard by shard, opened by anyone."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from glaciercube.errors import GridMismatchError, StoreError
from glaciercube.store.layout import NO_TIME, StoreOptions, encoding, grid_attributes, pack, template
from glaciercube.store.ledger import Ledger
from glaciercube.store.missing import Missing, MissingRecord

__all__ = ["ZarrStore", "open_store", "provenance_of", "row_label"]

_ARRAYS = ("glacier_probability", "quality")
_PROVENANCE = "provenance"
# Provenance by row or by scene, and what all rows of a store have in common.
_ACCUMULATED = ("scenes", "reflectance_offsets")
_MADE_BY = ("model", "model_hash", "compose", "modalities", "reflectance")


class ZarrStore:
    """A probability cube that can be written to.

    Attributes
    ----------
    options : StoreOptions
        Layout and path.
    geobox : GeoBox
        The grid.
    ledger : Ledger
        What is done.
    """

    def __init__(self, options: StoreOptions, geobox: GeoBox) -> None:
        self.options, self.geobox = options, geobox
        self.path = Path(options.path)
        # The provenance variable is a scalar array, whose folder no Zarr reader lists.
        self.ledger = Ledger(self.path / _PROVENANCE / "ledger", self.path)
        self.missing = MissingRecord(self.path)
        self._rows = {label: index for index, label in enumerate(_labels(self.path))}
        self._arrays = {name: zarr.open_array(self.path / name, mode="r+") for name in _ARRAYS}

    @classmethod
    def create_or_open(
        cls,
        options: StoreOptions,
        geobox: GeoBox,
        times: npt.NDArray[np.datetime64],
        extra: xr.Dataset,
        attrs: Mapping[str, Any],
    ) -> ZarrStore:
        """Make the store, or open it and add the rows that it lacks.

        Parameters
        ----------
        options : StoreOptions
            Layout and path.
        geobox : GeoBox
            The grid; an existing store must have the same.
        times : (time) datetime64
            Rows that must exist.
        extra : Dataset (time)
            Variables and coordinates per row.
        attrs : mapping
            Global attributes of a new store.

        Raises
        ------
        GridMismatchError
            If a store of another grid or layout is there.
        StoreError
            If the path holds something else, or cannot be written.
        """
        path = Path(options.path)
        with _clear_errors(path):
            if not path.exists() or (path.is_dir() and not any(path.iterdir())):
                _create(path, template(geobox, times, extra, options, dict(attrs)), options)
            else:
                _check_same(path, geobox, options)
                _bring_up_to_date(path, times, extra)
            return cls(options, geobox)

    @classmethod
    def open(cls, options: StoreOptions, geobox: GeoBox) -> ZarrStore:
        """Open a store as it is.

        Raises
        ------
        GridMismatchError
            If it is of another grid or layout.
        StoreError
            If the path holds something else.
        """
        path = Path(options.path)
        with _clear_errors(path):
            _check_same(path, geobox, options)
            return cls(options, geobox)

    def write(
        self,
        times: npt.NDArray[np.datetime64],
        block: tuple[int, int],
        probability: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint8],
        keys: list[str],
        missing: Sequence[Sequence[Missing]] = (),
    ) -> None:
        """Write one shard of several dates, then mark it done.

        Parameters
        ----------
        times : (time) datetime64
            Rows.
        block : (int, int)
            Row and column of the shard.
        probability : (time, y, x) float32
            0 to 1, NaN where missing; exactly the shard's pixels.
        quality : (time, y, x) uint8
            Flags.
        keys : list of str
            What decided the pixels, per row.
        missing : sequence of sequence of Missing
            Scenes that the shard was made without, per row; none by default.

        Raises
        ------
        StoreError
            If the data is not exactly the shard's, or the disk does not take it.
        """
        y, x = self.slices(block)
        shape = (len(times), y.stop - y.start, x.stop - x.start)
        if probability.shape != shape or quality.shape != shape:
            raise StoreError(
                f"shard {block} of {self.path} takes {shape} pixels and was given {probability.shape}",
                "write whole shards: two writers of one shard would lose each other's pixels",
            )
        packed = pack(probability)
        with _clear_errors(self.path):
            for index, (time, key) in enumerate(zip(times, keys, strict=True)):
                label = row_label(time)
                row = self._rows[label]
                # A shard that is being written anew is not done until it is marked again.
                self.ledger.remove(label, block)
                self._arrays["glacier_probability"][row, y, x] = packed[index]
                self._arrays["quality"][row, y, x] = quality[index]
                files = [f"{name}/c/{row}/{block[0]}/{block[1]}" for name in _ARRAYS]
                # Before the mark: a shard that counts as done has said what it lacks.
                self.missing.write(label, block, missing[index] if missing else ())
                self.ledger.sign(label, block, key, files)

    def slices(self, block: tuple[int, int]) -> tuple[slice, slice]:
        """Pixels of a shard on the grid."""
        return self.options.slices(block, (self.geobox.shape[0], self.geobox.shape[1]))

    def describe(self, provenance: Mapping[str, Any], source: str) -> None:
        """Say how the planned rows were made.

        Parameters
        ----------
        provenance : mapping
            Plain values, kept as attributes of the scalar ``provenance``. What is a mapping by row or by scene is added
            to what is there; everything else replaces it.
        source : str
            CF attribute ``source`` of the whole.

        Raises
        ------
        StoreError
            If rows that this run does not redo were made in another way, or the disk does not take it.
        """
        with _clear_errors(self.path):
            node = zarr.open_array(self.path / _PROVENANCE, mode="r+")
            known = dict(node.attrs)
            self._refuse_mixture(known, provenance)
            merged = {key: {**_mapping(known.get(key)), **provenance[key]} for key in _ACCUMULATED if key in provenance}
            node.attrs.update({**provenance, **merged})
            zarr.open_group(self.path, mode="r+").attrs["source"] = source
            _consolidate(self.path)

    def _refuse_mixture(self, known: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        kept = [row for row in known.get("scenes", {}) if row not in provenance["scenes"]]
        changed = [key for key in _MADE_BY if key in known and known[key] != provenance[key]]
        if kept and changed:
            key = changed[0]
            raise StoreError(
                f"the store {self.path} holds {len(kept)} dates, such as {kept[0]}, made with "
                f"{key.removesuffix('_hash')} {known[key]}, and this run has {provenance[key]}",
                "choose another path, keep to what the store was made with, or run over all of its dates",
            )


def open_store(path: str | Path) -> xr.Dataset:
    """Open a probability cube for analysis.

    Parameters
    ----------
    path : str or Path
        Folder of the store.

    Returns
    -------
    Dataset
        As ``xarray.open_zarr`` gives it, rows in order of time: ``glacier_probability`` (time, y, x) float64 in 0 to 1
        (xarray's decoding of packed uint8), NaN where missing; ``quality`` (time, y, x) uint8 flags, 0 never processed.

    Raises
    ------
    StoreError
        If it is not a store that glaciercube wrote.
    """
    try:
        dataset: xr.Dataset = xr.open_zarr(path, decode_coords="all", consolidated=True)
    except Exception as error:
        raise StoreError(f"{path} cannot be opened as a Zarr store ({_first_line(error)})", "check the path") from error
    missing = [name for name in _ARRAYS if name not in dataset]
    if missing:
        raise StoreError(f"{path} has no {' and no '.join(missing)}", "give a store that glaciercube wrote")
    ordered: xr.Dataset = dataset.sortby("time")
    return ordered


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def row_label(time: np.datetime64) -> str:
    """A row's time as ISO 8601, to the second."""
    return str(np.asarray(time).astype("datetime64[s]"))


def _create(path: Path, empty: xr.Dataset, options: StoreOptions) -> None:
    empty = empty.assign_coords({_PROVENANCE: ((), np.int32(0), {"long_name": "how this cube was made"})})
    # Under another name until it is whole: a store that could only be begun would be in the way of the next run.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _quiet():
            empty.to_zarr(
                partial,
                compute=False,
                zarr_format=3,
                consolidated=True,
                encoding=encoding(options, [str(name) for name in empty.variables]),
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_same(path: Path, geobox: GeoBox, options: StoreOptions) -> None:
    try:
        root = zarr.open_group(path, mode="r")
        known = dict(root.attrs)
        array = zarr.open_array(path / "glacier_probability", mode="r")
    except Exception as error:
        raise StoreError(
            f"{path} exists and is not a probability store ({_first_line(error)})", "choose another path"
        ) from error
    wanted = grid_attributes(geobox)
    for name, value in wanted.items():
        if known.get(name) != value:
            raise GridMismatchError(
                f"the store {path} was made with another grid ({name} is {known.get(name)} there and {value} here)",
                "use the region and resolution that it was made with, or choose another path",
            )
    if array.shards is None or array.shards[1:] != (options.block, options.block):
        raise GridMismatchError(
            f"the store {path} has shards of {array.shards} and this run wants {options.block} pixels",
            "keep the shard size that it was made with, or choose another path",
        )


def _bring_up_to_date(path: Path, times: npt.NDArray[np.datetime64], extra: xr.Dataset) -> None:
    """Add the rows that are missing, and write the planned rows' own values anew.

    May be killed anywhere and done again: the time of a row is written last, and a row without one does not exist.
    """
    root = zarr.open_group(path, mode="r+")
    known = _labels(path)
    labels = [row_label(time) for time in times]
    # Rows are added in order of arrival, so that no old shard is touched; `open_store` sorts.
    every = known + [label for label in labels if label not in known]
    rows = np.array([every.index(label) for label in labels])
    for name in map(str, extra.variables):
        if name not in root and extra[name].dims == ("time",) and name != "time":
            _add_variable(root, name, extra[name], len(known))
    for name, array in root.arrays():
        dims = getattr(array.metadata, "dimension_names", None) or ()
        if name == "time" or dims[:1] != ("time",):
            continue
        if array.shape[0] != len(every):
            array.resize((len(every), *array.shape[1:]))
        if name in extra.variables and len(rows):
            values = extra[name].to_numpy()
            array.oindex[rows] = values.astype("datetime64[s]").astype("int64") if values.dtype.kind == "M" else values
    axis = zarr.open_array(path / "time", mode="r+")
    if axis.shape[0] != len(every):
        axis.resize((len(every),))
    if len(every) > len(known):
        axis[len(known) :] = np.array(every[len(known) :], "datetime64[s]").astype("int64")
    _consolidate(path)


def _add_variable(root: zarr.Group, name: str, variable: xr.DataArray, length: int) -> None:
    array = root.create_array(
        name, shape=(length,), chunks=(4096,), dtype="float32", fill_value=np.nan, dimension_names=("time",)
    )
    array.attrs.update({str(key): value for key, value in variable.attrs.items()})


def _labels(path: Path) -> list[str]:
    """Labels of the rows, up to the first whose time was never written."""
    seconds = np.asarray(zarr.open_array(path / "time", mode="r")[:])
    unfinished = np.flatnonzero(seconds == NO_TIME)
    return [row_label(time) for time in seconds[: unfinished[0] if unfinished.size else None].astype("datetime64[s]")]


def _consolidate(path: Path) -> None:
    with _quiet():
        zarr.consolidate_metadata(str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Every reader that knows consolidated metadata opens the store in one request; others do without.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part", UserWarning)
        yield


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise StoreError(
            f"cannot write to the store {path} ({error.strerror or error})",
            ("free space" if full else "check the path and its permissions")
            + ", then run again: what was written is kept and only the rest is computed",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def provenance_of(dataset: xr.Dataset) -> dict[str, Any]:
    """What a store, or a prediction in memory, says of how it was made; empty if nothing."""
    variable = dataset.coords.get(_PROVENANCE)
    made = dataset.attrs if variable is None else variable.attrs
    return {str(key): value for key, value in made.items()}
