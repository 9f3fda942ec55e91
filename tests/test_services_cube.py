"""The same pixels from disk, over HTTP and from S3, here and in other processes; keys reach readers and nobody else."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest
import rasterio
import xarray as xr
from services import Nginx, SeaweedFS, StacApi

from glaciercube.campaign import make_plan, run
from glaciercube.catalog import Scenes, find
from glaciercube.cube import LoadOptions, compose, load
from glaciercube.errors import ReadError
from glaciercube.models import load_model
from glaciercube.reading.retry import ReadOptions
from glaciercube.region import Region
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, open_store

WHEN = "2021/2022"


@pytest.fixture(scope="module")
def cube(world: World, catalog: Path) -> xr.Dataset:
    """From disk, which the others are held against."""
    return compose(load(find(catalog, world.region, WHEN), world.region)).compute()


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What GDAL has once read, it gives to whoever asks, with keys or without; nor may this machine's own help."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CPL_VSIL_CURL_NON_CACHED", "/vsis3/")


@pytest.fixture
def keys(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environ.items():
        monkeypatch.setenv(name, value)


def assert_equal_bits(found: xr.Dataset, expected: xr.Dataset) -> None:
    assert set(found.variables) == set(expected.variables)
    for name, variable in expected.variables.items():
        one, other = found[name].to_numpy(), variable.to_numpy()
        assert one.dtype == other.dtype
        assert np.array_equal(one, other, equal_nan=one.dtype.kind in "fc"), name


def read_from(url: str, region: Region) -> xr.Dataset:
    return compose(load(find(url, region, WHEN), region))


def test_http_gives_the_pixels_of_the_disk(api: StacApi, web: Nginx, world: World, cube: xr.Dataset) -> None:
    before = len(web.requests())
    assert_equal_bits(read_from(api.url, world.region).compute(), cube)
    asked = [line for line in web.requests()[before:] if ".tif" in line]
    # Parts of files are asked for.
    assert {line.split()[1] for line in asked} == {"206"}
    assert np.isfinite(cube["red"]).any()


@pytest.mark.usefixtures("keys")
def test_s3_gives_the_pixels_of_the_disk(s3_api: StacApi, world: World, cube: xr.Dataset) -> None:
    assert_equal_bits(read_from(s3_api.url, world.region).compute(), cube)


def test_s3_with_credentials_of_a_rasterio_session(
    s3_api: StacApi, s3: SeaweedFS, world: World, cube: xr.Dataset
) -> None:
    public = {name: value for name, value in s3.environ.items() if "KEY" not in name}
    private = {name: value for name, value in s3.environ.items() if "KEY" in name}

    class Session(rasterio.session.DummySession):  # type: ignore[misc]
        def get_credential_options(self) -> dict[str, str]:
            return {**private, **public}

    with rasterio.Env(Session()):
        lazy = read_from(s3_api.url, world.region)
    # They are those of the moment when the graph was made.
    assert_equal_bits(lazy.compute(), cube)


def test_the_static_catalogue_over_http_reads_beside_itself(web: Nginx, world: World, cube: xr.Dataset) -> None:
    assert_equal_bits(read_from(f"{web.url}/catalog.json", world.region).compute(), cube)


# Other processes.


@pytest.fixture(scope="module")
def workers() -> Iterator[distributed.Client]:
    """Two processes that were started without any credentials."""
    with pytest.MonkeyPatch.context() as before:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            before.delenv(name)
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        )
    with cluster, distributed.Client(cluster) as client:
        yield client


def environment(name: str) -> str | None:
    return os.environ.get(name)


@pytest.mark.usefixtures("keys")
def test_keys_and_settings_reach_every_worker(
    workers: distributed.Client, s3_api: StacApi, api: StacApi, world: World, cube: xr.Dataset, s3: SeaweedFS
) -> None:
    assert_equal_bits(read_from(s3_api.url, world.region).compute(), cube)
    over_http = load(find(api.url, world.region, WHEN, ["dem"]), world.region)["terrain"].to_dataset()
    assert np.array_equal(over_http["elevation"].compute(), cube["elevation"], equal_nan=True)
    logs = str(workers.get_worker_logs()) + str(workers.get_scheduler_logs())
    assert s3.secret not in logs
    # They came with the tasks and were not left lying about.
    assert set(workers.run(environment, "AWS_SECRET_ACCESS_KEY").values()) == {None}


def test_a_worker_says_without_secrets_that_it_may_not_read(
    workers: distributed.Client, s3_api: StacApi, s3: SeaweedFS, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "wr0ng-" + s3.secret
    for name, value in {**s3.environ, "AWS_SECRET_ACCESS_KEY": wrong}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ReadError, match=r"s3://cogs/.*check the credentials") as failure:
        read_from(s3_api.url, world.region).compute()
    assert failure.value.failure == "authorisation"
    told = "".join(traceback.format_exception(failure.value))
    told += str(workers.get_worker_logs()) + str(workers.get_scheduler_logs())
    assert wrong not in told


# Secrets.


def texts_of(lazy: xr.Dataset) -> str:
    """What a graph shows of itself."""
    graph = graph_of(lazy)
    return repr(graph) + "".join(map(str, graph)) + repr(lazy)


@pytest.mark.usefixtures("keys")
def test_keys_are_in_no_graph_log_snapshot_or_store(
    s3_api: StacApi, s3: SeaweedFS, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    scenes = find(s3_api.url, world.region, "2021", ["sentinel-2"])
    store = tmp_path / "made.zarr"
    plan = make_plan(world.region, scenes, load_model("ndsi"), StoreOptions(str(store), shard=64, chunk=64))
    outcome = run(plan, config={"catalog": s3_api.url})
    assert outcome.computed
    assert np.isfinite(open_store(store)["glacier_probability"]).any()
    scenes.save(tmp_path / "scenes.parquet")
    lazy = compose(load(scenes, world.region))
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (s3.key, s3.secret):
        assert secret not in texts_of(lazy)
        assert secret not in caplog.text
        assert secret.encode() not in files
    # That these would be found: tasks do carry them.
    assert s3.secret.encode() in pickled(lazy)


def pickled(lazy: xr.Dataset) -> bytes:
    return b"".join(distributed.protocol.pickle.dumps(task) for task in graph_of(lazy).values())


def graph_of(lazy: xr.Dataset) -> dict[Any, Any]:
    return dict(lazy.__dask_graph__())  # type: ignore[no-untyped-call]


def test_without_keys_a_read_is_refused_and_no_pixel_is_made_up(s3_api: StacApi, s3: SeaweedFS, world: World) -> None:
    impatient = LoadOptions(read=ReadOptions(attempts=1, connect_timeout=2, timeout=5))
    public = {name: value for name, value in s3.environ.items() if "KEY" not in name}
    scenes: Scenes = find(s3_api.url, world.region, WHEN, ["dem"])
    with rasterio.Env(AWS_NO_SIGN_REQUEST="YES", **public):
        lazy: Any = load(scenes, world.region, impatient)["terrain"]["elevation"]
    with pytest.raises(ReadError, match="check the credentials"):
        lazy.compute()
