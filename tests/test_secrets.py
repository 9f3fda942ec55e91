"""Tokens, signatures, passwords and keys never reach a log, an error, the snapshot, the store or the terminal."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import os
import pickle
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest
from click.testing import CliRunner
from fault_server import Asked, FaultServer, serve

import glaciercube as gc
from glaciercube.catalog import Scenes, without_secrets
from glaciercube.catalog.unsigned import unsigned
from glaciercube.cli import main
from glaciercube.errors import GlaciercubeError
from glaciercube.reading.address import Address
from glaciercube.simulate.world import World

# Words that occur nowhere else, and need no quoting in a URL.
SECRETS = {
    "signature in an href": "SigOfHref7781",
    "token of assets": "AssetToken7782",
    "password": "Hunter7783",
    "key of the API": "ApiKey7784",
    "AWS key": "AKIA7785SECRETID",
    "AWS secret": "AwsSecret7786",
    "header of the API": "Header7787",
    "key in a field of an item": "Field7789",
}
SECRETS["password in a header"] = base64.b64encode(f"user:{SECRETS['password']}".encode()).decode()


def leaks(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


_KEY = SECRETS["key in a field of an item"]
# Where the storage, xarray and authentication extensions, and people, put what opens a store.
FIELDS: dict[str, Any] = {
    "storage:options": {"account_name": "open", "account_key": _KEY},
    "xarray:storage_options": {"token": _KEY},
    "xarray:open_kwargs": {"consolidated": True, "storage_options": {"anon": _KEY}},
    "table:storage_options": {"credential": _KEY},
    "headers": {"Authorization": f"Bearer {_KEY}"},
    "SAS": _KEY,
    "sas_url_part": _KEY,
    "accessKeyId": _KEY,
    "Password": _KEY,
    "x-amz-signature": [_KEY],
    "description": f"fetch it from https://me:{_KEY}@host/a.tif?sig={_KEY} or //host/a?{_KEY}",
}

# An address that opens with a secret, and what of it may be shown.
ADDRESSES = {
    "https://host/a.tif?sig={}#x": "https://host/a.tif",
    "HTTPS://me:{}@host/a.tif": "HTTPS://host/a.tif",
    "https://me:p@{}@host/a b.tif?sig={}": "https://host/a b.tif",
    "s3://key:{}@bucket/a.tif": "s3://bucket/a.tif",
    "gs://bucket/a.tif?token={}": "gs://bucket/a.tif",
    "az://container/a.tif?sig={}": "az://container/a.tif",
    "abfs://container@account/a.tif?sv={}": "abfs://container@account/a.tif",
    "abfss://me:{}@account/a.tif": "abfss://account/a.tif",
    "ftp://me:{}@host/a.tif": "ftp://host/a.tif",
    "zip+https://host/a.zip?sig={}": "zip+https://host/a.zip",
    "zip://a.tif::https://me:{}@host/a.zip?sig={}": "zip://a.tif::https://host/a.zip",
    "https://proxy/https://me:{}@host/a.tif": "https://proxy/https://host/a.tif",
    "http://[::1]:80/a.tif?sig={}": "http://[::1]:80/a.tif",
    "/vsicurl/https://me:{}@host/a.tif?sig={}": "/vsicurl/https://host/a.tif",
    "/vsicurl?header.Authorization=Bearer%20{}&url=https%3A%2F%2Fhost%2Fa.tif%3Fsig%3D{}": "/vsicurl/https://host/a.tif",
    "/vsis3_streaming/bucket/a.tif?X-Amz-Signature={}": "/vsis3_streaming/bucket/a.tif",
    "/vsizip/{{/vsicurl/https://host/a.zip?sig={}}}/a.tif": "/vsizip/{/vsicurl/https://host/a.zip}/a.tif",
    'ZARR:"/vsicurl/https://host/a.zarr?sig={}":/b04': 'ZARR:"/vsicurl/https://host/a.zarr":/b04',
    "//me:{}@host/a.tif?sig={}": "//host/a.tif",
    "./a.tif?sig={}": "./a.tif",
    "a.tif?sig={}": "a.tif",
    " https://host/a.tif?sig={}": "https://host/a.tif",
    "see https://host/a.tif?sig={} for more": "see https://host/a.tif for more",
}


def _alternates() -> dict[str, Any]:
    return {str(number): {"href": each.format(_KEY, _KEY)} for number, each in enumerate(ADDRESSES)}


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_shows_what_opens_it(address: str) -> None:
    shown = without_secrets(address.format(_KEY, _KEY))
    assert shown == ADDRESSES[address]
    assert without_secrets(shown) == shown
    assert leaks(Address(address.format(_KEY, _KEY)).shown) == []


@pytest.mark.parametrize(
    "text",
    [
        "/data/what?.tif",
        "/data/my files/a#1?b=c.tif",
        "file:///data/what?.tif",
        "/vsizip//data/what?.zip/a.tif",
        "../a.tif",
        "s3://bucket/a.tif",
        "/vsis3/bucket/a.tif",
        "EPSG:32632",
        "is this a glacier? it is",
        "mailto:someone@host",
        "#0a0b0c",
        "",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


def test_assets_keep_their_names_and_fields_that_only_sound_alike_stay() -> None:
    when = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    item = pystac.Item("x", None, None, when, {"sassari": 1, "proj:epsg": 32632, "key": "a", "auth:refs": ["b"]})
    item.add_asset("sas", pystac.Asset("https://host/a.tif?sig=x", extra_fields={"token": _KEY, "nodata": 0}))
    item.add_link(pystac.Link("self", f"https://host/x.json?sig={_KEY}"))
    content = unsigned(item)
    assert leaks(json.dumps(content)) == []
    assert content["assets"] == {"sas": {"href": "https://host/a.tif", "nodata": 0}}
    assert {"sassari", "proj:epsg", "key", "auth:refs"} <= set(content["properties"])
    assert content["links"] == []


class Guarded:
    """A catalogue of signed hrefs, and a server that gives assets to those only who show the token."""

    def __init__(self, server: FaultServer, folder: Path, job: Path) -> None:
        self.server, self.folder, self.job = server, folder, job
        self.seen: set[str] = set()
        self.failing = ""
        server.choose = self.answer

    def answer(self, asked: Asked) -> str | None:
        self.seen |= {name for name, secret in SECRETS.items() if secret in f"{asked.query} {asked.headers}"}
        if asked.path.endswith(".tif"):
            if self.failing and self.failing in asked.path:
                return "404"
            return None if asked.query.get("token") == SECRETS["token of assets"] else "403"
        return None


@pytest.fixture
def guarded(world: World, catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    home = tmp_path / "served"
    shutil.copytree(catalog.parent, home)
    monkeypatch.setenv("ASSET_TOKEN", SECRETS["token of assets"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRETS["AWS key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["AWS secret"])
    monkeypatch.setenv("GLACIERCUBE_CATALOG_TOKEN", f"X-Api-Key: {SECRETS['header of the API']}")
    with serve(home) as server:
        for path in home.rglob("*.json"):
            content: dict[str, Any] = json.loads(path.read_text())
            for asset in content.get("assets", {}).values():
                place = (path.parent / asset["href"]).resolve().relative_to(home.resolve())
                asset["href"] = f"{server.url}/{place}?sig={SECRETS['signature in an href']}"
                asset["alternate"] = {"other": {"href": f"{asset['href']}&second=1"}} | _alternates()
                asset.update(FIELDS)
            if "properties" in content:
                content["properties"] |= {"archive": {"nested": [FIELDS]}}
            path.write_text(json.dumps(content))
        host = server.url.removeprefix("http://")
        url = f"http://user:{SECRETS['password']}@{host}/catalog.json"
        profile = tmp_path / "guarded.yaml"
        profile.write_text(
            f"url: {url}?key={SECRETS['key of the API']}\nsigning: {{parameter: token, environment: ASSET_TOKEN}}\n"
        )
        west, south, east, north = world.region.bbox
        job = tmp_path / "job.yaml"
        job.write_text(
            f"region: {{name: small, bbox: [{west}, {south}, {east}, {north}], resolution: 40}}\n"
            f"catalog: {{profile: {profile}}}\ntime: 2021\nsensors: [sentinel-2]\n"
            f"model: ndsi\nstore: {tmp_path / 'out.zarr'}\n"
        )
        yield Guarded(server, tmp_path, job)


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(f"{record.name} {record.getMessage()} {record.exc_text or ''}" for record in caplog.records)


def written(folder: Path) -> str:
    """All bytes below a folder, as text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return "\n".join(f"{path} {path.read_bytes().decode('latin-1')}" for path in files)


def test_a_run_leaves_no_secret_anywhere(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        found = CliRunner().invoke(main, ["find", str(guarded.job), "--save", str(guarded.folder / "scenes.parquet")])
        explained = CliRunner().invoke(main, ["explain", str(guarded.job)])
        run = CliRunner().invoke(main, ["run", str(guarded.job)])
    for result in (found, explained, run):
        assert result.exit_code == 0, result.output
        assert leaks(result.output + result.stderr) == []
    # The test would show nothing if the server had not been shown them.
    shown = {"token of assets", "key of the API", "password in a header", "header of the API"}
    assert shown <= guarded.seen
    assert leaks(told(caplog)) == []
    assert leaks(written(guarded.folder / "out.zarr")) == []
    assert leaks((guarded.folder / "scenes.parquet").read_bytes().decode("latin-1")) == []
    scenes = Scenes.load(guarded.folder / "scenes.parquet")
    text = "\n".join([scenes.source, scenes.signing, str(scenes), scenes.table.to_csv(), *scenes.table["item"]])
    assert leaks(text) == []
    assert "127.0.0.1" in scenes.source
    assert "ASSET_TOKEN" in scenes.signing
    # Tasks travel to workers with what they hold.
    region = gc.load_config(guarded.job).region.region()
    assert leaks(pickle.dumps(scenes).decode("latin-1")) == []
    assert leaks(repr(gc.load(scenes, region)["sentinel2"])) == []


def chain(error: BaseException) -> str:
    """All that an error can be made to say: itself, what lies behind it, and its traceback."""
    parts, waiting, known = [], [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in known:
            continue
        known.add(id(one))
        parts += [str(one), repr(one), repr(one.args), repr(getattr(one, "__notes__", ""))]
        waiting += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
    return "\n".join(parts + traceback.format_exception(error))


@pytest.mark.parametrize("failing", ["B04", "nothing"])
def test_errors_of_reading_hold_no_secret(
    guarded: Guarded, failing: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file, and a token that is not valid."""
    settings = gc.load_config(guarded.job)
    region = settings.region.region()
    with caplog.at_level(logging.DEBUG):
        scenes = settings.find(region)
        guarded.failing = failing
        if failing == "nothing":
            SECRETS["wrong token"] = "Expired7788"
            monkeypatch.setenv("ASSET_TOKEN", SECRETS["wrong token"])
        try:
            with pytest.raises(GlaciercubeError) as raised:
                gc.load(scenes, region)["sentinel2"]["red"].compute()
            assert leaks(chain(raised.value)) == []
            assert "127.0.0.1" in str(raised.value)
            run = CliRunner().invoke(main, ["run", str(guarded.job)])
            assert leaks(run.output + run.stderr) == []
            assert leaks(told(caplog)) == []
            store = guarded.folder / "out.zarr"
            assert not store.exists() or leaks(written(store)) == []
        finally:
            SECRETS.pop("wrong token", None)


def test_errors_of_searching_hold_no_secret(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    settings = gc.load_config(guarded.job)
    served = guarded.folder / "served" / "catalog.json"
    whole = served.read_text()
    with caplog.at_level(logging.DEBUG):
        for spoilt in (None, "not json", whole.replace("sentinel-2-l2a", "nowhere")):
            if spoilt is None:
                guarded.server.choose = lambda *_: "403"
            else:
                guarded.server.choose = guarded.answer
                served.write_text(spoilt)
            with pytest.raises(GlaciercubeError) as raised:
                settings.find()
            assert leaks(chain(raised.value)) == []
            failed = CliRunner().invoke(main, ["find", str(guarded.job)])
            assert failed.exit_code == 1
            assert leaks(failed.output + failed.stderr) == []
    assert leaks(told(caplog)) == []


def test_a_missing_token_is_named_by_its_variable(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = gc.load_config(guarded.job)
    region = settings.region.region()
    scenes = settings.find(region)
    monkeypatch.delenv("ASSET_TOKEN")
    assert "ASSET_TOKEN" not in os.environ
    with pytest.raises(GlaciercubeError, match="environment variable ASSET_TOKEN is not set"):
        gc.load(scenes, region)["sentinel2"]["red"].compute()
