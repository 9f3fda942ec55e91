"""settle_offsets(): pixels, provider and baseline, in that order; never the date."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import FULL
from fault_server import FaultServer, serve
from odc.geo.geobox import GeoBox

from glaciercube.catalog import Scenes, SensorOptions, find
from glaciercube.cube import load, settle_offsets
from glaciercube.cube.offset import Look, judge
from glaciercube.cube.offset_record import are_contradicted, offset_records, with_records
from glaciercube.reading import backend_odc
from glaciercube.reading.reader import Driver
from glaciercube.reading.retry import ReadOptions
from glaciercube.reading.transport import forget
from glaciercube.region import Region
from glaciercube.simulate.clouds import WATER_CLOUD
from glaciercube.simulate.sequence import SequenceOptions, draw_sequence
from glaciercube.simulate.world import World

SWIR = ("swir22", "swir16")


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021/2022", ["sentinel-2"])


def numbers(reflectance: Any, offset: float) -> Any:
    """Stored numbers of a reflectance, as a product with or without the offset holds them."""
    return np.clip(np.rint((np.asarray(reflectance) - offset) * 1e4), 1, 65535).astype(np.uint16)


def declared(scenes: Scenes, *, baseline: float, provider: float | None) -> Scenes:
    """The same pixels, with a baseline and a provider that say what we want them to."""
    by_baseline = -0.1 if baseline >= 4 else 0.0
    notes = {"baseline": baseline, "offset_by_baseline": by_baseline, "offset_by_provider": provider}
    offset = by_baseline if provider is None else provider
    return replace(scenes, table=scenes.table.assign(notes=json.dumps(notes), offset=offset))


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("flag", [-0.1, 0.0, None])
@pytest.mark.parametrize("baseline", [2.12, 5.11])
def test_pixels_overrule_what_provider_and_baseline_say(
    scenes: Scenes, world: World, added: bool, flag: float | None, baseline: float
) -> None:
    truth = -0.1 if added else 0.0
    own = replace(scenes, table=scenes.table[scenes.table["offset"] == truth].reset_index(drop=True))
    assert len(own) >= 2
    said = declared(own, baseline=baseline, provider=flag)
    wrong = bool((said.table["offset"] != truth).all())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settled = settle_offsets(said, world.region)
    told = [warning for warning in caught if "the pixels are believed" in str(warning.message)]
    assert set(settled.table["offset"]) == {truth}
    notes = json.loads(settled.table.loc[0, "notes"])
    assert notes["offset_by_data"] == truth
    assert notes["offset_by_provider"] == flag
    assert notes["offset_by_baseline"] == (-0.1 if baseline >= 4 else 0.0)
    assert min(notes["darkest_dn"].values()) < 750 or added
    # Disagreement is told once for all scenes of a kind, and agreement is not told.
    assert len(told) == wrong
    if wrong:
        by = "the provider" if flag is not None else "the processing baseline"
        message = f"{len(own)} of {len(own)} scenes of sentinel-2-l2a"
        assert message in str(told[0].message)
        assert f"{truth:g} by their pixels and {-0.1 - truth:g} by {by}" in str(told[0].message)


def test_a_wrong_declaration_does_not_move_reflectance(scenes: Scenes, world: World) -> None:
    said = declared(scenes, baseline=5.11, provider=-0.1)
    with pytest.warns(UserWarning, match="the pixels are believed"):
        settled = settle_offsets(said, world.region)
    wanted = load(scenes, world.region)["sentinel2"]["red"].compute()
    found = load(settled, world.region)["sentinel2"]["red"].compute()
    np.testing.assert_array_equal(found, wanted)
    assert abs(float((load(said, world.region)["sentinel2"]["red"] - wanted).min()) + 0.1) < 1e-5


def test_settled_scenes_are_not_read_again(scenes: Scenes, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settled = settle_offsets(scenes, world.region)
    monkeypatch.setattr(backend_odc, "read", lambda _: pytest.fail("a settled scene was read"))
    again = settle_offsets(settled, world.region)
    assert again.fingerprint == settled.fingerprint
    assert list(again.table["notes"]) == list(settled.table["notes"])


def test_saved_scenes_stay_settled(
    scenes: Scenes, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = settle_offsets(scenes, world.region)
    kept = Scenes.load(settled.save(tmp_path / "scenes.parquet"))
    monkeypatch.setattr(backend_odc, "read", lambda _: pytest.fail("a settled scene was read"))
    assert settle_offsets(kept, world.region).fingerprint == settled.fingerprint


def test_a_look_that_fails_decides_nothing_and_is_tried_again(scenes: Scenes, world: World) -> None:
    said = declared(scenes, baseline=5.11, provider=None)
    gone = said.table.copy()
    gone.loc[0, "item"] = str(gone.loc[0, "item"]).replace("_B12_", "_gone_").replace("_B11_", "_gone_")
    with (
        pytest.warns(UserWarning, match="by the processing baseline"),
        pytest.warns(UserWarning, match=r"1 of 8 looks .* failed.*cannot read"),
    ):
        settled = settle_offsets(replace(said, table=gone), world.region)
    notes = json.loads(settled.table.loc[0, "notes"])
    assert settled.table.loc[0, "offset"] == -0.1
    assert notes["offset_by_data"] is None
    assert notes["offset_undecided"].startswith("cannot read")
    mended = settled.table.assign(item=said.table["item"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = settle_offsets(replace(settled, table=mended), world.region)
    assert "offset_undecided" not in json.loads(again.table.loc[0, "notes"])
    assert again.table.loc[0, "offset"] == scenes.table.loc[0, "offset"]


def test_a_look_is_small(scenes: Scenes, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = Driver.open

    def counted(self: Driver, src: Any, ctx: Any) -> Any:
        opened.append(src.uri)
        return original(self, src, ctx)

    monkeypatch.setattr(Driver, "open", counted)
    settle_offsets(scenes, world.region)
    assert len(opened) == 2 * len(scenes)
    assert all("B11" in uri or "B12" in uri for uri in opened)


@pytest.fixture
def server(catalog: Path) -> Iterator[FaultServer]:
    forget()
    with serve(catalog.parent) as running:
        yield running


def served(scenes: Scenes, catalog: Path, server: FaultServer) -> Scenes:
    """The same scenes, as this server has them."""
    items = scenes.table["item"].str.replace(str(catalog.parent), server.url, regex=False)
    return replace(scenes, table=scenes.table.assign(item=items))


def test_a_host_that_fails_is_left_alone(scenes: Scenes, world: World, catalog: Path, server: FaultServer) -> None:
    far = served(scenes, catalog, server)
    server.choose = lambda _: "503"
    with pytest.warns(UserWarning, match=r"^8 of 8 looks .* failed.*; the first: cannot read .*answers 503") as told:
        settled = settle_offsets(far, world.region, threads=1)
    assert sum("looks at" in str(each.message) for each in told) == 1
    # Three scenes, each asked twice.
    assert server.requests == 6
    assert settled.fingerprint == scenes.fingerprint
    reasons = [json.loads(text)["offset_undecided"] for text in settled.table["notes"]]
    assert [reason.startswith("cannot read") for reason in reasons] == [True] * 3 + [False] * 5
    assert reasons[-1] == f"cannot look: {server.url} failed 3 looks in a row"
    with pytest.warns(UserWarning, match="8 of 8 looks"):
        settle_offsets(far, world.region, threads=1, read=ReadOptions(attempts=3, delay=0.01))
    assert server.requests == 6 + 9
    server.choose = None
    again = settle_offsets(settled, world.region)
    assert not any("offset_undecided" in json.loads(text) for text in again.table["notes"])


@pytest.mark.parametrize(("fault", "scattered"), [("503", True), ("404", False), ("404", True)])
def test_a_host_that_answers_is_asked_on(
    scenes: Scenes, world: World, catalog: Path, server: FaultServer, fault: str, scattered: bool
) -> None:
    """Files that are gone, and failures between successes, are no reason to stop."""
    bad = set(scenes.table["id"].iloc[[0, 1, 3, 4, 6] if scattered else range(5)])
    server.choose = lambda asked: fault if any(name in asked.path for name in bad) else None
    with pytest.warns(UserWarning, match="5 of 8 looks"):
        settled = settle_offsets(served(scenes, catalog, server), world.region, threads=1, read=ReadOptions(attempts=1))
    decided = {
        name
        for name, text in zip(settled.table["id"], settled.table["notes"], strict=True)
        if "offset_undecided" not in json.loads(text)
    }
    assert decided == set(scenes.table["id"]) - bad


def test_what_was_seen_once_need_not_be_read_again(
    scenes: Scenes, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = declared(scenes, baseline=5.11, provider=-0.1)
    with pytest.warns(UserWarning, match="the pixels are believed"):
        settled = settle_offsets(said, world.region)
    records = json.loads(json.dumps(offset_records(settled)))
    first = records[scenes.table.loc[0, "id"]]
    truth = float(scenes.table.loc[0, "offset"])
    assert first == {"offset": truth, "baseline": 5.11, "by_baseline": -0.1, "by_provider": -0.1, "by_data": truth}
    monkeypatch.setattr(backend_odc, "read", lambda _: pytest.fail("a scene was read that is known"))
    known = with_records(said, records)
    assert settle_offsets(known, world.region).fingerprint == settled.fingerprint
    assert offset_records(known) == records
    # Pixels that do not tell are known, too.
    silent = with_records(said, {name: {**record, "by_data": None} for name, record in records.items()})
    assert settle_offsets(silent, world.region).fingerprint == said.fingerprint
    monkeypatch.undo()
    # Of another processing, or a look that failed, or nonsense: read.
    unknown = [
        {name: {**record, "baseline": 5.1} for name, record in records.items()},
        {name: {**record, "by_provider": None} for name, record in records.items()},
        offset_records(said),
        {name: {**record, "by_data": "x"} for name, record in records.items()},
        dict.fromkeys(records, -0.1),
        "nonsense",
        None,
    ]
    for each in unknown:
        assert list(with_records(said, each).table["notes"]) == list(said.table["notes"])


def test_only_a_contradiction_that_nobody_settled_is_told(scenes: Scenes, world: World) -> None:
    for baseline, provider in ((5.11, None), (5.11, -0.1), (2.12, 0.0), (2.12, None)):
        said = declared(scenes, baseline=baseline, provider=provider)
        assert not are_contradicted(said)
        load(said, world.region)
    said = declared(scenes, baseline=5.11, provider=0.0)
    with pytest.warns(UserWarning, match=r"provider and processing baseline disagree.*settle_offsets") as told:
        load(said, world.region)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settled = settle_offsets(said, world.region)
    load(settled, world.region)


def test_bright_scenes_do_not_tell() -> None:
    rng = np.random.default_rng(0)
    overcast = {
        name: WATER_CLOUD[index] * rng.uniform(0.9, 1.1, (64, 64)) for name, index in zip(SWIR, (5, 4), strict=True)
    }
    for offset in (0.0, -0.1):
        stored = {name: numbers(values, offset) for name, values in overcast.items()}
        assert judge(stored, {}).offset is None
    nearly_nothing = {name: np.where(np.arange(4096).reshape(64, 64) < 100, 50, 0) for name in SWIR}
    assert judge(nearly_nothing, {}) == Look(None, {}, "too few pixels with data")


def test_nodata_mixed_into_an_overview_is_not_taken_for_dark_ground() -> None:
    """A swath's edge where the overview averaged nodata in: numbers between 0 and 1000 that no pixel had."""
    stored = np.full((64, 64), 1020, np.uint16)
    stored[:, :30] = 0
    stored[:, 30] = 400
    stored[:, 31] = 700
    assert judge(dict.fromkeys(SWIR, stored), {}).offset == -0.1


def test_verdicts_over_many_simulated_scenes() -> None:
    """Ordinary scenes: never the wrong verdict, and mostly one."""
    verdicts: dict[float, list[float | None]] = {0.0: [], -0.1: []}
    count = 24 if FULL else 8
    for seed in range(count):
        scene = draw_sequence(610_000 + seed, SequenceOptions(size=64, resolution=20.0, layers=())).isel(time=0)
        for offset, found in verdicts.items():
            stored = {n: np.where(scene[n].isnull(), 0, numbers(scene[n].fillna(0), offset)) for n in SWIR}
            found.append(judge(stored, {}).offset)
    for offset, found in verdicts.items():
        assert set(found) <= {offset, None}
        assert found.count(offset) >= 0.75 * count


@pytest.mark.real
def test_real_scenes_whose_offset_is_known(real_data: Path) -> None:
    """Khumbu: baseline 05.10, removed by the provider. Vinciguerra: L1C of baseline 02.08, without."""
    khumbu = Region.from_bbox((86.78, 27.95, 86.85, 28.00), resolution=20, name="khumbu")
    with rasterio.open(real_data / "vinciguerra" / "reference" / "vinciguerra_label_2019.tif") as source:
        vinciguerra = Region("vinciguerra", GeoBox(source.shape, source.transform, str(source.crs)))
    for region, time, collection in ((khumbu, "2024", "sentinel-2-l2a"), (vinciguerra, "2019/2021", "sentinel-2-l1c")):
        own = find(real_data / region.name / "catalog.json", region, time, {"sentinel-2": SensorOptions(collection)})
        settled = settle_offsets(own, region)
        assert set(settled.table["offset"]) == {0.0}
        assert {json.loads(text)["offset_by_data"] for text in settled.table["notes"]} == {0.0}
    # Without the provider's word the baseline would have been wrong.
    mute = [{**json.loads(text), "offset_by_provider": None} for text in own.table["notes"]]
    assert len(mute) == 3
    silent = find(real_data / "khumbu" / "catalog.json", khumbu, "2024", ["sentinel-2"])
    with pytest.warns(UserWarning, match="4 of 4 scenes of sentinel-2-l2a"):
        told = settle_offsets(declared(silent, baseline=5.1, provider=None), khumbu)
    assert set(told.table["offset"]) == {0.0}
