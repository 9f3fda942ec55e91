"""One read: what is tried again and what is not, who may read, and that nothing is made up or given away."""

from __future__ import annotations

import email.utils
import logging
import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import zarr
from conftest import FULL
from fault_server import Asked, FaultServer, serve
from odc.geo.geobox import GeoBox

import glaciercube.reading.access as access_module
from glaciercube.errors import CatalogError, ReadError
from glaciercube.reading.address import Address
from glaciercube.reading.carried import Carried
from glaciercube.reading.leaving import leaving_out
from glaciercube.reading.reader import Driver, is_readable, read_cell
from glaciercube.reading.retry import ReadOptions, kind_of_status, retry_after
from glaciercube.reading.transport import forget

CELL = GeoBox((128, 128), rasterio.Affine(10, 0, 500_403, 0, -10, 6_999_597), "EPSG:32606")
QUICK = ReadOptions(attempts=4, connect_timeout=1.0, timeout=0.25, delay=0.01, budget=20.0)
SECRET = "s3cr3tT0ken"  # noqa: S105 - made up
Hook = Callable[[Asked], "str | None"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    pixels = np.random.default_rng(1).integers(1, 9000, (512, 512)).astype("uint16")
    write_cog(made / "a.tif", pixels)
    write_cog(made / "b.tif", pixels[::-1])
    return made


def write_cog(path: Path, pixels: npt.NDArray[Any], **options: Any) -> None:
    kind = {"driver": "COG", "compress": "deflate", "blocksize": 128, "nodata": 0, **options}
    transform = rasterio.Affine(10, 0, 500_000, 0, -10, 7_000_000)
    shape = {"height": pixels.shape[0], "width": pixels.shape[1]}
    with rasterio.open(
        path, "w", count=1, dtype=pixels.dtype, crs="EPSG:32606", transform=transform, **shape, **kind
    ) as file:
        file.write(pixels, 1)


@pytest.fixture
def server(folder: Path) -> Iterator[FaultServer]:
    forget()
    with serve(folder) as running:
        yield running


def read(uri: str, **options: Any) -> npt.NDArray[Any]:
    how: dict[str, Any] = {"resampling": "bilinear", "dtype": "uint16", "nodata": 0, "options": QUICK}
    return read_cell(uri, CELL, **{**how, **options})


def once(*kinds: str) -> Hook:
    left = list(kinds)
    return lambda _: left.pop(0) if left else None


@pytest.mark.parametrize("fault", ["503", "500", "408", "429", "truncated", "stalled", "reset"])
@pytest.mark.parametrize("first", [True, False])
def test_what_passes_is_tried_again(folder: Path, server: FaultServer, fault: str, first: bool) -> None:
    server.stall = 0.4
    wanted = read(str(folder / "a.tif"))
    assert (wanted > 0).all()
    if not first:
        assert is_readable(f"{server.url}/a.tif")
    server.choose = once(fault, fault)
    np.testing.assert_array_equal(read(f"{server.url}/a.tif"), wanted)
    assert server.faults[fault] == 2


@pytest.mark.parametrize(
    ("fault", "failure", "says"),
    [
        ("404", "permanent", "the server answers 404"),
        ("410", "permanent", "the server answers 410"),
        ("html", "permanent", "answers with a web page"),
        ("403", "authorisation", "the server answers 403"),
        ("401", "authorisation", "the server answers 401"),
        ("503", "transient", "the server answers 503; gave up after 4 attempts"),
        ("stalled", "transient", "the server stalled; gave up"),
        ("reset", "transient", "the connection failed; gave up"),
        ("truncated", "transient", "the answer was cut off; gave up"),
    ],
)
def test_what_stays_is_an_error_of_its_kind(server: FaultServer, fault: str, failure: str, says: str) -> None:
    server.stall = 0.4
    server.choose = lambda _: fault
    address = Address(f"{server.url}/a.tif?sig={SECRET}", scene="S2X", band="red")
    with pytest.raises(ReadError, match=says) as caught:
        read(address.uri)
    error = caught.value
    assert (error.failure, error.scene, error.band) == (failure, "S2X", "red")
    assert error.uri == f"{server.url}/a.tif"
    assert "of scene S2X" in str(error)
    expected = {"permanent": 1, "authorisation": 2, "transient": 4}[failure]
    assert server.requests == expected
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.failure, again.scene, str(again)) == (failure, "S2X", str(error))


def test_whether_a_file_is_readable_is_asked_of_the_server(folder: Path, server: FaultServer) -> None:
    """What is kept of a file says nothing of now: the token may have ended since."""
    (folder / "bucket").mkdir(exist_ok=True)
    (folder / "bucket" / "kept.tif").write_bytes((folder / "a.tif").read_bytes())
    bucket = Address("s3://bucket/kept.tif", options=s3_options(server)).uri
    for uri in (f"{server.url}/a.tif", bucket):
        server.choose = None
        assert is_readable(uri, options=QUICK)
        assert is_readable(uri, options=QUICK)
        server.choose = lambda _: "403"
        before = server.requests
        assert not is_readable(uri, options=QUICK)
        assert server.requests > before


def test_a_server_that_says_when_is_not_asked_before(folder: Path, server: FaultServer) -> None:
    server.retry_after = 0.4
    server.choose = once("429", "429")
    begun = time.monotonic()
    np.testing.assert_array_equal(read(f"{server.url}/a.tif"), read(str(folder / "a.tif")))
    assert time.monotonic() - begun >= 0.8
    assert server.impatient == 0
    # Longer than the read may take: told at once.
    server.retry_after = 3600
    forget()
    server.choose = once("429")
    with pytest.raises(ReadError, match="the server asks to wait 3600 s") as caught:
        read(f"{server.url}/b.tif")
    assert caught.value.failure == "transient"
    assert server.requests < 12


def test_waits_grow_and_differ() -> None:
    options = ReadOptions(delay=1.0, longest=8.0)
    waits = [[options.wait(failed) for _ in range(200)] for failed in (1, 2, 3, 9)]
    for low, high, drawn in zip((0.5, 1, 2, 4), (1, 2, 4, 8), waits, strict=True):
        assert low <= min(drawn) < max(drawn) <= high
        assert len(set(drawn)) > 100
    assert options.wait(1, asked=20.0) == 20.0
    assert retry_after("7") == 7
    assert 50 < retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after(email.utils.formatdate(time.time() - 60, usegmt=True)) == 0
    assert retry_after("soon") == retry_after(None) == 0
    assert {kind_of_status(s) for s in (429, 500, 502, 503, 504)} == {"transient"}


def test_a_server_without_ranges_is_right_too(folder: Path, server: FaultServer) -> None:
    server.ranges = False
    np.testing.assert_array_equal(read(f"{server.url}/a.tif"), read(str(folder / "a.tif")))
    server.every, server.kinds = 2, ("truncated",)
    np.testing.assert_array_equal(read(f"{server.url}/b.tif"), read(str(folder / "b.tif")))


def test_a_file_that_changes_is_never_a_mixture(folder: Path, server: FaultServer, tmp_path: Path) -> None:
    server.folder = tmp_path
    (tmp_path / "a.tif").write_bytes((folder / "a.tif").read_bytes())
    asked: list[str] = []

    def swap(_: Asked) -> None:
        asked.append("")
        if len(asked) == 2:
            (tmp_path / "a.tif").write_bytes((folder / "b.tif").read_bytes() + b"0")

    server.choose = swap
    np.testing.assert_array_equal(read(f"{server.url}/a.tif"), read(str(folder / "b.tif")))


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw", "none"])
def test_a_spoilt_file_gives_its_pixels_or_an_error(tmp_path: Path, remote: bool, compress: str) -> None:
    """Cut off anywhere, or a tile or the header zeroed: never zeros, never values that were not there."""
    whole = tmp_path / "whole.tif"
    rng = np.random.default_rng(2)
    pixels = np.add.outer(np.arange(300) * 7, np.arange(300) * 11) + rng.integers(1, 9, (300, 300))
    write_cog(whole, pixels.astype("uint16"), compress=compress, overviews="none")
    content, wanted = whole.read_bytes(), read(str(whole))
    assert (wanted > 0).all()
    cuts = [content[:at] for at in rng.integers(0, len(content), 300 if FULL else 25)]
    zeroed = [content[:at] + bytes(length) + content[at + length :] for at, length in _parts(whole)]
    errors = 0
    with serve(tmp_path) as server:
        for number, spoilt in enumerate(cuts + ([] if compress == "none" else zeroed)):
            name = f"{number}.tif"
            (tmp_path / name).write_bytes(spoilt)
            try:
                found = read(f"{server.url}/{name}" if remote else str(tmp_path / name))
            except ReadError as error:
                errors += error.failure == "permanent"
                continue
            np.testing.assert_array_equal(found, wanted)
    assert errors > 5


def _parts(path: Path) -> list[tuple[int, int]]:
    """Start and length of the header and of some tiles."""
    with rasterio.open(path) as file:
        tiles = [
            (int(file.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1)),
             int(file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1)))
            for x, y in ((0, 0), (1, 0), (1, 1))
        ]  # fmt: skip
    return [(0, 8), (0, 400), *tiles]


class FakeSigner:
    """Tokens that end after some requests; the server knows which are still good."""

    def __init__(self, lasts: int) -> None:
        self.lasts, self.made, self.used, self.forgotten = lasts, 0, 0, 0
        self.token = ""

    def __call__(self, href: str) -> str:
        if not self.token:
            self.made += 1
            self.token, self.used = f"{SECRET}{self.made}", 0
        return f"{href}?sig={self.token}"

    def forget(self) -> None:
        self.forgotten += 1
        self.token = ""

    def check(self, asked: Asked) -> str | None:
        if asked.query.get("sig") != f"{SECRET}{self.made}":
            return "403"
        self.used += 1
        return "403" if self.used > self.lasts else None


def test_tokens_that_end_are_renewed_while_reading(
    folder: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = FakeSigner(lasts=3)
    monkeypatch.setattr(access_module, "signer", lambda _: signer)
    server.choose = signer.check
    for name in ("a.tif", "b.tif") * 4:
        forget()
        np.testing.assert_array_equal(read(f"{server.url}/{name}", signing="fake"), read(str(folder / name)))
    assert signer.forgotten >= 4
    assert server.faults["403"] == signer.forgotten
    # A refusal that stays after a new signature is meant.
    forget()
    before = signer.forgotten
    server.choose = lambda _: "403"
    with pytest.raises(ReadError, match="check the credentials") as caught:
        read(f"{server.url}/a.tif", signing="fake")
    assert caught.value.failure == "authorisation"
    assert signer.forgotten == before + 1


def test_bearer_tokens_are_read_anew(folder: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.choose = lambda asked: None if asked.headers.get("Authorization") == f"Bearer {SECRET}2" else "401"
    monkeypatch.setenv("MY_TOKEN", f"{SECRET}1")
    with pytest.raises(ReadError) as caught:
        read(f"{server.url}/a.tif", signing="bearer:$MY_TOKEN")
    assert caught.value.failure == "authorisation"
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    monkeypatch.setenv("MY_TOKEN", f"{SECRET}2")
    np.testing.assert_array_equal(read(f"{server.url}/a.tif", signing="bearer:$MY_TOKEN"), read(str(folder / "a.tif")))
    monkeypatch.delenv("MY_TOKEN")
    forget()
    with pytest.raises(ReadError, match="MY_TOKEN is not set"):
        read(f"{server.url}/a.tif", signing="bearer:$MY_TOKEN")


@pytest.mark.parametrize("fault", ["403", "503", "404", "html", "truncated", "stalled", "reset", "garbage"])
def test_nothing_secret_is_ever_told(
    tmp_path: Path, server: FaultServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    """Neither by the error, nor by what hangs on it, nor by any log at any level."""
    server.folder, server.stall = tmp_path, 0.4
    (tmp_path / "a.tif").write_bytes(b"II*\0 no tiff at all" * 10)
    server.choose = None if fault == "garbage" else lambda _: fault
    with caplog.at_level(logging.DEBUG), pytest.raises(ReadError) as caught:
        read(f"http://user:{SECRET}@127.0.0.1:{server.server_address[1]}/a.tif?sig={SECRET}&x=1")
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(vars(caught.value))
    hanging: BaseException | None = caught.value
    while hanging is not None:
        told += repr(hanging)
        hanging = hanging.__cause__ or hanging.__context__
    assert SECRET not in told
    ours = [f"{r.name} {r.getMessage()} {r.exc_text}" for r in caplog.records if not r.name.startswith("asyncio")]
    assert not [line for line in ours if SECRET in line]
    assert SECRET not in "".join(capfd.readouterr())


def test_scenes_left_out_are_nothing_at_all(folder: Path) -> None:
    address = Address(str(folder / "a.tif"), scene="S2X", band="red")
    with leaving_out(frozenset({"S2X"})):
        assert (read(address.uri) == 0).all()
        assert np.isnan(read(address.uri, dtype="float32", nodata=np.nan)).all()
        assert (read(Address(str(folder / "a.tif"), scene="other").uri) > 0).all()
    assert (read(address.uri) > 0).all()


def test_addresses_travel_as_uris() -> None:
    options = (("AWS_REQUEST_PAYER", "requester"),)
    address = Address("s3://bucket/a b.tif", "S2#1", "red", "r10m/b04", "EPSG:32606", (10.0, 0.0, 5.0), options)
    assert Address.parse(address.uri) == address
    assert Address.parse("/data/a.tif") == Address("/data/a.tif")
    assert Address("/data/a.tif").uri == "/data/a.tif"
    assert address.origin == "s3://bucket"
    assert Address("https://u:p@host/a.tif?sig=1").shown == "https://host/a.tif"


def test_settings_reach_workers_and_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    monkeypatch.setenv("MY_TOKEN", SECRET)
    with rasterio.Env(GDAL_HTTP_BEARER=SECRET, GDAL_CACHEMAX=64):
        env = Driver("bearer:$MY_TOKEN").capture_env()
    assert SECRET not in repr(env)
    from dask.base import tokenize

    key = tokenize(env)
    sent = pickle.dumps(env)
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_REQUEST_PAYER", "MY_TOKEN"):
        monkeypatch.delenv(name)
    assert tokenize(Driver().capture_env()) == key
    there = pickle.loads(sent)  # noqa: S301 - our own
    with Driver().restore_env(there, None):
        known = rasterio.env.getenv()
        assert known["AWS_SECRET_ACCESS_KEY"] == SECRET
        assert known["AWS_REQUEST_PAYER"] == "requester"
        assert known["GDAL_HTTP_BEARER"] == SECRET
        assert os.environ["MY_TOKEN"] == SECRET
    # A worker's own credentials count more than what came with the graph.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "own")
    with Driver().restore_env(there, None):
        assert rasterio.env.getenv().get("AWS_SECRET_ACCESS_KEY", "own") == "own"
    monkeypatch.delenv("MY_TOKEN")
    with Carried.nothing().applied({}, {"AWS_REQUEST_PAYER": "requester"}):
        assert rasterio.env.getenv()["AWS_REQUEST_PAYER"] == "requester"


@pytest.mark.parametrize("faults", [(), ("503", "503"), ("truncated",), ("reset",)])
def test_s3_is_read_through_gdal_and_tried_again(folder: Path, server: FaultServer, faults: tuple[str, ...]) -> None:
    (folder / "bucket").mkdir(exist_ok=True)
    name = f"{'-'.join(faults) or 'quiet'}.tif"
    (folder / "bucket" / name).write_bytes((folder / "a.tif").read_bytes())
    payers: list[str | None] = []
    left = list(faults)

    def choose(asked: Asked) -> str | None:
        payers.append(asked.headers.get("x-amz-request-payer"))
        return left.pop(0) if left else None

    server.choose = choose
    options = s3_options(server, ("AWS_REQUEST_PAYER", "requester"))
    with Driver(options=QUICK).restore_env(Driver(options=QUICK).capture_env(), None):
        found = read(Address(f"s3://bucket/{name}", options=options).uri)
    np.testing.assert_array_equal(found, read(str(folder / "a.tif")))
    assert set(payers) == {"requester"}
    assert not left


def s3_options(server: FaultServer, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (
        ("AWS_S3_ENDPOINT", server.url.removeprefix("http://")),
        ("AWS_HTTPS", "NO"),
        ("AWS_VIRTUAL_HOSTING", "FALSE"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "here"),
        *more,
    )


@pytest.mark.parametrize(
    ("fault", "failure"), [("404", "permanent"), ("403", "authorisation"), ("503", "transient"), ("reset", "transient")]
)
def test_s3_says_what_kind_of_failure_it_is(server: FaultServer, fault: str, failure: str) -> None:
    server.choose = lambda _: fault
    options = QUICK
    with (
        Driver(options=options).restore_env(Driver(options=options).capture_env(), None),
        pytest.raises(ReadError) as caught,
    ):
        read(Address(f"s3://bucket/{fault}.tif", scene="S2X", options=s3_options(server)).uri)
    assert (caught.value.failure, caught.value.scene) == (failure, "S2X")
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_object_that_ends_too_early_is_permanent(folder: Path, server: FaultServer) -> None:
    (folder / "bucket").mkdir(exist_ok=True)
    whole = (folder / "a.tif").read_bytes()
    (folder / "bucket" / "cut.tif").write_bytes(whole[: len(whole) // 3])
    driver = Driver(options=QUICK)
    with driver.restore_env(driver.capture_env(), None), pytest.raises(ReadError) as caught:
        read(Address("s3://bucket/cut.tif", options=s3_options(server)).uri)
    assert caught.value.failure == "permanent"


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("remote", [False, True])
def test_arrays_of_a_zarr_store_are_read(
    folder: Path, server: FaultServer, tmp_path: Path, version: int, remote: bool
) -> None:
    server.folder = tmp_path
    with rasterio.open(folder / "a.tif") as source:
        pixels, grid = source.read(1), source.transform
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
    made = group.create_array("r10m/b04", shape=pixels.shape, chunks=(200, 200), dtype="uint16", fill_value=0)
    made[:] = pixels
    for axis, start, step in (("x", grid.c + 5, 10), ("y", grid.f - 5, -10)):
        group.create_array(f"r10m/{axis}", shape=(512,), dtype="float64")[:] = start + step * np.arange(512)
    root = server.url if remote else str(tmp_path)
    address = Address(f"{root}/a.zarr", scene="S2X", band="red", inner="r10m/b04", crs="EPSG:32606")
    server.every, server.kinds = 3, ("503", "truncated", "429")
    wanted = read(str(folder / "a.tif"))
    np.testing.assert_array_equal(read(address.uri), wanted)
    assert is_readable(address.uri)
    server.every = 0
    with pytest.raises(ReadError, match="says its CRS"):
        read(Address(address.href, inner="r10m/b04").uri)
    with pytest.raises(ReadError, match="there is no Zarr array r10m/b05") as caught:
        read(Address(address.href, inner="r10m/b05", crs="EPSG:32606").uri)
    assert caught.value.failure == "permanent"
    if remote:
        # A chunk that is refused is not a chunk that was never written.
        forget()
        server.choose = lambda asked: "403" if asked.path.endswith(("0.0", "0/0")) else None
        with pytest.raises(ReadError) as refused:
            read(address.uri)
        assert refused.value.failure == "authorisation"


def test_a_missing_signer_is_told(monkeypatch: pytest.MonkeyPatch, server: FaultServer) -> None:
    def refuse(_: str) -> None:
        raise CatalogError("the package is not installed", "pip install it")

    monkeypatch.setattr(access_module, "signer", refuse)
    with pytest.raises((ReadError, CatalogError), match="the package is not installed"):
        read(f"{server.url}/a.tif", signing="planetary-computer")


def test_settings_of_the_client_reach_processes(folder: Path, server: FaultServer) -> None:
    """What is set here only is known where the read happens; the same pixels come back."""
    distributed = pytest.importorskip("distributed")
    server.choose = lambda asked: None if asked.headers.get("Authorization") == f"Bearer {SECRET}" else "401"
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        driver = Driver("bearer:$LATE_TOKEN", QUICK)
        os.environ["LATE_TOKEN"] = SECRET
        try:
            env = driver.capture_env()
        finally:
            del os.environ["LATE_TOKEN"]
        futures = client.map(_far, [f"{server.url}/a.tif", f"{server.url}/b.tif"], driver=driver, env=env)
        for found, name in zip(client.gather(futures), ("a.tif", "b.tif"), strict=True):
            np.testing.assert_array_equal(found, read(str(folder / name)))
        lost = client.submit(_far, f"{server.url}/none.tif", driver=driver, env=env)
        with pytest.raises(ReadError) as caught:
            lost.result()
        assert caught.value.failure == "permanent"
        assert SECRET not in "".join(map(str, client.who_has()))


def _far(uri: str, driver: Driver, env: dict[str, Any]) -> npt.NDArray[Any]:
    from odc.loader.types import RasterLoadParams, RasterSource

    how = RasterLoadParams("uint16", fill_value=0, resampling="bilinear")
    with driver.restore_env(env, None) as context:
        _, pixels = driver.open(RasterSource(uri), context).read(how, CELL)
    found: npt.NDArray[Any] = pixels
    return found
