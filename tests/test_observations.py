"""From items to observations: what is left out and why, duplicates, parts, and passes across midnight."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from made_items import KHUMBU, Json, item, optical, radar, write

from glaciercube.catalog import Scenes, SensorOptions, find
from glaciercube.errors import EmptySearchError
from glaciercube.region import Region

WHEN = dt.datetime(2022, 7, 1, 5, 0, tzinfo=dt.UTC)
REGION = Region.from_bbox(KHUMBU, resolution=20, name="khumbu")
DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)


def search(folder: Path, items: list[Json], **options: object) -> Scenes:
    sensor = "sentinel-1" if items[0]["collection"] == "sentinel-1-rtc" else "sentinel-2"
    return find(write(folder, items), REGION, "2022", {sensor: SensorOptions(**options)})  # type: ignore[arg-type]


def reasons(scenes: Scenes) -> dict[str, str]:
    return dict(zip(scenes.left_out["id"], scenes.left_out["reason"], strict=True))


def spoilt_items() -> list[Json]:
    bandless, timeless, placeless, odd, cloudy = (optical(WHEN + n * DAY) for n in range(1, 6))
    del bandless["assets"]["B11"]
    timeless["properties"]["datetime"] = None
    placeless["geometry"]["coordinates"] = [[[0, "north"]]]
    odd["properties"]["view:sun_elevation"] = "high"
    cloudy["properties"]["eo:cloud_cover"] = 93.4
    return [optical(WHEN), bandless, timeless, placeless, odd, cloudy]


def test_scenes_that_cannot_be_used_are_left_out_with_their_reason(tmp_path: Path) -> None:
    items = spoilt_items()
    scenes = search(tmp_path / "made", items, max_cloud_cover=80)
    assert list(scenes.table["id"]) == [items[0]["id"]]
    told = reasons(scenes)
    assert len(told) == len(scenes.left_out) == 5
    assert "has no asset for band 'swir16'" in told[items[1]["id"]]
    # It has no id that can be read, but that of its file.
    assert told.pop("2").startswith("it is not a STAC item")
    assert told[items[3]["id"]] == "has no usable footprint"
    assert told[items[4]["id"]].startswith("its metadata cannot be understood")
    assert told[items[5]["id"]] == "its cloud cover of 93 % is above 80 %"
    assert set(scenes.left_out["collection"]) == {"sentinel-2-l2a"}
    again = Scenes.load(scenes.save(tmp_path / "scenes.parquet"))
    assert again.left_out.equals(scenes.left_out)
    assert again.interval == scenes.interval == "2022-01-01T00:00:00Z/2022-12-31T23:59:59.999999Z"
    assert again.fingerprint == scenes.fingerprint
    # What is left out decides no pixel.
    assert search(tmp_path / "clean", items[:1]).fingerprint == scenes.fingerprint
    assert len(again.of("sentinel-1").left_out) == 0


def test_scenes_survive_a_snapshot_when_nothing_was_left_out(tmp_path: Path) -> None:
    scenes = search(tmp_path / "made", [optical(WHEN)])
    again = Scenes.load(scenes.save(tmp_path / "scenes.parquet"))
    assert list(again.left_out.columns) == ["sensor", "collection", "id", "reason"]
    assert len(again.left_out) == 0


def test_a_search_that_finds_nothing_usable_says_the_commonest_reason_and_its_remedy(tmp_path: Path) -> None:
    clouds = [optical(WHEN + n * DAY, cloud=90.0 + n) for n in range(3)]
    bandless = optical(WHEN + 4 * DAY)
    del bandless["assets"]["B02"]
    with pytest.raises(
        EmptySearchError,
        match=r"none of the 4 scenes of sentinel-2-l2a for sentinel-2 can be used: 3 of them are like "
        r"S2A_\S+: its cloud cover of 90 % is above 50 %: raise max_cloud_cover\.",
    ):
        search(tmp_path / "clouds", [*clouds, bandless], max_cloud_cover=50)
    raw = [radar(WHEN) | {"id": "S1A_IW_GRDH_1SDV_20220701T050000_20220701T050025_060328_077F7E"}]
    raw[0]["collection"] = "sentinel-1-grd"
    with pytest.raises(EmptySearchError, match=r"is raw Sentinel-1 GRD.*: use a terrain-corrected collection"):
        find(write(tmp_path / "raw", raw), REGION, "2022", {"sentinel-1": SensorOptions("sentinel-1-grd")})


def test_radar_scenes_of_another_kind_than_was_asked_for_are_left_out(tmp_path: Path) -> None:
    items = [
        radar(WHEN),
        radar(WHEN + DAY, bands=("vv",)),
        radar(WHEN + 2 * DAY, direction="descending"),
        radar(WHEN + 3 * DAY),
        radar(WHEN + 4 * DAY, bands=("vh",)),
    ]
    items[3]["properties"]["sar:instrument_mode"] = "EW"
    wide = search(tmp_path / "all", items)
    assert set(reasons(wide)) == {items[4]["id"]}
    strict = search(tmp_path / "some", items, polarizations=("vv", "vh"), orbit="ascending", instrument_mode="IW")
    assert list(strict.table["id"]) == [items[0]["id"]]
    told = reasons(strict)
    assert told[items[1]["id"]] == "it has vv and not vh"
    assert told[items[2]["id"]].startswith("orbit descending")
    assert told[items[3]["id"]] == "mode EW is not IW"


def test_of_a_scene_that_was_processed_again_the_newest_baseline_is_read(tmp_path: Path) -> None:
    old = optical(WHEN, baseline="02.14", generated=WHEN + 900 * DAY)
    new = optical(WHEN, baseline="05.00", generated=WHEN + 400 * DAY)
    scenes = search(tmp_path, [old, new])
    assert list(scenes.table["id"]) == [new["id"]]
    assert reasons(scenes) == {old["id"]: f"{new['id']} (sentinel-2-l2a) supersedes it"}
    assert scenes.table["offset"].iloc[0] == -0.1


def test_of_one_baseline_the_last_processing_is_read(tmp_path: Path) -> None:
    """Its datastrip has another name, and is the same stretch of the ground."""
    first, last = optical(WHEN), optical(WHEN, generated=WHEN + 9 * HOUR)
    scenes = search(tmp_path, [last, first])
    assert list(scenes.table["id"]) == [last["id"]]


def test_parts_from_two_ground_stations_complete_each_other(tmp_path: Path) -> None:
    north = optical(WHEN, sensed=WHEN, box=(86.0, 27.98, 87.2, 28.5))
    south = optical(
        WHEN, sensed=WHEN + dt.timedelta(seconds=14), generated=WHEN + 7 * HOUR, box=(86.0, 27.5, 87.2, 27.98)
    )
    scenes = search(tmp_path, [north, south])
    assert set(scenes.table["id"]) == {north["id"], south["id"]}
    assert scenes.table["group"].nunique() == scenes.table["time"].nunique() == 1
    assert len(scenes.left_out) == 0
    assert scenes.completeness(REGION).observations["share"].tolist() == pytest.approx([1.0], abs=1e-6)


def test_the_sequence_numbers_of_earth_search_are_one_scene(tmp_path: Path) -> None:
    pair = []
    for number, baseline in enumerate(("05.10", "05.11")):
        each = optical(WHEN, baseline=baseline, generated=WHEN + (6 + number) * HOUR)
        each["id"] = f"S2A_45RVL_20220701_{number}_L2A"
        each["properties"]["s2:sequence"] = str(number)
        pair.append(each)
    scenes = search(tmp_path, pair)
    assert list(scenes.table["id"]) == ["S2A_45RVL_20220701_1_L2A"]
    # Two datatakes of one day are two scenes, whatever their numbers.
    other = optical(WHEN + HOUR)
    other["id"] = "S2A_45RVL_20220701_2_L2A"
    assert len(search(tmp_path / "two", [*pair, other])) == 2


def test_a_scene_in_two_collections_is_read_once(tmp_path: Path) -> None:
    both = [optical(WHEN), optical(WHEN) | {"collection": "sentinel-2-c1-l2a", "id": "S2A_T45RVL_20220701T050000_L2A"}]
    only = optical(WHEN + 5 * DAY)
    order = ("sentinel-2-c1-l2a", "sentinel-2-l2a")
    scenes = search(tmp_path, [*both, only], collection=order)
    assert list(scenes.table["collection"]) == list(order)
    assert scenes.table["group"].nunique() == 2
    assert reasons(scenes) == {both[0]["id"]: f"{both[1]['id']} (sentinel-2-c1-l2a) supersedes it"}


FAR_EAST = Region.from_bbox((179.6, 66.0, 179.9, 66.1), resolution=50, name="chukotka")
FIJI_SIDE = Region.from_bbox((-179.9, 66.0, -179.6, 66.1), resolution=50, name="beyond")


@pytest.mark.parametrize("region", [FAR_EAST, FIJI_SIDE], ids=["179 E", "179 W"])
@pytest.mark.parametrize("midnight", ["UTC", "solar"])
def test_a_pass_across_midnight_is_one_observation(tmp_path: Path, region: Region, midnight: str) -> None:
    """Slices of one pass, 25 s each, begin before midnight and end after it."""
    shift = dt.timedelta() if midnight == "UTC" else dt.timedelta(hours=-region.longitude / 15.0)
    begin = dt.datetime(2022, 7, 2, tzinfo=dt.UTC) + shift - dt.timedelta(seconds=40)
    west, _, east, _ = region.bbox
    box = (west - 0.05, 65.0, east + 0.05, 67.0)
    slices = [radar(begin + dt.timedelta(seconds=25 * n), box=box) for n in range(4)]
    later = radar(begin + 12 * DAY, box=box)
    scenes = find(write(tmp_path, [*slices, later]), region, "2022", ["sentinel-1"])
    table = scenes.table
    one = table[table["id"].isin([each["id"] for each in slices])]
    assert one["group"].nunique() == one["time"].nunique() == one["solar_day"].nunique() == 1
    assert table["group"].nunique() == 2
    # The day is the local one, that of the start of the pass.
    assert one["solar_day"].iloc[0] == (begin + dt.timedelta(hours=region.longitude / 15.0)).date().isoformat()


def test_granules_of_one_datatake_sensed_on_both_sides_of_midnight_are_one_observation(tmp_path: Path) -> None:
    begin = dt.datetime(2022, 7, 1, 23, 59, 50, tzinfo=dt.UTC)
    box = (179.0, 65.0, 180.0, 67.0)
    granules = [
        optical(begin, sensed=begin + dt.timedelta(seconds=12 * n), tile=tile, box=box)
        for n, tile in enumerate(("60WWV", "60WWU"))
    ]
    scenes = find(write(tmp_path, granules), FAR_EAST, "2022", ["sentinel-2"])
    assert len(scenes) == 2
    assert scenes.table["time"].nunique() == scenes.table["group"].nunique() == 1
    assert set(scenes.table["solar_day"]) == {"2022-07-02"}


def test_opposite_passes_of_one_day_are_two_observations(tmp_path: Path) -> None:
    scenes = search(tmp_path, [radar(WHEN), radar(WHEN + 12 * HOUR, orbit=121, direction="descending")])
    assert scenes.table["group"].nunique() == 2


def test_an_item_without_geometry_is_placed_by_its_box(tmp_path: Path) -> None:
    flat = optical(WHEN)
    flat["geometry"] = None
    solid = optical(WHEN + DAY)
    solid["geometry"], solid["bbox"] = None, [86.0, 27.5, 0.0, 87.2, 28.5, 9000.0]
    far = item("sentinel-2-l2a", "far", optical(WHEN)["properties"], ("B02",), (0, 0, 1, 1)) | {"geometry": None}
    scenes = search(tmp_path, [flat, solid, far])
    assert len(scenes) == 2
    assert len(scenes.left_out) == 0
    assert scenes.table.geometry.bounds.to_numpy().tolist() == [[86.0, 27.5, 87.2, 28.5]] * 2
