"""Spatial cross-validation: which chips train, which stop the training, and which test, by geography.

Chips near each other show the same glaciers, snow and light. A test among them says how well a model remembers; these
splits keep a buffer of ground between what trains and what tests (Roberts et al. 2017, doi:10.1111/ecog.02881).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from glaciercube.errors import ModelError, require
from glaciercube.models.chips import Chip
from glaciercube.training.sites import FloatArray, Site, block_of, close_pairs, positions, sites_of

__all__ = ["FoldOptions", "Split", "make_folds"]

Kind = Literal["blocks", "bands", "places", "distance"]
Group = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FoldOptions:
    """How chips are parted.

    Attributes
    ----------
    kind : str
        ``"blocks"``: blocks of the Earth's surface, spread over the folds so that each holds about as much glacier.
        ``"bands"``: the same blocks from west to east in runs of about as much glacier, as DL4GAM does (Diaconu et al.
        2025): fewer chips are lost to the buffer, and folds differ more in climate. ``"places"``: every place is a
        fold of its own. ``"distance"``: chips nearer to each other than the buffer are one group, and every group is a
        fold, for few scenes.
    folds : int
        How many, 2 or more. Not used by the kinds ``places`` and ``distance``, which make as many as there are.
    block : float
        Side of a block in kilometres. 50 by default: with fewer than a few blocks per fold areas cannot be balanced,
        and blocks should be much larger than the buffer.
    buffer : float
        Metres of ground between the footprints of chips that train and of chips that test, stop the training, or
        calibrate. 1000 by default: a mountain glacier is a few hundred metres wide, and a chip beside another shows the
        other half of it.
    validation : bool
        Whether another fold of each split, or place, or group, stops the training. Needs three.
    seed : int
        Decides among blocks that are equal.
    """

    kind: Kind = "blocks"
    folds: int = 5
    block: float = 50.0
    buffer: float = 1000.0
    validation: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        kinds = get_args(Kind)
        require(self.kind in kinds, f"there are no folds by {self.kind!r}", f"choose one of {', '.join(kinds)}")
        require(self.folds >= 2, f"{self.folds} folds are none", "give 2 or more")
        require(1 <= self.block <= 20000, f"block {self.block} is not a size in kilometres", "give 1 to 20000")
        require(0 <= self.buffer <= 2e6, f"buffer {self.buffer} is not a distance in metres", "give 0 to 2000000")
        fine = self.kind != "distance" or self.buffer > 0
        require(
            fine, "folds by distance have no buffer", "give the distance in metres within which chips are one group"
        )


@dataclass(frozen=True)
class Split:
    """Which chips do what, by their index.

    Attributes
    ----------
    name : str
        Of the fold, or of the place that tests.
    train, validation, test : tuple of int
        Rising.
    dropped : tuple of int
        Used for nothing, since they lie within the buffer.
    buffer : float
        Metres.
    """

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    dropped: tuple[int, ...] = field(default=())
    buffer: float = 0.0

    def names(self, count: int) -> list[str]:
        """What each of `count` chips does: ``train``, ``validation``, ``test`` or ``dropped``."""
        found = ["dropped"] * count
        for role in ("train", "validation", "test"):
            for index in getattr(self, role):
                found[index] = role
        return found


def make_folds(chips: Sequence[Chip] | Sequence[Site], options: FoldOptions | None = None) -> list[Split]:
    """Part chips for cross-validation, so that each is tested once.

    Parameters
    ----------
    chips : sequence of Chip or Site
        Lazy ones are not read. Chips of one place are never parted.
    options : FoldOptions or None
        How.

    Returns
    -------
    list of Split
        One per fold, in order. No chip that trains is nearer than the buffer to one that tests or stops the training,
        and none that stops it is to one that tests: those that would be are dropped from the split.

    Raises
    ------
    ModelError
        If chips that need it say nowhere where they lie, there are fewer blocks, places or groups than folds, or the
        buffer leaves a split nothing to train on or to stop by.
    """
    options = options or FoldOptions()
    sites = _sites(chips)
    places = _numbered([site.place for site in sites])
    # By place alone, and without a buffer, it may be unknown where chips lie.
    somewhere = options.kind != "places" or options.buffer > 0
    corners = positions(sites) if somewhere else []
    groups, names = _groups(sites, places, corners, options)
    pairs = close_pairs(corners, options.buffer, groups.tolist()) if somewhere else np.zeros((0, 2), np.int64)
    area = _sums(groups, [site.area for site in sites])
    return [_split(fold, names, groups, area, pairs, options) for fold in range(len(names))]


def _sites(chips: Sequence[Chip] | Sequence[Site]) -> tuple[Site, ...]:
    if len(chips) and isinstance(chips[0] if not hasattr(chips, "sites") else None, Site):
        return tuple(site for site in chips if isinstance(site, Site))
    sites = sites_of(chips)  # type: ignore[arg-type]
    if not sites:
        raise ModelError("there are no chips to part", "draw some")
    return sites


def _numbered(names: Sequence[str]) -> Group:
    """Number of each name, in the order in which they first appear."""
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] for name in names], np.int64)


def _sums(groups: Group, values: npt.ArrayLike) -> FloatArray:
    """Sum of the values of each group."""
    return np.asarray(np.bincount(groups, weights=np.asarray(values, dtype=float)), dtype=float)


def _groups(
    sites: Sequence[Site], places: Group, corners: Sequence[FloatArray], options: FoldOptions
) -> tuple[Group, list[str]]:
    """Fold of every site, and the folds' names."""
    if options.kind == "places":
        groups, names = places, list(dict.fromkeys(site.place for site in sites))
        wanted = 2
    elif options.kind == "distance":
        groups = _linked(places, close_pairs(corners, options.buffer, places.tolist()))
        names = [
            " + ".join(dict.fromkeys(s.place for s, g in zip(sites, groups, strict=True) if g == number))
            for number in range(int(groups.max()) + 1)
        ]
        wanted = 2
    else:
        groups = _by_blocks(sites, places, corners, options)
        names = [f"fold-{number + 1}" for number in range(int(groups.max()) + 1)]
        wanted = options.folds
    if len(names) < wanted:
        what = {"places": "places", "distance": "groups that lie apart"}.get(options.kind, "blocks with chips")
        raise ModelError(
            f"the chips make {len(names)} {what}, fewer than {wanted} folds",
            "give smaller blocks, a smaller buffer, fewer folds or more chips",
        )
    return groups, names


def _linked(places: Group, pairs: Group) -> Group:
    """Places and what lies near them, near those, and so on, as one group each."""
    count = int(places.max()) + 1
    links = coo_array((np.ones(len(pairs)), (places[pairs[:, 0]], places[pairs[:, 1]])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)[places]


def _by_blocks(sites: Sequence[Site], places: Group, corners: Sequence[FloatArray], options: FoldOptions) -> Group:
    """Fold of every site: places go where their middle lies, and blocks to folds by area."""
    middles = np.array([c.mean(axis=0) for c in corners])
    middle = np.stack([_sums(places, axis) for axis in middles.T], axis=1)
    blocks = [block_of(point, options.block * 1000.0) for point in middle]
    # Chips without ice still have to go somewhere: each counts a little.
    area = _sums(places, [site.area + 1e-3 for site in sites])
    held: dict[tuple[int, int], float] = {}
    for block, extent in zip(blocks, area, strict=True):
        held[block] = held.get(block, 0.0) + float(extent)
    fold = _runs(held, middle, blocks, options.folds) if options.kind == "bands" else _spread(held, options)
    return _numbered_as([fold[block] for block in blocks])[places]


def _numbered_as(folds: Sequence[int]) -> Group:
    known = {number: rank for rank, number in enumerate(sorted(set(folds)))}
    return np.array([known[number] for number in folds], np.int64)


def _spread(held: Mapping[tuple[int, int], float], options: FoldOptions) -> dict[tuple[int, int], int]:
    """The largest block first, each to the fold that holds least (Graham 1969, doi:10.1137/0117039)."""

    def order(block: tuple[int, int]) -> tuple[float, bytes]:
        return -held[block], hashlib.sha256(f"{options.seed}/{block}".encode()).digest()

    load, fold = [0.0] * options.folds, {}
    for block in sorted(held, key=order):
        fold[block] = int(np.argmin(load))
        load[fold[block]] += held[block]
    return fold


def _runs(
    held: Mapping[tuple[int, int], float], middle: FloatArray, blocks: Sequence[tuple[int, int]], folds: int
) -> dict[tuple[int, int], int]:
    """Blocks from west to east, beginning after the widest gap, cut by cumulative area."""
    longitude: dict[tuple[int, int], float] = {}
    for block, (x, y, _) in zip(blocks, middle, strict=True):
        longitude.setdefault(block, float(np.degrees(np.arctan2(y, x))))
    order = sorted(held, key=lambda block: (longitude[block], block))
    along = np.array([longitude[block] for block in order])
    start = int(np.argmax(np.diff(np.concatenate([along[-1:] - 360.0, along]))))
    order = order[start:] + order[:start]
    ends = np.cumsum([held[block] for block in order])
    fold, number = {}, 0
    for rank, block in enumerate(order):
        # By the middle of the block's own share; every fold gets a block, and those to come keep one each.
        wanted = int(folds * (ends[rank] - held[block] / 2.0) / ends[-1])
        fold[block] = number = max(min(max(wanted, number), number + (rank > 0)), folds - (len(order) - rank), 0)
    return fold


def _split(
    fold: int, names: Sequence[str], groups: Group, area: FloatArray, pairs: Group, options: FoldOptions
) -> Split:
    """The split in which one group tests."""
    role = np.zeros(len(groups), np.int64)  # 0 trains, 1 stops the training, 2 tests
    role[groups == fold] = 2
    if options.validation and len(names) > 2:
        role[groups == _stopping(fold, area)] = 1
    dropped = np.zeros(len(groups), bool)
    # What tests is never dropped, and what stops the training goes before what trains.
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    dropped[first[(role[second] == 2) & (role[first] < 2)]] = True
    dropped[first[(role[second] == 1) & ~dropped[second] & (role[first] == 0)]] = True

    def chosen(number: int) -> tuple[int, ...]:
        return tuple(np.flatnonzero((role == number) & ~dropped).tolist())

    lost = tuple(np.flatnonzero(dropped).tolist())
    split = Split(names[fold], chosen(0), chosen(1), chosen(2), lost, options.buffer)
    empty = "train on" if not split.train else "stop the training by"
    if not split.train or ((role == 1).any() and not split.validation):
        raise ModelError(
            f"{split.name}: a buffer of {options.buffer:g} m leaves no chip to {empty} ({len(lost)} dropped)",
            "give a smaller buffer, larger blocks, or chips of a larger area",
        )
    return split


def _stopping(fold: int, area: FloatArray) -> int:
    """The group that stops the training while `fold` tests: the next that holds glacier."""
    others = [(fold + step) % len(area) for step in range(1, len(area))]
    return next((group for group in others if area[group] > 0), others[0])
