"""find(): the same scenes from a folder and from an API, duplicates once, offsets decided."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pystac
import pytest
from click.testing import CliRunner

from glaciercube.catalog import Scenes, SensorOptions, find, parse_interval
from glaciercube.catalog.unsigned import without_secrets
from glaciercube.cli import main
from glaciercube.errors import BandError, CatalogError, ConfigError, EmptySearchError
from glaciercube.region import Region
from glaciercube.sensors import Sentinel1, Sentinel2, resolve_bands
from glaciercube.simulate.world import World


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022")


def all_items(catalog: Path, collection: str) -> list[pystac.Item]:
    child = pystac.Catalog.from_file(str(catalog)).get_child(collection)
    assert child is not None
    return list(child.get_items())


def test_granules_make_one_observation_and_the_duplicate_counts_once(scenes: Scenes, catalog: Path) -> None:
    table = scenes.of("sentinel-2").table
    published = all_items(catalog, "sentinel-2-l2a")
    # 2 years x 2 dates x 2 tiles, and one of them published twice.
    assert len(published) == 9
    assert len(table) == 8
    assert table["group"].nunique() == table["time"].nunique() == 4
    lost = {item.id for item in published} - set(table["id"])
    assert len(lost) == 1
    old = next(item for item in published if item.id in lost)
    kept = table[table["id"].str.startswith(old.id.rpartition("_")[0])].iloc[0]
    assert json.loads(kept["notes"])["baseline"] > float(old.properties["s2:processing_baseline"])


def test_offsets_follow_the_baseline_scene_by_scene(scenes: Scenes) -> None:
    table = scenes.of("sentinel-2").table
    for notes, offset in zip(table["notes"], table["offset"], strict=True):
        assert offset == (-0.1 if json.loads(notes)["baseline"] >= 4 else 0.0)
    assert set(table["offset"]) == {-0.1, 0.0}


def test_scenes_survive_geoparquet(scenes: Scenes, tmp_path: Path) -> None:
    again = Scenes.load(scenes.save(tmp_path / "scenes.parquet"))
    assert again.fingerprint == scenes.fingerprint
    assert [item.id for item in again.items()] == list(scenes.table["id"])
    assert again.table.equals(scenes.table)
    assert again.source == scenes.source


def test_fingerprint_is_that_of_the_answer(world: World, catalog: Path, scenes: Scenes) -> None:
    assert find(catalog, world.region, "2021/2022").fingerprint == scenes.fingerprint
    assert find(catalog, world.region, "2021").fingerprint != scenes.fingerprint


@pytest.fixture(scope="module")
def api(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real STAC API (the memory backend of rustac) over the simulated world's items."""
    folder = tmp_path_factory.mktemp("api")
    hrefs = []
    for collection in pystac.Catalog.from_file(str(catalog)).get_children():
        items = []
        for item in collection.get_items():
            item.make_asset_hrefs_absolute()
            items.append({**item.to_dict(transform_hrefs=False), "links": []})
        for name, content in (
            (f"{collection.id}.json", {**collection.to_dict(transform_hrefs=False), "links": []}),
            (f"{collection.id}-items.json", {"type": "FeatureCollection", "features": items}),
        ):
            (folder / name).write_text(json.dumps(content))
            hrefs.append(str(folder / name))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = Path(sys.executable).with_name("rustac")
    with subprocess.Popen([program, "serve", "--addr", address, *hrefs], stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f"http://{address}/", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://{address}"
        finally:
            server.terminate()


def test_an_api_gives_the_same_scenes(api: str, world: World, scenes: Scenes) -> None:
    found = find(api, world.region, "2021/2022")
    assert found.fingerprint == scenes.fingerprint
    assert found.source == api
    with pytest.raises(EmptySearchError, match="no scene of sentinel-2-l2a"):
        find(api, world.region, "2010", ["sentinel-2"])
    with pytest.raises(CatalogError, match="has no collection sentinel-9"):
        find(api, world.region, "2021", {"sentinel-2": SensorOptions("sentinel-9")})


def test_empty_answers_say_what_was_asked(world: World, catalog: Path) -> None:
    with pytest.raises(
        EmptySearchError, match=r"no scene of sentinel-2-l2a meets simulated .* 2010-01-01 to 2010-12-31"
    ):
        find(catalog, world.region, "2010", ["sentinel-2"])
    elsewhere = Region.from_bbox((10.0, 46.0, 10.1, 46.1), resolution=60, name="alps")
    with pytest.raises(EmptySearchError, match="meets alps"):
        find(catalog, elsewhere, "2021")


def test_a_missing_collection_names_what_is_there(real_data: Path) -> None:
    region = Region.from_bbox((-68.35, -54.734, -68.326, -54.72), resolution=10)
    with pytest.raises(
        CatalogError, match=r"no collection sentinel-2-l2a .*it has sentinel-2-l1c.*collection: sentinel-2-l1c"
    ):
        find(real_data / "vinciguerra" / "catalog.json", region, "2019/2021", ["sentinel-2"])


def test_unreadable_catalogues(tmp_path: Path, world: World) -> None:
    with pytest.raises(CatalogError, match="there is no catalogue at"):
        find(tmp_path / "none" / "catalog.json", world.region, "2021")
    broken = tmp_path / "catalog.json"
    broken.write_text("not json")
    with pytest.raises(CatalogError, match="cannot be read"):
        find(broken, world.region, "2021")
    with pytest.raises(CatalogError, match="cannot be read"):
        find("http://127.0.0.1:9/stac", world.region, "2021")
    with pytest.raises(ConfigError, match="unknown sensor"):
        find(broken, world.region, "2021", ["landsat"])


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024", "2024-01-01T00:00:00", "2024-12-31T23:59:59.999999"),
        ("2024-02/2024-03-01", "2024-02-01T00:00:00", "2024-03-01T23:59:59.999999"),
        ("2024-01-01/2024-12-31", "2024-01-01T00:00:00", "2024-12-31T23:59:59.999999"),
    ],
)
def test_intervals_include_their_ends(text: str, first: str, last: str) -> None:
    begin, end = parse_interval(text)
    assert begin is not None
    assert end is not None
    assert begin.isoformat().startswith(first)
    assert end.isoformat().startswith(last)


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "2024/2023", ""])
def test_bad_intervals(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_interval(text)


def test_secrets_leave_urls() -> None:
    assert without_secrets("https://user:key@host/a.tif?sig=abc#x") == "https://host/a.tif"
    assert without_secrets("/data/a.tif") == "/data/a.tif"


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("--calendar", "a.xyz", "cannot draw to"),
        ("--calendar", "a", "end its name in .png, .pdf or .svg"),
        ("--calendar", "none/a.png", "there is no folder"),
        ("--calendar", "", "(it is a folder): give the name of a file"),
        ("--save", "none/a.parquet", "there is no folder"),
        ("--save", "", "(it is a folder): give the name of a file"),
        ("--save", "locked.parquet", "it may not be written"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_search(
    tmp_path: Path, option: str, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "region: {bbox: [10, 46, 10.1, 46.1], resolution: 60}\ncatalog: http://127.0.0.1:9/stac\ntime: 2021\n"
        f"store: {tmp_path / 'out.zarr'}\n"
    )
    searched = []
    monkeypatch.setattr("glaciercube.config.job.find", lambda *_: searched.append(True))
    # Permissions do not hold for root.
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK or "locked" not in str(path))
    (tmp_path / "locked.parquet").touch()
    refused = CliRunner().invoke(main, ["find", str(job), option, str(tmp_path / name)])
    assert refused.exit_code == 1, refused.stderr
    assert words in refused.stderr
    assert not searched


RECORDED = (
    "planetary-computer/sentinel-2-l2a",
    "earth-search/sentinel-2-l2a",
    "earth-search/sentinel-2-c1-l2a",
    "earth-search/sentinel-2-l1c",
    "cdse/sentinel-2-l2a",
)


@pytest.mark.parametrize("folder", RECORDED)
def test_recorded_sentinel2_items_resolve(real_data: Path, folder: str) -> None:
    paths = sorted((real_data / "stac_recorded" / folder / "items").glob("*.json"))
    assert paths
    for path in paths:
        item = pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)
        facts = Sentinel2().facts(item)
        baseline = facts.notes["baseline"]
        applied = item.properties.get("earthsearch:boa_offset_applied")
        assert facts.offset == (0.0 if applied or baseline is None or baseline < 4 else -0.1), (path.name, facts)
        assert "/" in facts.key
        assert facts.level == ("toa" if "l1c" in folder else "surface")
        if set(item.assets) == {"reflectance"}:
            # One asset that is a whole Zarr product: not read yet, and said so.
            with pytest.raises(BandError, match="has no asset for band 'blue'"):
                resolve_bands(item, Sentinel2())
            continue
        assert {"blue", "red", "swir16"} <= set(resolve_bands(item, Sentinel2()))


def test_raw_grd_is_refused(real_data: Path) -> None:
    for path in (real_data / "stac_recorded" / "planetary-computer" / "sentinel-1-grd" / "items").glob("*.json"):
        with pytest.raises(BandError, match=r"raw Sentinel-1 GRD.*sentinel-1-rtc"):
            Sentinel1().facts(pystac.Item.from_dict(json.loads(path.read_text()), migrate=False))


def test_an_unknown_band_names_the_scene(catalog: Path) -> None:
    item = all_items(catalog, "sentinel-2-l2a")[0]
    del item.assets["B11"]
    with pytest.raises(BandError, match=rf"scene {item.id} has no asset for band 'swir16' \(looked for B11"):
        resolve_bands(item, Sentinel2())
