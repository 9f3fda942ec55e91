"""The commands as a user meets them: what they print, and one sentence for every failure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from glaciercube.cli import main
from glaciercube.cli.campaigns import _cluster
from glaciercube.cluster import ClusterOptions
from glaciercube.config import load_config
from glaciercube.demo import _check_ours, _written
from glaciercube.errors import CatalogError, StoreError
from glaciercube.simulate.world import World
from glaciercube.store import missing_scenes


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def job(tmp_path: Path, world: World, catalog: Path) -> Path:
    west, south, east, north = world.region.bbox
    path = tmp_path / "job.yaml"
    path.write_text(
        f"region: {{name: small, bbox: [{west}, {south}, {east}, {north}], resolution: 40}}\n"
        f"catalog: {catalog}\ntime: 2021/2022\nsensors: [sentinel-2, dem]\n"
        f"model: ndsi\nstore: {tmp_path / 'a.zarr'}\n"
    )
    return path


def refused(result: Result, *words: str) -> None:
    """One sentence on stderr, an exit code that is not 0, no traceback."""
    assert result.exit_code == 1, result.output
    *before, sentence = result.stderr.strip().splitlines()
    assert all(line.startswith("no interval") or line.endswith("meet the grid") for line in before), before
    assert sentence.startswith("glaciercube: ")
    for word in words:
        assert word in sentence, sentence


def test_find_explain_run_area(job: Path, world: World, tmp_path: Path) -> None:
    found = call("find", job, "--save", tmp_path / "scenes.parquet", "--calendar", tmp_path / "calendar.png")
    assert found.exit_code == 0, found.output
    assert "sentinel-2 (sentinel-2-l2a): 4 observations of 8 scenes" in found.output
    assert "1 scene left out: S2" in found.output
    assert (tmp_path / "calendar.png").read_bytes()[:4] == b"\x89PNG"
    assert len(gpd.read_parquet(tmp_path / "scenes.parquet")) == 12
    told = call("explain", job)
    assert "to do     4 shards in 1 units" in told.stdout
    assert "looking at offsets: 100%" in told.stderr
    assert not call("explain", job, "--quiet").stderr
    assert not (tmp_path / "a.zarr").exists()
    first = call("run", job, "--quiet")
    assert first.exit_code == 0, first.output
    assert "4 shards computed, 0 were done" in first.output
    assert "0 shards computed, 4 were done" in call("run", job, "--quiet").output
    assert not call("run", job, "--quiet").stderr
    assert "0 shards to compute, 4 done" in call("explain", job).stdout
    assert "`glaciercube update` searches again" in call("run", job).stderr
    told = call("update", job, "--until", "2022-12-31", "--cluster", "threads")
    assert "0 shards to compute, 4 done" in told.stderr
    assert "0 shards computed, 4 were done" in told.stdout
    assert call("tidy", job).stdout == "0 objects cleared away, 0.0 MiB\n"
    outlines = tmp_path / "outlines.geojson"
    world.outlines.to_crs("EPSG:4326").to_file(outlines)
    csv, plot = tmp_path / "area.csv", tmp_path / "area.png"
    area = call("area", tmp_path / "a.zarr", outlines, "--every", "year", "--csv", csv, "--plot", plot)
    assert area.exit_code == 0, area.output
    series = pd.read_csv(csv)
    assert list(series.columns[:3]) == ["outline", "time", "area_km2"]
    assert set(series["outline"]) <= set(world.outlines["outline"])
    assert plot.read_bytes()[:4] == b"\x89PNG"


def test_what_failed_is_listed_and_tried_alone(job: Path, tmp_path: Path, catalog: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    job.write_text(job.read_text().replace(str(catalog), str(copy / "catalog.json")))
    tiles = {path: path.read_bytes() for path in (copy / "cop-dem-glo-30").rglob("*.tif")}
    for path in tiles:
        path.write_bytes(b"no tiff")
    broken = call("run", job, "--quiet")
    assert broken.exit_code == 1
    assert broken.stderr.splitlines()[-1].endswith("only this is computed (`glaciercube failed` lists it).")
    listed = call("failed", job, "--csv", tmp_path / "failed.csv")
    assert listed.exit_code == 0, listed.output
    assert listed.stdout.startswith("4 shards could not be made\n  4 of 2021-08-11 to 2022-08-29: cannot read")
    assert list(pd.read_csv(tmp_path / "failed.csv")["state"]) == ["failed"] * 4
    for path, whole in tiles.items():
        path.write_bytes(whole)
    assert "4 shards computed (why: 4 failed before), 0 were done" in call("run", job, "--quiet", "--failed").stdout
    assert "0 shards could not be made\n0 shards made without" in call("failed", tmp_path / "a.zarr").stdout
    refused(call("failed", tmp_path / "none.zarr"), "there is no store at")
    refused(call("run", job, "--cluster", "nowhere"), "there is no cluster 'nowhere'")
    refused(call("update", job, "--until", "2023", "--time", "2022"), "both say when")


def test_what_a_command_is_told_is_taken_as_it_is(
    job: Path, tmp_path: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    text = job.read_text().replace(str(catalog), str(copy / "catalog.json"))
    text = text.replace("time: 2021/2022", "time: 2021").replace("[sentinel-2, dem]", "[sentinel-2]")
    job.write_text(text)
    collection = copy / "sentinel-2-l2a" / "collection.json"
    whole = collection.read_text()
    content = json.loads(whole)
    content["links"] = [link for link in content["links"] if "20210905T" not in link["href"]]
    collection.write_text(json.dumps(content))
    assert "1 shard computed" in call("run", job, "--quiet").stdout
    # Nothing failed, and nothing else is asked for.
    job.write_text(f"{text}run: {{only_failed: true}}\n".replace("time: 2021\n", "time: 2021/2022\n"))
    assert "0 shards computed, 1 were done" in call("run", job, "--quiet").stdout
    job.write_text(text)
    assert "0 shards computed, 1 were done" in call("run", job, "--quiet").stdout
    # A date that came late: told by `explain --update` alone, which writes nothing.
    job.write_text(text)
    collection.write_text(whole)
    for _ in range(2):
        assert "0 shards to compute, 1 done" in call("explain", job, "--quiet").stdout
        assert "1 shard to compute, 1 done" in call("explain", job, "--quiet", "--update").stdout
    job.write_text(f"{text}cluster: {{kind: slurm, workers: 9, threads: 8, memory: 1TB, wait: 7}}\n")
    assert "9 workers" not in call("explain", job, "--quiet", "--cluster", "local").stdout
    settings = load_config(job)
    assert _cluster(settings, "local") == ClusterOptions("local", wait=7)
    assert _cluster(settings, "slurm") is settings.cluster
    opened: list[object] = []

    def noted(path: str, *, endpoint: str = "") -> None:
        opened.append((path, endpoint))
        raise StoreError("no network here", "none")

    monkeypatch.setattr("glaciercube.store.open_store", noted)
    refused(call("area", "s3://bucket/x.zarr", tmp_path / "o.gpkg", "--endpoint", "http://127.0.0.1:9"), "no network")
    assert opened == [("s3://bucket/x.zarr", "http://127.0.0.1:9")]


def test_models_are_listed() -> None:
    listed = call("models").output
    for name in ("band-ratio", "ndsi", "fusion-unet"):
        assert name in listed


def test_demo_at_small_size(tmp_path: Path) -> None:
    done = call("demo", "--out", tmp_path / "demo", "--size", "64", "--model", "ndsi", "--quiet")
    assert done.exit_code == 0, done.output
    lines = done.stdout.strip().splitlines()
    assert lines[0].split() == [
        "year",
        "ice",
        "area",
        "(km2)",
        "true",
        "area",
        "(km2)",
        "90%",
        "from",
        "90%",
        "to",
        "seen",
    ]
    rows = [line.split() for line in lines[1:8]]
    assert [int(row[0]) for row in rows] == list(range(2018, 2025))
    assert all(float(row[2]) > 0 for row in rows)
    assert (tmp_path / "demo" / "change.png").stat().st_size > 50_000
    assert (tmp_path / "demo" / "glacier_probability.zarr" / "zarr.json").is_file()


@pytest.mark.parametrize("name", ["world/mine.txt", "glacier_probability.zarr/zarr.json", "area.csv", "change.png"])
def test_a_demo_touches_nothing_that_is_not_its_own(tmp_path: Path, name: str) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    refused(call("demo", "--out", tmp_path, "--size", "64", "--model", "ndsi"), "something at", "another folder")
    assert mine.read_text() == "mine"


def test_a_demo_that_was_stopped_goes_on_in_its_folder(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_: World, folder: Path, **__: bool) -> Path:
        (folder / "half.tif").touch()
        raise CatalogError("the disk is full", "free some space")

    def done(_: World, folder: Path, **__: bool) -> Path:
        assert not (folder / "half.tif").exists()
        return folder / "catalog.json"

    monkeypatch.setattr("glaciercube.demo.write_catalog", stopped)
    with pytest.raises(CatalogError, match="full"):
        _written(world, tmp_path, progress=False)
    _check_ours(tmp_path)
    store = tmp_path / "glacier_probability.zarr"
    store.mkdir()
    monkeypatch.setattr("glaciercube.demo.write_catalog", done)
    assert _written(world, tmp_path, progress=False) == tmp_path / "world" / "catalog.json"
    assert not store.exists()
    store.mkdir()
    # The same world again stays, with its store.
    monkeypatch.setattr("glaciercube.demo.write_catalog", stopped)
    _written(world, tmp_path, progress=False)
    assert store.exists()


def test_what_nobody_foresaw_is_one_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception) -> None:
        def failing() -> None:
            raise error

        monkeypatch.setattr("glaciercube.models.list_models", failing)

    fails(KeyError("https://me:hunter2@example.org/a?sig=hunter2"))
    told = call("models")
    refused(told, "this is a defect of glaciercube (KeyError: ", "`glaciercube --traceback models ...` shows all")
    assert len(told.stderr.splitlines()) == 1
    assert "hunter2" not in told.stderr
    whole = call("--traceback", "models")
    assert isinstance(whole.exception, KeyError)
    assert not whole.stderr
    fails(RuntimeError("process 0 ended\n\nTraceback (most recent call last):\n  here\nValueError: that"))
    refused(call("models"), "(RuntimeError: ValueError: that)")
    fails(MemoryError("Unable to allocate 3 GiB"))
    refused(call("models"), "memory did not suffice (MemoryError: Unable to allocate 3 GiB)")
    # Click's own ways to end are none.
    assert call("models", "--help").exit_code == 0
    assert call("train", "job.yaml", "--fold", "first").exit_code == 2


def test_every_failure_is_one_sentence(job: Path, tmp_path: Path, world: World) -> None:
    text = job.read_text()

    def changed(before: str, after: str) -> Path:
        assert before in text
        path = tmp_path / "changed.yaml"
        path.write_text(text.replace(before, after))
        return path

    refused(call("run", tmp_path / "none.yaml"), "cannot read the configuration")
    refused(
        call("run", changed("2021/2022", "1999")), "no scene of sentinel-2-l2a meets small", "check place, interval"
    )
    refused(call("run", changed("model: ndsi", "model: bandratio")), "bandratio", "band-ratio")
    refused(call("run", changed("model: ndsi", "model: {name: ndsi, thresold: 1}")), "thresold")
    refused(call("find", changed("catalog: ", "catalog: /nowhere/")), "there is no catalogue at")
    refused(call("run", changed("resolution: 40", "resolution: -1")), "resolution -1")
    assert call("run", job, "--quiet").exit_code == 0
    refused(call("run", changed("resolution: 40", "resolution: 60")), "made with another grid")
    far = tmp_path / "far.geojson"
    world.outlines.to_crs("EPSG:4326").translate(xoff=20).to_file(far)
    refused(call("area", tmp_path / "a.zarr", far), "outlines meets the grid of small", "give outlines of that place")
    refused(call("area", tmp_path / "none.zarr", far), "cannot be opened as a Zarr store")
    near = tmp_path / "near.geojson"
    world.outlines.to_crs("EPSG:4326").to_file(near)
    refused(call("area", tmp_path / "a.zarr", near, "--csv", tmp_path / "none" / "a.csv"), "there is no folder")
    refused(call("area", tmp_path / "a.zarr", near, "--plot", tmp_path / "a.foo"), "cannot draw to")
    for section in ("run: {threads: 0}", "run: {block: {batch: 0}}", "run: {block: {device: gpu}}", "load: {cell: 0}"):
        refused(call("run", changed("time:", f"{section}\ntime:")), "changed.yaml line 3: ")
    refused(call("demo", "--model", "nope", "--out", tmp_path / "d"), "nope")
    assert not (tmp_path / "d").exists()
    secret = changed("catalog: ", "catalog: http://user:hunter2@127.0.0.1:9/stac?token=abc #")
    told = call("find", secret)
    refused(told, "http://127.0.0.1:9/stac cannot be read")
    assert "hunter2" not in told.output
    assert "abc" not in told.output


@pytest.mark.filterwarnings("default:1 of 8 looks at the pixels:UserWarning")
def test_spoilt_scenes_are_one_sentence_too(job: Path, tmp_path: Path, catalog: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(catalog.parent, copy)
    job.write_text(job.read_text().replace(str(catalog), str(copy / "catalog.json")))
    item = max((copy / "sentinel-2-l2a").rglob("S2*.json"))
    whole = item.read_text()
    content = json.loads(whole)
    name = Path(content["assets"].pop("B11")["href"]).name
    item.write_text(json.dumps(content))
    found = call("find", job)
    assert found.exit_code == 0, found.output
    assert "1 scene left out: has no asset for band 'swir16'" in found.output
    item.write_text(whole)
    (cog,) = copy.rglob(name)
    pixels = cog.read_bytes()
    cog.write_bytes(b"no tiff at all")
    spoilt = call("run", job, "--quiet")
    assert spoilt.exit_code == 0, spoilt.output
    assert "glaciercube: warning: 1 of 8 looks at the pixels of Sentinel-2 scenes failed" in spoilt.output
    assert "1 of them without scenes that could not be read" in spoilt.output
    assert content["id"] in set(missing_scenes(tmp_path / "a.zarr")["scene"])
    assert f"1 shard made without scenes that could not be read\n  1 of 2022-08-29: {content['id']}: " in (
        call("failed", job).stdout
    )
    cog.write_bytes(pixels)
    assert call("run", job, "--quiet").exit_code == 0
