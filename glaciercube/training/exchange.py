"""Sampled sets as files: a benchmark that describes itself, and gives the same chips back bit for bit.

    set/collection.json          STAC collection: licence, citation, extent, fingerprint
    set/items/SPLIT/NAME.json    a STAC item per chip, with the label extension
    set/chips.zarr/NAME          its pixels: a Zarr v3 group, which xarray opens as a CF dataset
    set/chips.json               names, splits, places and hashes, for readers in a hurry
    set/README.md                for people

A group per chip, since chips may differ in size, dates and variables, and each is an item of its own that can be copied
alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from glaciercube.errors import ModelError, ReadError, StoreError
from glaciercube.models.chips import Chip
from glaciercube.training.dataset import dataset_of
from glaciercube.training.items import collection_of, item_of, readme_of
from glaciercube.training.sites import Site, site_of

__all__ = ["SetInfo", "StoredChips", "content_hash", "read_set", "read_sets", "write_set"]

#: Of the files.
FORMAT = 1
_COORDS = ("time", "y", "x", "spatial_ref")
_TRUTH = ("label", "weight", "glaciers", "sure")
#: What is read of an entry of chips.json.
_ENTRY = ("name", "key", "split", "place", "footprint", "glacier_km2", "sha256")


@dataclass(frozen=True)
class SetInfo:
    """What people must know of a set.

    Attributes
    ----------
    title, description : str
        In words.
    licence : str
        SPDX identifier of the whole, ``other`` where inputs have their own.
    citation : str
        Of images and outlines, as their licences ask.
    """

    title: str = "Glacier samples"
    description: str = "Satellite images of glaciers with labels drawn from outlines."
    licence: str = "other"
    citation: str = ""


def write_set(
    chips: Sequence[Chip],
    folder: str | Path,
    splits: Mapping[str, Sequence[int]] | None = None,
    info: SetInfo | None = None,
    *,
    progress: bool = False,
) -> str:
    """Write chips to a new folder.

    Parameters
    ----------
    chips : sequence of Chip
        Read one after another; a lazy sequence is never held as a whole.
    folder : path
        Made; must be empty if it is there.
    splits : mapping of str to sequence of int, optional
        Indices of the chips of each part, by its name; others are left out. All in ``all`` by default.
    info : SetInfo or None
        Title, licence, citation.
    progress : bool
        Show a bar.

    Returns
    -------
    str
        Fingerprint: sha256 (hex) over the content of all chips and their splits.

    Raises
    ------
    StoreError
        If the folder holds anything.
    ModelError
        If there are no chips, a split's name is no word, a chip is in two splits, or it has attributes that JSON cannot
        hold.
    """
    from tqdm.auto import tqdm

    place, info = Path(folder), info or SetInfo()
    jobs = _jobs(len(chips), splits)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise StoreError(f"there is something at {place}", "give a folder that is new or empty")
    place.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    taken = set[str]()
    for index, split in tqdm(jobs, desc="writing chips", unit="chip", disable=not progress):
        chip = chips[index]
        entry = _entry(chip, split, taken)
        dataset = dataset_of(chip, {"chip": _record(chip), "sha256": entry["sha256"]})
        # Chunks that are all one value too: 0 stands for -0, and a NaN for others, where they are left out.
        options: Any = {"zarr_format": 3, "consolidated": False, "write_empty_chunks": True}
        dataset.to_zarr(place / "chips.zarr", group=entry["key"], mode="w", **options)
        _write(place / "items" / split / f"{entry['key']}.json", item_of(chip, entry, info.description))
        entries.append(entry)
    fingerprint = _fingerprint(entries)
    said = _provenance(chips)
    _write(place / "chips.json", {"format": FORMAT, "fingerprint": fingerprint, "chips": entries})
    (place / "README.md").write_text(readme_of(entries, asdict(info), fingerprint, said), encoding="utf-8")
    # Last: a set without it is not finished.
    _write(place / "collection.json", collection_of(entries, asdict(info), fingerprint, said))
    return fingerprint


def read_set(folder: str | Path, split: str | None = None, *, check: bool = True) -> StoredChips:
    """Open a set, lazily.

    Parameters
    ----------
    folder : path
        From `write_set`.
    split : str or None
        One part of it; all by default.
    check : bool
        Hold each chip that is read against its hash.

    Raises
    ------
    StoreError
        If there is no finished set, its list of chips is not what was written, or it has no such split.
    """
    place = Path(folder)
    try:
        content = json.loads((place / "chips.json").read_text(encoding="utf-8"))
        finished = (place / "collection.json").is_file()
    except (OSError, ValueError):
        content, finished = {}, False
    if not finished or not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(f"there is no finished set of chips at {place}", "check the path, or write the set again")
    if not _listed(content.get("chips")) or _fingerprint(content["chips"]) != content.get("fingerprint"):
        raise StoreError(f"the list of chips at {place} was changed after it was written", "write or copy it again")
    entries = tuple((str(place), entry) for entry in content["chips"] if split in (None, entry["split"]))
    if not entries:
        known = ", ".join(dict.fromkeys(entry["split"] for entry in content["chips"]))
        raise StoreError(f"the set at {place} has no split {split!r}", f"it has {known}")
    return StoredChips(entries, check=check)


def read_sets(folders: Iterable[str | Path], split: str | None = None, *, check: bool = True) -> StoredChips:
    """Open several sets as one; see `read_set`."""
    sets = [read_set(folder, split, check=check) for folder in folders]
    return StoredChips(tuple(entry for one in sets for entry in one.entries), check=check)


@dataclass(frozen=True, eq=False)
class StoredChips(Sequence[Chip]):
    """A sequence of chips on disk, each of which is read when it is asked for.

    Attributes
    ----------
    entries : tuple of (str, dict)
        Folder of the set, and what it says of the chip.
    check : bool
        Hold each against its hash.
    """

    entries: tuple[tuple[str, Mapping[str, Any]], ...]
    check: bool = True

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, item: int) -> Chip: ...

    @overload
    def __getitem__(self, item: slice) -> StoredChips: ...

    def __getitem__(self, item: int | slice) -> Chip | StoredChips:
        if isinstance(item, slice):
            return replace(self, entries=self.entries[item])
        return self._read(*self.entries[item])

    def __iter__(self) -> Iterator[Chip]:
        return (self._read(*entry) for entry in self.entries)

    def take(self, indices: Iterable[int]) -> StoredChips:
        """Some of the chips, in a given order; nothing is read."""
        return replace(self, entries=tuple(self.entries[i] for i in indices))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where the chips lie; nothing is read."""
        return tuple(
            Site(e["name"], e["place"], tuple((float(x), float(y)) for x, y in e["footprint"]), e["glacier_km2"])
            for _, e in self.entries
        )

    @property
    def splits(self) -> dict[str, tuple[int, ...]]:
        """Indices of the chips of each part of the set, by its name."""
        found: dict[str, list[int]] = {}
        for index, (_, entry) in enumerate(self.entries):
            found.setdefault(entry["split"], []).append(index)
        return {name: tuple(indices) for name, indices in found.items()}

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) over the content of the chips in their order, as the sets say it; nothing is read."""
        return hashlib.sha256(" ".join(entry["sha256"] for _, entry in self.entries).encode()).hexdigest()

    def _read(self, folder: str, entry: Mapping[str, Any]) -> Chip:
        import zarr

        try:
            group = zarr.open_group(str(Path(folder) / "chips.zarr" / entry["key"]), mode="r")
            said: Any = group.attrs.asdict()["chip"]
            arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
            lacking = [name for name in (*said["variables"], "label", "weight") if name not in arrays]
            if lacking:
                raise ReadError(
                    f"chip {entry['name']!r} of the set {folder} lacks {', '.join(lacking)}",
                    "copy or write the set again",
                )
            chip = _chip(said, arrays)
        except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ReadError(
                f"chip {entry['name']!r} of the set {folder} cannot be read ({type(error).__name__})",
                "copy or write the set again",
            ) from error
        if self.check and content_hash(chip) != entry["sha256"]:
            raise ReadError(
                f"chip {entry['name']!r} of the set {folder} is not what was written", "copy or write the set again"
            )
        return chip


def content_hash(chip: Chip) -> str:
    """Sha256 (hex) over everything that a chip holds, to the last bit.

    Raises
    ------
    ModelError
        If its attributes are not what JSON can hold.
    """
    digest = hashlib.sha256(_json(_record(chip), chip.name).encode())
    arrays: dict[str, Any] = {f"variables/{name}": values for name, values in chip.variables.items()}
    truth = {name: getattr(chip, name) for name in _TRUTH}
    arrays |= {name: values for name, values in truth.items() if values is not None}
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {little.dtype.str} {values.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def _record(chip: Chip) -> dict[str, Any]:
    """What a chip holds beside its pixels."""
    return {
        "name": chip.name,
        "place": chip.place,
        "centre": None if chip.centre is None else list(chip.centre),
        "resolution": chip.resolution,
        "labels": [[name, list(classes)] for name, classes in chip.labels.items()],
        "variables": list(chip.variables),
        "time": [int(second) for second in chip.time.astype("datetime64[s]").astype(np.int64)],
        "attributes": dict(chip.attributes),
    }


def _chip(said: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Chip:
    return Chip(
        variables={name: arrays[name] for name in said["variables"]},
        label=arrays["label"],
        labels={name: tuple(classes) for name, classes in said["labels"]},
        weight=arrays["weight"],
        time=np.array(said["time"], np.int64).astype("datetime64[s]"),
        resolution=said["resolution"],
        name=said["name"],
        place=said["place"],
        centre=None if said["centre"] is None else (said["centre"][0], said["centre"][1]),
        glaciers=arrays.get("glaciers"),
        sure=arrays["sure"].astype(bool) if "sure" in arrays else None,
        attributes=said["attributes"],
    )


def _json(content: Any, name: str) -> str:
    try:
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"chip {name!r} has attributes that JSON cannot hold ({error})", "give numbers, text, lists and mappings"
        ) from error


def _jobs(count: int, splits: Mapping[str, Sequence[int]] | None) -> list[tuple[int, str]]:
    """Which chips to write, and in which split."""
    if splits is None:
        splits = {"all": range(count)}
    wrong = next((name for name in splits if not re.fullmatch(r"[a-z][a-z0-9_-]*", name)), None)
    if wrong is not None:
        raise ModelError(f"{wrong!r} cannot name a split", "give words of small letters, such as train and test")
    jobs = sorted((index, name) for name, indices in splits.items() for index in indices)
    twice = next((one for (one, _), (other, _) in itertools.pairwise(jobs) if one == other), None)
    if twice is not None:
        raise ModelError(f"chip {twice} is in two splits", "give each chip one")
    if not jobs:
        raise ModelError("there are no chips to write", "draw some")
    return jobs


def _entry(chip: Chip, split: str, taken: set[str]) -> dict[str, Any]:
    if set(chip.variables) & {*_COORDS, *_TRUTH}:
        raise ModelError(f"chip {chip.name!r} has a variable called like a coordinate", "rename it")
    key = re.sub(r"[^A-Za-z0-9_.-]+", "-", chip.name).strip(".-") or "chip"
    while key in taken:
        key = f"{key}-{len(taken)}"
    taken.add(key)
    site = site_of(chip)
    return {
        "name": chip.name,
        "key": key,
        "split": split,
        "place": site.place,
        "footprint": [list(point) for point in site.footprint],
        "glacier_km2": site.area,
        "sha256": content_hash(chip),
        "dates": [str(date)[:10] for date in chip.time],
        "variables": list(chip.variables),
        "labels": {name: list(classes) for name, classes in chip.labels.items()},
    }


def _listed(entries: Any) -> bool:
    """Whether all entries of chips.json have what is read of them."""
    return isinstance(entries, list) and all(isinstance(each, dict) and set(_ENTRY) <= set(each) for each in entries)


def _fingerprint(entries: Sequence[Mapping[str, Any]]) -> str:
    lines = "\n".join(f"{entry['split']} {entry['key']} {entry['sha256']}" for entry in entries)
    return hashlib.sha256(lines.encode()).hexdigest()


def _provenance(chips: Sequence[Chip]) -> dict[str, Any]:
    """What is known of how the chips were drawn, without where files lay."""
    said: dict[str, Any] = {}
    if hasattr(chips, "summary"):
        said = {name: value for name, value in chips.summary().items() if name in ("messages", "outlines")}
        said["outlines"] = Path(str(said.get("outlines", ""))).name
        options: Any = getattr(chips, "options", None)
        said["options"] = asdict(options) if options is not None else {}
        for name in ("outlines", "debris", "sets"):
            said["options"].pop(name, None)
    return said


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
