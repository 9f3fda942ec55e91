"""Spatial folds: nothing that trains is near to what tests, anywhere on Earth, and nothing is dropped for no reason."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from glaciercube.errors import GlaciercubeError, ModelError
from glaciercube.models.chips import Chip
from glaciercube.training.folds import FoldOptions, Split, make_folds
from glaciercube.training.sites import Site, block_of, close_pairs, gaps, positions, site_of

GEOD = Geod(ellps="WGS84")
# Where longitudes end, where they meet, and where neither happens.
CORNERS = [(86.8, 27.95), (180.0, 70.0), (-179.99, -45.0), (0.0, 90.0), (120.0, -90.0), (-45.0, 0.0)]


def square(longitude: float, latitude: float, side: float, turned: float = 0.0) -> tuple[tuple[float, float], ...]:
    """Corners of a square of some metres."""
    angles = turned + np.array([45.0, 135.0, 225.0, 315.0])
    far = np.full(4, side / np.sqrt(2))
    x, y, _ = GEOD.fwd(np.full(4, longitude), np.full(4, latitude), angles, far)
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def flat_gaps(sites: list[Site], corner: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Metres between all footprints on an azimuthal equidistant map around a point: right to 2e-5 within 70 km."""
    there = Transformer.from_crs(
        "EPSG:4326", f"+proj=aeqd +lon_0={corner[0]} +lat_0={corner[1]} +ellps=WGS84", always_xy=True
    )
    rings = [shapely.Polygon(np.transpose(there.transform(*np.transpose(site.footprint)))) for site in sites]
    return np.asarray(shapely.distance(np.array(rings)[:, None], np.array(rings)[None, :]))


def scattered(corner: tuple[float, float], seed: int, count: int, spread: float) -> list[Site]:
    """Chips of several places, at random around a point."""
    rng = np.random.default_rng(seed)
    angles, reach = rng.uniform(0, 360, count), spread * np.sqrt(rng.uniform(0, 1, count))
    x, y, _ = GEOD.fwd(np.full(count, corner[0]), np.full(count, corner[1]), angles, reach)
    places = rng.integers(0, max(2, count // 2), count)
    return [
        Site(f"chip-{i}", f"place-{places[i]}", square(x[i], y[i], 2560.0, rng.uniform(0, 90)), rng.uniform(0, 4))
        for i in range(count)
    ]


def held_apart(sites: list[Site], split: Split, apart: npt.NDArray[np.float64], buffer: float) -> None:
    parts = [split.train, split.validation, split.test]
    for one, other in itertools.combinations(parts, 2):
        if one and other:
            assert apart[np.ix_(one, other)].min() >= buffer - 0.001
        assert not {sites[i].place for i in one} & {sites[i].place for i in other}
    # Each that was dropped is near to what it was dropped for.
    for index in split.dropped:
        assert apart[index, [*split.test, *split.validation]].min() < buffer + 1.0


@given(
    corner=st.sampled_from(CORNERS),
    seed=st.integers(0, 2**16),
    kind=st.sampled_from(["blocks", "bands", "places", "distance"]),
    buffer=st.floats(100.0, 12_000.0),
)
@examples(max_examples=30)
def test_no_chip_that_trains_is_nearer_than_the_buffer(
    corner: tuple[float, float], seed: int, kind: str, buffer: float
) -> None:
    sites = scattered(corner, seed, 14, 60_000.0)
    options = FoldOptions(kind=kind, folds=3, block=20.0, buffer=buffer)  # type: ignore[arg-type]
    try:
        splits = make_folds(sites, options)
    except ModelError as error:
        assume("leaves no chip" not in error.problem and "fewer than" not in error.problem)
        raise
    tested = [index for split in splits for index in split.test]
    assert sorted(tested) == list(range(len(sites)))
    apart = flat_gaps(sites, corner)
    for split in splits:
        everything = (*split.train, *split.validation, *split.test, *split.dropped)
        assert sorted(everything) == list(range(len(sites)))
        held_apart(sites, split, apart, buffer)


@pytest.mark.parametrize("corner", CORNERS)
def test_the_gap_of_footprints_is_the_geodesic_between_them(corner: tuple[float, float]) -> None:
    x, y, _ = GEOD.fwd(corner[0], corner[1], 90.0, 7000.0)
    sites = [Site("a", "a", square(*corner, 2000.0)), Site("b", "b", square(x, y, 3000.0, 20.0))]
    found = gaps(positions(sites), np.array([[0, 1]]))[0]
    assert found == pytest.approx(flat_gaps(sites, corner)[0, 1], abs=0.05)
    # Two that touch at their corners along a meridian: what is known exactly.
    above = GEOD.fwd(-45.0, 10.0, 0.0, 5000.0)
    pair = [Site("a", "a", square(-45.0, 10.0, 1000.0, 45.0)), Site("b", "b", square(above[0], above[1], 1000.0, 45.0))]
    assert gaps(positions(pair), np.array([[0, 1]]))[0] == pytest.approx(5000.0 - 2 * 1000.0 / np.sqrt(2), abs=0.05)


def test_tiles_that_are_193_m_apart_are_one_group_and_others_are_left_out_each() -> None:
    back = Transformer.from_crs("EPSG:32643", "EPSG:4326", always_xy=True)
    sites = []
    for number, left in ((113, 500_000.0), (114, 505_193.0), (120, 520_000.0)):
        ring = [(left, 3.9e6), (left + 5000, 3.9e6), (left + 5000, 3.905e6), (left, 3.905e6)]
        sites.append(Site(str(number), str(number), tuple(back.transform(x, y) for x, y in ring), 1.0))
    splits = make_folds(sites, FoldOptions("distance", buffer=200.0, validation=False))
    assert [(s.name, s.train, s.test, s.dropped) for s in splits] == [
        ("113 + 114", (2,), (0, 1), ()),
        ("120", (0, 1), (2,), ()),
    ]
    apart = make_folds(sites, FoldOptions("distance", buffer=190.0, validation=False))
    assert [s.test for s in apart] == [(0,), (1,), (2,)]


def test_folds_hold_about_as_much_glacier() -> None:
    rng = np.random.default_rng(4)
    sites = [
        Site(f"c{i}", f"p{i}", square(7.0 + rng.uniform(0, 6), 45.5 + rng.uniform(0, 1.5), 2560.0), rng.gamma(0.7, 3.0))
        for i in range(300)
    ]
    total = sum(site.area for site in sites)
    for kind, most in (("blocks", 1.15), ("bands", 1.35)):
        splits = make_folds(sites, FoldOptions(kind, folds=5, block=20.0, buffer=0.0))  # type: ignore[arg-type]
        held = [sum(sites[i].area for i in split.test) for split in splits]
        assert max(held) < most * total / 5
        assert min(held) > (2 - most) * total / 5
    bands = make_folds(sites, FoldOptions("bands", folds=5, block=20.0, buffer=2000.0))
    blocks = make_folds(sites, FoldOptions("blocks", folds=5, block=20.0, buffer=2000.0))
    assert sum(len(s.dropped) for s in bands) < sum(len(s.dropped) for s in blocks)


def test_a_buffer_that_leaves_nothing_is_refused() -> None:
    sites = scattered((10.0, 46.0), 1, 12, 20_000.0)
    with pytest.raises(ModelError, match="leaves no chip to train on"):
        make_folds(sites, FoldOptions(folds=3, block=10.0, buffer=100_000.0))
    with pytest.raises(ModelError, match="fewer than 3 folds"):
        make_folds(sites, FoldOptions(folds=3, block=10_000.0))
    with pytest.raises(GlaciercubeError, match="folds are none"):
        FoldOptions(folds=1)


def test_chips_without_a_place_on_earth_are_parted_by_place_alone() -> None:
    sites = [Site(f"c{i}", f"p{i % 3}", (), 1.0) for i in range(9)]
    splits = make_folds(sites, FoldOptions("places", buffer=0.0))
    assert [split.test for split in splits] == [(0, 3, 6), (1, 4, 7), (2, 5, 8)]
    with pytest.raises(ModelError, match="says nowhere"):
        make_folds(sites, FoldOptions("places", buffer=100.0))


def test_a_chip_of_which_only_the_middle_is_known_is_held_by_its_circle() -> None:
    label = np.zeros((1, 100, 200), np.uint8)
    label[0, :50] = 1
    chip = Chip(
        {},
        label,
        {"other": ("other",), "ice": ("clean_ice", "debris_covered_ice")},
        np.ones(label.shape, np.float32),
        np.array(["2020-08-01"], "datetime64[s]"),
        20.0,
        "chip",
        centre=(179.999, 65.0),
    )
    site = site_of(chip)
    assert site.area == pytest.approx(50 * 200 * 400 / 1e6)
    corner = GEOD.fwd(179.999, 65.0, 0.0, 20.0 * np.hypot(100, 200) / 2 + 500.0)[:2]
    beyond = Site("b", "b", (corner, corner, corner), 0.0)
    found = gaps(positions([site, beyond]), np.array([[0, 1]]))[0]
    assert 400.0 < found <= 500.5
    assert len(close_pairs(positions([site, beyond]), 600.0, [0, 1])) == 1


@given(longitude=st.floats(-180, 180), latitude=st.floats(-90, 90), size=st.floats(5e3, 3e6))
@examples(max_examples=50)
def test_blocks_are_no_larger_than_three_times_their_size(longitude: float, latitude: float, size: float) -> None:
    point = positions([Site("a", "a", ((longitude, latitude),) * 3)])[0][0]
    row, column = block_of(point, size)
    near = GEOD.fwd(longitude, latitude, 45.0, 3.0 * size)
    if near[2] is not None and 3.0 * size < 5e6:
        other = positions([Site("a", "a", ((near[0], near[1]),) * 3)])[0][0]
        assert block_of(other, size) != (row, column)
