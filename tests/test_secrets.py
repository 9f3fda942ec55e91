"""Tokens, signatures, passwords and keys never reach a log, an error, the snapshot, the store or the terminal."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fault_server import Asked, FaultServer, serve

import glaciercube as gc
from glaciercube.catalog import Scenes
from glaciercube.cli import main
from glaciercube.errors import GlaciercubeError
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
}
SECRETS["password in a header"] = base64.b64encode(f"user:{SECRETS['password']}".encode()).decode()


def leaks(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


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
                asset["alternate"] = {"other": {"href": f"{asset['href']}&second=1"}}
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
