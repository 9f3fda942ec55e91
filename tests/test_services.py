"""The same scenes and the same pixels, whoever serves them: real servers, and servers that fail."""

from __future__ import annotations

import base64
import json
import logging
import socket
import tempfile
import traceback
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas.testing
import pystac
import pytest
from services import Missing, Nginx, Postgres, Published, SeaweedFS, StacApi, nginx, stac_api
from services.fixtures import served
from services.gate import Answer, Gate, gate

from glaciercube.catalog import Scenes, SensorOptions, client, find, parse_interval, source
from glaciercube.catalog.source import Source, open_source
from glaciercube.errors import CatalogError
from glaciercube.simulate.world import World

WHEN = "2021/2022"
SECRET = "s3cr3t-0123456789"  # noqa: S105 - made up


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    """The answer of the static catalogue on disk, which all others are held against."""
    return find(catalog, world.region, WHEN)


def without_places(table: Any, *roots: str) -> list[Any]:
    """The items with what their assets' hrefs begin with taken off."""
    items = [json.loads(text) for text in table["item"]]
    for item in items:
        for asset in item["assets"].values():
            for root in roots:
                asset["href"] = asset["href"].removeprefix(root)
    return items


@pytest.fixture(params=["api", "s3_api", "static over http", "snapshot"])
def elsewhere(request: pytest.FixtureRequest, world: World, scenes: Scenes, tmp_path: Path) -> Scenes:
    """The same search asked of somebody else."""
    if request.param == "snapshot":
        return Scenes.load(scenes.save(tmp_path / "scenes.parquet"))
    if request.param == "static over http":
        return find(f"{request.getfixturevalue('web').url}/catalog.json", world.region, WHEN)
    return find(request.getfixturevalue(request.param).url, world.region, WHEN)


def test_everybody_gives_the_same_scenes(
    elsewhere: Scenes, scenes: Scenes, catalog: Path, web: Nginx, s3: SeaweedFS
) -> None:
    assert elsewhere.fingerprint == scenes.fingerprint
    geopandas.testing.assert_geodataframe_equal(
        elsewhere.table.drop(columns="item"), scenes.table.drop(columns="item"), check_less_precise=False
    )
    roots = (str(catalog.parent), web.url, s3.url)
    assert without_places(elsewhere.table, *roots) == without_places(scenes.table, *roots)


def test_paging_loses_nothing(api: StacApi, scenes: Scenes, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with gate(api.url) as door:
        monkeypatch.setattr(source, "PAGES", (3, 1))
        assert find(door.url, world.region, WHEN).fingerprint == scenes.fingerprint
        asked = [path for _, path, _ in door.seen if path.startswith("/search")]
    # Nine scenes of Sentinel-2, four of Sentinel-1, one DEM: 3 + 2 + 1 pages, and each full last one has a successor.
    assert len(asked) >= 6
    assert all("limit=3" in path for path in asked)


def test_too_large_a_page_is_asked_for_in_parts(api: StacApi, scenes: Scenes, world: World) -> None:
    with gate(api.url) as door:
        door.answers = [Answer(200, urllib.request.urlopen(api.url).read().decode().replace(api.url, door.url))]
        door.answers += [Answer(500, '{"message": "Internal server error"}')]
        assert find(door.url, world.region, WHEN).fingerprint == scenes.fingerprint
        limits = [path.partition("limit=")[2].partition("&")[0] for _, path, _ in door.seen if "limit=" in path]
    assert limits[:2] == ["100", "25"]


def test_one_collection_of_several_is_asked_for(api: StacApi, world: World, catalog: Path) -> None:
    options = {"sentinel-2": SensorOptions("sentinel-2-l1c")}
    found = find(api.url, world.region, WHEN, options)
    assert set(found.table["collection"]) == {"sentinel-2-l1c"}
    assert set(found.table["level"]) == {"toa"}
    assert found.fingerprint == find(catalog, world.region, WHEN, options).fingerprint
    assert open_source(api.url).collections() == open_source(catalog).collections()
    with pytest.raises(CatalogError, match=r"has no collection sentinel-9 .*it has cop-dem-glo-30, sentinel-1-rtc"):
        find(api.url, world.region, WHEN, {"sentinel-2": SensorOptions("sentinel-9")})


def square(west: float, east: float) -> dict[str, Any]:
    return {
        "type": "Polygon",
        "coordinates": [[[west, 70.0], [east, 70.0], [east, 71.0], [west, 71.0], [west, 70.0]]],
    }


def odd_item(name: str, when: str | None, geometry: dict[str, Any], bbox: list[float], **properties: Any) -> Any:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "odd",
        "geometry": geometry,
        "bbox": bbox,
        "properties": {"datetime": when, **properties},
        "assets": {"data": {"href": f"http://127.0.0.1/{name}.tif"}},
        "links": [],
    }


EAST, WEST = square(179.0, 180.0), square(-180.0, -179.0)
PLAIN: list[float] = [179.0, 70.0, 180.0, 71.0]
CUT = {"type": "MultiPolygon", "coordinates": [EAST["coordinates"], WEST["coordinates"]]}
ODD = [
    odd_item("first-moment", "2021-01-01T00:00:00Z", EAST, PLAIN),
    odd_item("last-moment", "2021-12-31T23:59:59.750Z", EAST, PLAIN),
    odd_item("next-year", "2022-01-01T00:00:00Z", EAST, PLAIN),
    odd_item("season", None, EAST, PLAIN, start_datetime="2021-06-01T00:00:00Z", end_datetime="2021-08-31T00:00:00Z"),
    odd_item("winter", None, EAST, PLAIN, start_datetime="2021-12-01T00:00:00Z", end_datetime="2022-02-28T00:00:00Z"),
    odd_item("across", "2021-05-05T00:00:00Z", CUT, [179.0, 70.0, -179.0, 71.0]),
    odd_item("beyond", "2021-05-06T00:00:00Z", square(179.0, 181.0), [179.0, 70.0, 181.0, 71.0]),
    odd_item("behind", "2021-05-06T00:00:00Z", square(-181.0, -179.0), [-181.0, 70.0, -179.0, 71.0]),
    odd_item("far-side", "2021-05-07T00:00:00Z", WEST, [-180.0, 70.0, -179.0, 71.0]),
    odd_item("nowhere-near", "2021-05-07T00:00:00Z", square(10.0, 11.0), [10.0, 70.0, 11.0, 71.0]),
]


@pytest.fixture(scope="module")
def odd(database_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Source, Source]]:
    """Items that are easily lost, in an API and as files."""
    folder = tmp_path_factory.mktemp("odd")
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "odd",
        "description": "odd",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "item", "href": f"./{item['id']}.json"} for item in ODD],
    }
    links = [{"rel": "child", "href": "./odd.json"}]
    root = {"type": "Catalog", "stac_version": "1.0.0", "id": "odd", "description": "odd", "links": links}
    for name, content in [("catalog", root), ("odd", collection), *((item["id"], item) for item in ODD)]:
        (folder / f"{name}.json").write_text(json.dumps(content))
    for api in served(stac_api(database_server, "odd", Published([{**collection, "links": []}], ODD))):
        yield open_source(api.url), open_source(folder)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2021", "across behind beyond far-side first-moment last-moment season winter"),
        ("2021-01-01", "first-moment"),
        ("2021-12-31T23:59:59", "last-moment"),
        ("2021-07", ""),
        ("2021-06/2021-07", "season"),
        ("2021-12/..", "last-moment next-year winter"),
        ("../2021-03", "first-moment"),
        ("2022-01-01/", "next-year"),
        ("../..", "across behind beyond far-side first-moment last-moment next-year season winter"),
    ],
)
def test_intervals_mean_the_same_to_an_api_and_to_files(odd: tuple[Source, Source], time: str, expected: str) -> None:
    for each in odd:
        found = each.items("odd", (178.0, 69.0, -178.0, 72.0), parse_interval(time))
        assert " ".join(item.id for item in found) == expected, each


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ((179.5, 69.0, -179.5, 72.0), "across behind beyond far-side first-moment"),
        ([(179.5, 69.0, 180.0, 72.0), (-180.0, 69.0, -179.5, 72.0)], "across behind beyond far-side first-moment"),
        ((-179.5, 69.0, -179.2, 72.0), "across behind beyond far-side"),
        ((179.2, 69.0, 179.5, 72.0), "across behind beyond first-moment"),
        ((0.0, 69.0, 30.0, 72.0), "nowhere-near"),
        ((-170.0, 69.0, 170.0, 69.5), ""),
    ],
)
def test_boxes_across_the_antimeridian(odd: tuple[Source, Source], boxes: Any, expected: str) -> None:
    for each in odd:
        found = each.items("odd", boxes, parse_interval("2021-01/2021-05"))
        assert " ".join(item.id for item in found) == expected, each


def test_recorded_items_come_out_of_an_api_as_they_went_in(database_server: Postgres, real_data: Path) -> None:
    recorded = real_data / "stac_recorded"
    items: list[dict[str, Any]] = []
    collections: dict[str, dict[str, Any]] = {}
    for path in sorted(recorded.glob("*/*/items/*.json")):
        item = {**json.loads(path.read_text()), "links": []}
        # Different providers have collections of one name.
        item["collection"] = name = "-".join(path.parts[-4:-2])
        items.append(item)
        extent = {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2014-01-01T00:00:00Z", None]]},
        }
        described = {"type": "Collection", "stac_version": "1.0.0", "description": name, "license": "other"}
        collections[name] = {**described, "id": name, "extent": extent, "links": []}
    assert len(collections) > 8
    for api in served(stac_api(database_server, "recorded", Published(list(collections.values()), items))):
        asked = open_source(api.url)
        for name in collections:
            expected = [pystac.Item.from_dict(item, migrate=False) for item in items if item["collection"] == name]
            found = asked.items(name, (-180.0, -90.0, 180.0, 90.0))
            assert [item.id for item in found] == sorted(item.id for item in expected)
            for one, other in zip(found, sorted(expected, key=lambda item: item.id), strict=True):
                if any(not asset.href.startswith(("http", "s3:")) for asset in other.assets.values()):
                    # Relative to its own place, which differs.
                    one.assets, other.assets = {}, {}
                assert bare(one) == bare(other)


def bare(item: pystac.Item) -> Any:
    content = item.to_dict(include_self_link=False, transform_hrefs=False)
    return without_nulls({**content, "links": []})


def without_nulls(content: Any) -> Any:
    """What is null need not be said, and this API does not say it."""
    if isinstance(content, dict):
        return {name: without_nulls(value) for name, value in content.items() if value is not None}
    return [without_nulls(value) for value in content] if isinstance(content, list) else content


def test_files_at_an_address_that_looks_like_an_api(web: Nginx, catalog: Path, world: World, scenes: Scenes) -> None:
    with gate(web.url) as standing:
        # Asked for as an API, and then as files.
        standing.answers = [Answer(200, catalog.read_text())] * 2
        assert find(standing.url, world.region, WHEN, ["dem"]).fingerprint == scenes.of("dem").fingerprint


# Servers that fail.


@pytest.fixture
def door() -> Iterator[Gate]:
    with gate() as standing:
        yield standing


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without pauses, and little patience."""
    monkeypatch.setattr(client, "PAUSE", 0.0)
    monkeypatch.setattr(client, "READ_TIMEOUT", 0.5)


HTML = "<!DOCTYPE html>\n<html><body>Welcome to the portal</body></html>"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            Answer(500, '{"code": "Oops", "description": "out of memory"}'),
            r"500: out of memory\): .*later",
        ),
        (Answer(503, HTML, {"Content-Type": "text/html"}), r"answers 503\): it is overloaded or out of order"),
        (Answer(429, "", {"Retry-After": "0"}), r"answers 429\): it is overloaded"),
        (Answer(200, HTML, {"Content-Type": "text/html"}), r"it is not STAC\): give the root of a STAC API"),
        (Answer(200, '{"hello": "world"}'), r"it is not STAC\): give the root"),
        (Answer(200, "[]"), r"cannot be read"),
        (Answer(404, HTML), r"answers 404\): check the URL"),
        (Answer(401, '{"detail": "Not authenticated"}'), r"401: Not authenticated\): .*GLACIERCUBE_CATALOG_TOKEN"),
        (Answer(403, ""), r"answers 403\): .*GLACIERCUBE_CATALOG_TOKEN"),
    ],
)
@pytest.mark.usefixtures("hurried")
def test_an_api_that_cannot_be_used_is_named_with_a_remedy(door: Gate, world: World, answer: Answer, told: str) -> None:
    door.always = answer
    for url in (door.url, f"{door.url}/catalog.json"):
        with pytest.raises(CatalogError, match=told) as failure:
            find(url, world.region, WHEN)
        assert door.url in str(failure.value)
        assert "<" not in str(failure.value)


@pytest.mark.usefixtures("hurried")
def test_an_api_that_is_down_or_stalls_is_named(world: World) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        # Bound, but nobody listens.
        with pytest.raises(CatalogError, match=rf"{url} cannot be read \(no connection\): check the URL"):
            find(url, world.region, WHEN)
        bound.listen()
        # Nobody accepts.
        with pytest.raises(CatalogError, match=rf"{url} cannot be read \(no answer within .* s\): try again later"):
            find(url, world.region, WHEN)
    with pytest.raises(CatalogError, match=r"no host of this name\): check the URL"):
        find("http://glaciers.invalid/stac", world.region, WHEN)


def test_a_busy_api_is_asked_again_when_it_says(
    api: StacApi, world: World, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", pauses.append)
    with gate(api.url) as standing:
        standing.answers = [
            Answer(429, "", {"Retry-After": "7"}),
            Answer(503, "", {"Retry-After": "86400"}),
            Answer(502, HTML),
            Answer(504),
        ]
        assert find(standing.url, world.region, WHEN).fingerprint == scenes.fingerprint
    assert pauses[0] == 7.0
    # Not for a day.
    assert pauses[1] == client.LONGEST_PAUSE
    assert len(pauses) == 4


def test_an_api_that_breaks_off_or_turns_in_circles_is_not_believed(api: StacApi, world: World) -> None:
    start = urllib.request.urlopen(api.url).read().decode()
    page = json.loads(urllib.request.urlopen(f"{api.url}/search?collections=sentinel-2-l2a&limit=100").read())
    with gate() as standing:
        root = Answer(200, start.replace(api.url, standing.url))
        full = {**page, "features": [{**page["features"][0], "id": str(n)} for n in range(100)], "numberMatched": 321}
        standing.answers = [root, Answer(200, json.dumps({**full, "links": []}))]
        with pytest.raises(CatalogError, match=r"does not give all that it found .it has 321 items, and gives 100"):
            find(standing.url, world.region, WHEN)
        again = [{"rel": "next", "href": f"{standing.url}/search?page=2"}]
        standing.answers, standing.always = [root], Answer(200, json.dumps({**full, "links": again}))
        with pytest.raises(CatalogError, match=r"does not give all that it found .a page comes twice"):
            find(standing.url, world.region, WHEN)


# Secrets.


@pytest.fixture
def guarded(api: StacApi) -> Iterator[Gate]:
    with gate(api.url) as standing:
        yield standing


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def assert_left_nowhere(secrets: list[str], found: Scenes, failure: Exception, logged: str) -> None:
    """Neither in a snapshot, nor in a traceback, nor in the log of any library."""
    with tempfile.TemporaryDirectory() as folder:
        snapshot = found.save(Path(folder) / "scenes.parquet").read_bytes()
    told = "".join(traceback.format_exception(failure))
    assert len(logged) > 1000
    for secret in secrets:
        assert secret.encode() not in snapshot
        assert not any(secret in text for text in (told, logged, found.table.to_csv(), repr(found)))


@pytest.mark.parametrize("token", [SECRET, f"Basic {SECRET}", f"X-Api-Key: {SECRET}"])
@pytest.mark.usefixtures("everything_logged")
def test_a_token_opens_the_api_and_is_left_nowhere(
    guarded: Gate,
    world: World,
    scenes: Scenes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    token: str,
) -> None:
    header = "X-Api-Key" if ":" in token else "Authorization"
    guarded.only = {header: token.removeprefix("X-Api-Key: ") if " " in token else f"Bearer {SECRET}"}
    with pytest.raises(CatalogError, match=r"answers 401.*put a token into .* GLACIERCUBE_CATALOG_TOKEN"):
        find(guarded.url, world.region, WHEN)
    monkeypatch.setenv("GLACIERCUBE_CATALOG_TOKEN", token)
    found = find(guarded.url, world.region, WHEN)
    assert found.fingerprint == scenes.fingerprint
    assert found.source == guarded.url
    # It has expired; the gate quotes what it was sent.
    guarded.only = {header: "another"}
    with pytest.raises(CatalogError, match=r"answers 401.*no longer: renew it") as failure:
        find(guarded.url, world.region, WHEN)
    assert_left_nowhere([SECRET], found, failure.value, caplog.text)


@pytest.mark.usefixtures("everything_logged")
def test_a_password_in_the_address_is_left_nowhere(
    guarded: Gate, world: World, scenes: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    encoded = base64.b64encode(f"me:{SECRET}".encode()).decode()
    guarded.only = {"Authorization": f"Basic {encoded}"}
    address = guarded.url.replace("://", f"://me:{SECRET}@")
    found = find(address, world.region, WHEN)
    assert found.fingerprint == scenes.fingerprint
    assert found.source == guarded.url
    guarded.only = {"Authorization": "another"}
    with pytest.raises(CatalogError, match=r"answers 401.*renew it") as failure:
        find(address, world.region, WHEN)
    assert_left_nowhere([SECRET, encoded], found, failure.value, caplog.text)


@pytest.mark.usefixtures("everything_logged")
def test_a_key_in_the_address_opens_files_and_is_left_nowhere(
    web: Nginx, world: World, scenes: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    with gate(web.url) as standing:
        address = f"{standing.url}/catalog.json?key={SECRET}"
        found = find(address, world.region, WHEN)
        assert found.fingerprint == scenes.fingerprint
        assert all(f"?key={SECRET}" in path for _, path, _ in standing.seen)
        standing.always = Answer(403, json.dumps({"detail": f"?key={SECRET} has expired"}))
        with pytest.raises(CatalogError, match=r"answers 403: .*has expired\)") as failure:
            find(address, world.region, WHEN)
    assert_left_nowhere([SECRET], found, failure.value, caplog.text)


def test_a_token_is_shown_to_its_own_api_only(
    api: StacApi, world: World, monkeypatch: pytest.MonkeyPatch, scenes: Scenes
) -> None:
    monkeypatch.setenv("GLACIERCUBE_CATALOG_TOKEN", SECRET)
    monkeypatch.setattr(source, "PAGES", (3, 1))
    with gate(api.url) as other, gate(api.url) as own:
        # The first page's links lead to another host.
        start = urllib.request.urlopen(api.url).read().decode()
        own.always = Answer(200, start.replace(api.url, other.url))
        assert find(own.url, world.region, WHEN).fingerprint == scenes.fingerprint
        assert own.seen
        assert other.seen
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for _, _, headers in own.seen)
        assert not any("Authorization" in headers for _, _, headers in other.seen)
    assert not open_source("earth-search")._access().headers
    assert open_source("https://stac.example.org")._access().headers


# The servers themselves.


def test_servers_stop_when_a_test_fails(tmp_path: Path) -> None:
    def fails() -> None:
        for server in served(nginx(tmp_path)):
            addresses.append(server.url)
            raise ZeroDivisionError

    addresses: list[str] = []
    with pytest.raises(ZeroDivisionError):
        fails()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(addresses[0])


def test_missing_servers_are_skipped_unless_required(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def __enter__(self) -> None:
            raise Missing("nginx is not installed (make install-services)")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.delenv("GLACIERCUBE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="make install-services"):
        next(served(Absent()))
    monkeypatch.setenv("GLACIERCUBE_SERVICES", "required")
    with pytest.raises(pytest.fail.Exception, match="nginx is not installed"):
        next(served(Absent()))


def test_s3_answers_nobody_without_credentials(s3: SeaweedFS, catalog: Path) -> None:
    name = next(catalog.parent.rglob("*.tif")).relative_to(catalog.parent).as_posix()
    with pytest.raises(OSError, match="403"):
        urllib.request.urlopen(f"{s3.endpoint}/{s3.bucket}/{name}")
