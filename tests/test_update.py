"""Next month: what is new is added, and what is old stays, byte by byte; a run says why it computes anything."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from conftest import FULL
from fault_server import Asked, FaultServer, serve

from glaciercube.campaign import Outcome, Plan, failed_shards, make_plan, run, update, what_is_left
from glaciercube.campaign.batches import Batch
from glaciercube.campaign.kernel import Kernel
from glaciercube.campaign.keys import changed
from glaciercube.campaign.memory import remembered
from glaciercube.campaign.task import tasks
from glaciercube.campaign.update import merged
from glaciercube.catalog import Scenes, find, hull, parse_interval
from glaciercube.change import Calibration, area_series
from glaciercube.config import Config, parse_config
from glaciercube.cube import ComposeOptions, LoadOptions, settle_offsets
from glaciercube.cube.radar import RadarOptions
from glaciercube.errors import ReadError
from glaciercube.models import load_model
from glaciercube.reading.transport import forget
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, missing_scenes, open_store, provenance_of

Shards = dict[str, tuple[bytes, int]]

WITH_RADAR = {"sensors": "[sentinel-2, sentinel-1]", "model": "fusion-unet"}
FIRST, SECOND, THIRD, LAST = "2021-08-11", "2021-09-05", "2022-07-29", "2022-08-29"


class Archive:
    """A static catalogue of its own, from which scenes can be taken and to which they can be given back."""

    def __init__(self, source: Path, folder: Path) -> None:
        shutil.copytree(source, folder)
        self.folder = folder
        self.kept: dict[str, tuple[Path, Any]] = {}

    def hide(self, *parts: str) -> None:
        """Take out the items whose identifiers hold any of these."""
        for collection in self.folder.glob("*/collection.json"):
            content = json.loads(collection.read_text())
            gone = [link for link in content["links"] if any(part in link["href"] for part in parts)]
            content["links"] = [link for link in content["links"] if link not in gone]
            for link in gone:
                self.kept[link["href"]] = (collection, link)
            collection.write_text(json.dumps(content))

    def show(self, *parts: str) -> None:
        """Put them back; all by default."""
        for href, (collection, link) in list(self.kept.items()):
            if not parts or any(part in href for part in parts):
                content = json.loads(collection.read_text())
                content["links"].append(link)
                collection.write_text(json.dumps(content))
                del self.kept[href]

    def process_again(self, part: str, processed: str, baseline: str) -> tuple[str, str]:
        """Publish a newer processing of one scene, under another name and in place of the old; both names."""
        (path,) = (p for p in self.folder.rglob("*.json") if part in p.stem)
        item = json.loads(path.read_text())
        old, new = item["id"], item["id"].rpartition("_")[0] + f"_{processed}"
        target = path.parent.with_name(new)
        shutil.copytree(path.parent, target)
        (target / path.name).unlink()
        item["id"] = new
        item["properties"]["s2:processing_baseline"] = baseline
        (target / f"{new}.json").write_text(json.dumps(item))
        collection = path.parent.parent / "collection.json"
        content = collection.read_text().replace(f"./{old}/{old}.json", f"./{new}/{new}.json")
        collection.write_text(content)
        return old, new


@pytest.fixture
def archive(catalog: Path, tmp_path: Path) -> Archive:
    return Archive(catalog.parent, tmp_path / "archive")


def config(world: World, catalog: Path | str, store: Path | str, **other: str) -> Config:
    settings = {
        "time": "2021/..",
        "sensors": "[sentinel-2]",
        "model": "ndsi",
        "store": f"{{path: {store}, shard: 64, chunk: 32}}",
        **other,
    }
    west, south, east, north = world.region.bbox
    lines = [
        f"region: {{name: small, bbox: [{west}, {south}, {east}, {north}], resolution: 30}}",
        f"catalog: {catalog}",
    ]
    return parse_config("\n".join([*lines, *(f"{key}: {value}" for key, value in settings.items())]))


def do(settings: Config, **planning: Any) -> Outcome:
    return run(settings.plan(**planning), settings.run, settings.as_dict())


def shards(path: Path) -> Shards:
    """All that holds pixels: of a Zarr store its shards, of an Icechunk repository its chunks."""
    arrays = ("glacier_probability/c", "quality/c")
    folders = (*arrays, *(f"levels/1/{name}" for name in arrays), "chunks")
    files = [p for name in folders for p in (path / name).rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def content(found: Shards) -> dict[str, bytes]:
    return {name: data for name, (data, _) in found.items()}


def dates(path: Path) -> list[str]:
    return [str(time)[:10] for time in open_store(path)["time"].to_numpy()]


class Counted:
    """What an HTTP server was asked for, by file."""

    def __init__(self, server: FaultServer) -> None:
        self.files: Counter[str] = Counter()
        server.choose = self._note

    def _note(self, asked: Asked) -> None:
        self.files[asked.path] += 1

    @property
    def scenes(self) -> set[str]:
        """Folders, which are named after scenes, of the pixels that were read."""
        return {Path(path).parent.name for path in self.files if not path.endswith(".json")}


@pytest.mark.parametrize("name", ["a.zarr", "a.icechunk"])
def test_an_update_reads_the_new_date_and_nothing_else(
    world: World, archive: Archive, tmp_path: Path, name: str
) -> None:
    if name.endswith("icechunk"):
        pytest.importorskip("icechunk")
    path = tmp_path / name
    archive.hide("20220729T", "20220731T")
    with serve(archive.folder) as server:
        everything = "[sentinel-2, sentinel-1, dem]"
        settings = config(
            world, f"{server.url}/catalog.json", path, model="fusion-unet", sensors=everything, run="{levels: true}"
        )
        first = do(settings)
        assert (first.computed, first.reasons) == (3, {"never computed": 3})
        before, old = shards(path), open_store(path).load()
        # Both the date in between, and the radar scene that is nearest to it, come late.
        archive.show()
        forget()
        counted = Counted(server)
        # The same plan again: nothing is even searched for.
        assert do(settings).computed == 0
        assert not counted.files
        second = do(settings, again=True)
        assert (second.computed, second.skipped, second.reasons) == (1, 3, {"never computed": 1})
        made = provenance_of(open_store(path))["scenes"]
        (new,) = (ids for label, ids in made.items() if label.startswith(THIRD))
        assert any("20220731T" in scene for scene in new)
        assert counted.scenes == set(new)
        assert {scene[:3] for scene in counted.scenes} == {"S2A", "S1A", "Cop"}
        after = shards(path)
        assert {name: after[name] for name in before} == before
        now = open_store(path)
        assert dates(path) == [FIRST, SECOND, THIRD, LAST]
        assert name.endswith("icechunk") or len({name for name in after if name.startswith("levels/1/quality")}) == 4
        kept = now.sel(time=old["time"])
        for variable in ("glacier_probability", "quality", "sentinel1_age"):
            np.testing.assert_array_equal(kept[variable], old[variable])
        counted.files.clear()
        assert do(settings, again=True).computed == 0
        assert not counted.scenes


def test_a_late_radar_scene_changes_an_old_date_only_when_asked(world: World, archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    archive.hide("20210809T")
    settings = config(
        world, archive.folder / "catalog.json", path, sensors="[sentinel-2, sentinel-1]", model="fusion-unet"
    )
    do(settings)
    before = shards(path)
    archive.show()
    kept = settings.plan(again=True)
    assert len(kept.alone) == 1
    assert run(kept).computed == 0
    assert shards(path) == before
    # So it stays: for runs, for further updates, and where the date is computed anew for another reason.
    assert do(settings).computed == do(settings, again=True).computed == 0
    victim = next(name for name in before if name.startswith("glacier_probability/c/0/"))
    (path / victim).unlink()
    again = do(settings)
    assert again.reasons == {"lost or damaged in the store": 1}
    assert {name: data for name, (data, _) in shards(path).items()} == {
        name: data for name, (data, _) in before.items()
    }
    renewed = settings.plan(again=True, companions="renew")
    left = what_is_left(renewed)
    assert left.reasons == {"scenes changed": 1}
    assert left.details[0].startswith(f"{FIRST}T")
    assert "S1A_IW_GRDH_1SDV_20210809T" in left.details[0]
    assert run(renewed).computed == 1
    assert do(settings).computed == 0
    # It is what it would have been, had the scene been there from the beginning.
    do(replace(settings, store=replace(settings.store, path=str(tmp_path / "b.zarr"))))
    wanted = open_store(tmp_path / "b.zarr")
    np.testing.assert_array_equal(open_store(path)["glacier_probability"], wanted["glacier_probability"])


@pytest.mark.parametrize("every", ["observation", "year"])
@pytest.mark.parametrize("dates", [1, 3])
@pytest.mark.parametrize("sensors", [["sentinel-2", "sentinel-1"], ["sentinel-1"]])
def test_whatever_radar_comes_late_old_rows_keep_their_keys(
    world: World, catalog: Path, every: Literal["observation", "year"], dates: int, sensors: list[str]
) -> None:
    """Companions, those they are averaged with in time, and tracks of windows; where radar leads, a new date is one."""
    scenes = find(catalog, world.region, "2021/2022", sensors)
    options: dict[str, Any] = {
        "load": LoadOptions(radar=RadarOptions(multilook_dates=dates, multilook_days=400)),
        "compose": ComposeOptions(every, max_age=400),
    }

    def plan(some: Scenes, made_of: Any = None) -> Plan:
        store = StoreOptions("/nowhere/a.zarr", shard=128, chunk=128)
        return make_plan(world.region, some, load_model("fusion-unet"), store, made_of=made_of, **options)

    changes = 0
    for late in scenes.of("sentinel-1").table["id"]:
        old = plan(replace(scenes, table=scenes.table[scenes.table["id"] != late].reset_index(drop=True)))
        free, kept = plan(scenes), plan(scenes, dict(zip(old.labels, old.scene_ids, strict=True)))
        before, after = dict(zip(old.labels, old.keys, strict=True)), dict(zip(kept.labels, kept.keys, strict=True))
        own = {label for label in before if sensors[0] == "sentinel-1" and every == "year" and label[:4] == late[17:21]}
        assert {label for label in before if after[label] != before[label]} <= own
        changes += sum(key != before.get(label, key) for label, key in zip(free.labels, free.keys, strict=True))
        rows = [unit.rows for unit in kept.units()]
        assert all((row,) in rows for row in kept.alone)
        assert sorted(row for unit in rows for row in unit) == list(range(len(kept.rows)))
    assert changes > 0 or sensors == ["sentinel-1"]


def test_a_late_part_of_a_pass_does_not_shift_its_label(world: World, catalog: Path) -> None:
    """A slice that began earlier would give the pass another time, and every date beside it another key."""
    known = find(catalog, world.region, "2021/2022", ["sentinel-2", "sentinel-1"])
    table = known.table.copy()
    passes = table.index[table["sensor"] == "sentinel-1"]
    early = table.loc[passes[:1]].assign(id=table.loc[passes[0], "id"].replace("T025008_", "T024943_"))
    found = pd.concat([table, early])
    one = found["group"] == table.loc[passes[0], "group"]
    found.loc[one, "time"] = found.loc[one, "time"] - pd.Timedelta(seconds=25)
    found = found.sort_values(["sensor", "time", "id"]).reset_index(drop=True)
    both = merged(known, replace(known, table=found))
    assert len(both) == len(known) + 1
    labels = dict(zip(both.table["id"], both.table["time"], strict=True))
    assert all(labels[name] == time for name, time in zip(table["id"], table["time"], strict=True))
    assert labels[early["id"].iloc[0]] == table.loc[passes[0], "time"]
    assert both.table.dtypes.equals(known.table.dtypes)
    model, store = load_model("fusion-unet"), StoreOptions("/nowhere/a.zarr")
    old = make_plan(world.region, known, model, store)
    made_of = dict(zip(old.labels, old.scene_ids, strict=True))
    assert make_plan(world.region, both, model, store, made_of=made_of).keys == old.keys
    assert make_plan(world.region, both, model, store).keys != old.keys


def test_dates_come_in_any_order_and_those_processed_again_are_computed_anew(
    world: World, archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "a.zarr"
    archive.hide("20210811T", "20220729T")
    settings = config(world, archive.folder / "catalog.json", path)
    assert do(settings).computed == 2
    before = shards(path)
    archive.show("20210811T")
    assert do(settings, again=True).computed == 1
    old, new = archive.process_again("S2B_MSIL2A_20220829T211853_R086_T06VWM", "20230301T061853", "05.11")
    archive.show()
    plan = settings.plan(again=True)
    left = what_is_left(plan)
    assert left.reasons == {"never computed": 1, "scenes changed": 1}
    assert left.details == (f"{plan.labels[3]}: {new} instead of {old}",)
    assert "1: scenes changed" in "\n".join(left.lines())
    assert run(plan).computed == 2
    assert dates(path) == [FIRST, SECOND, THIRD, LAST]
    after = shards(path)
    # The first two rows that were made: the second of them is the date that was processed again.
    assert {name for name in before if after[name][1] == before[name][1]} == {n for n in before if "/c/0/" in n}
    assert new in str(provenance_of(open_store(path))["scenes"])
    assert old not in str(provenance_of(open_store(path))["scenes"])


def test_a_run_keeps_to_the_search_that_was_frozen(
    world: World, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a catalogue has on another day is not what a run goes on with; an update asks."""
    path, add = tmp_path / "a.zarr", Batch.add
    archive.hide("20220829T")
    settings = config(world, archive.folder / "catalog.json", path, run="{dates: 1}")
    plan = settings.plan()

    def interrupted(*arguments: Any) -> None:
        add(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Batch, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(plan, settings.run, settings.as_dict())
    monkeypatch.undo()
    archive.show()
    archive.hide("20210811T")
    again = settings.plan()
    assert (again.keys, again.labels) == (plan.keys, plan.labels)
    assert again.scenes.fingerprint == plan.scenes.fingerprint
    outcome = run(again, settings.run, settings.as_dict())
    assert (outcome.computed, outcome.skipped) == (2, 1)
    # Another end is another search, which goes on from the frozen one: what is gone from the catalogue stays.
    later = replace(settings, time="2021/2022")
    assert [label[:10] for label in later.plan().labels] == [FIRST, SECOND, THIRD, LAST]
    assert [label[:10] for label in replace(settings, time="2022").plan().labels] == [THIRD, LAST]
    assert do(settings, again=True).computed == 1
    assert dates(path) == [FIRST, SECOND, THIRD, LAST]


def test_an_update_may_go_on_beyond_the_configuration(world: World, archive: Archive, tmp_path: Path) -> None:
    settings = config(world, archive.folder / "catalog.json", tmp_path / "a.zarr", time="2021")
    assert do(settings).computed == 2
    assert do(settings, again=True, time="2021/2022-08-01").computed == 1
    # Later runs and updates of this configuration keep to it.
    assert [label[:10] for label in settings.plan().labels] == [FIRST, SECOND, THIRD]
    assert len(settings.plan(again=True).labels) == 3
    # Where files are is no reason to compute anything, and is taken up all the same.
    (path,) = (p for p in archive.folder.rglob("*.json") if "20210905T211853_R043_T06VVM" in p.stem)
    path.write_text(path.read_text().replace('"title": "', '"title": "moved '))
    assert do(settings, again=True).computed == 0
    assert "moved" in settings.plan().scenes.table["item"].str.cat()
    memory = remembered(settings.store, settings.region.region().geobox)
    assert memory is not None
    assert memory.request is not None
    assert (memory.request["time"], memory.request["searched"]) == ("2021", "2021/2022-08-01")


def test_a_new_date_changes_the_window_that_it_falls_into(world: World, archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    archive.hide("20220829T", "20210908T")
    settings = config(
        world,
        archive.folder / "catalog.json",
        path,
        compose="year",
        sensors="[sentinel-2, sentinel-1]",
        model="fusion-unet",
    )
    assert do(settings).computed == 2
    archive.show()
    plan = settings.plan(again=True)
    left = what_is_left(plan)
    assert left.reasons == {"scenes changed": 1}
    assert left.details[0].startswith("2022-01-01T00:00:00: S2B_MSIL2A_20220829T")
    # A radar scene that came late into a window of unchanged images is no reason.
    assert run(plan).computed == 1


def test_a_run_says_which_options_changed(world: World, archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    settings = config(world, archive.folder / "catalog.json", path)
    do(settings)
    for text, words in (
        ({"model": "{name: ndsi, threshold: 0.6}"}, "changed: the model"),
        ({"compose": "{mask: {dilate: 90}}"}, "changed: mask options"),
        ({"load": "{cell: 64}"}, "changed: load options"),
        ({"compose": "{max_age: 3}", "model": "{name: ndsi, threshold: 0.6}"}, "changed: compose options, the model"),
    ):
        other = config(world, archive.folder / "catalog.json", path, **text)
        assert what_is_left(other.plan()).reasons == {words: 4}
    plan = settings.plan()
    assert changed("0" * 64, plan.keys[0]) == ("version",)
    assert not changed(plan.keys[0], plan.keys[0])
    assert changed(plan.keys[1], plan.keys[0]) == ("scenes",)


@pytest.mark.parametrize("name", ["a.icechunk", "memory://failed", *(["a.zarr"] if FULL else [])])
def test_what_failed_is_listed_and_tried_alone(world: World, archive: Archive, tmp_path: Path, name: str) -> None:
    if name.endswith("icechunk"):
        pytest.importorskip("icechunk")
    path = name if "://" in name else str(tmp_path / name)
    with serve(archive.folder) as server:
        settings = config(
            world,
            f"{server.url}/catalog.json",
            path,
            load="{read: {attempts: 2, delay: 0.01, longest: 0.02}}",
            time="2021",
        )
        settings = replace(settings, run=replace(settings.run, dates=1))
        plan = settings.plan()
        server.choose = lambda asked: "503" if "20210905T" in asked.path and asked.path.endswith(".tif") else None
        with pytest.raises(ReadError, match="cannot read"):
            run(plan, settings.run)
        told = failed_shards(path)
        assert [str(time)[:10] for time in told["time"]] == [SECOND]
        assert (told["kind"][0], told["failure"][0]) == ("read", "transient")
        assert "20210905T" in told["scene"][0]
        # A year more is to be done; what failed is tried alone.
        server.choose = None
        settings = replace(settings, time="2021/2022")
        assert what_is_left(settings.plan(), settings.run).reasons == {"failed before": 1, "never computed": 2}
        alone = do(replace(settings, run=replace(settings.run, only_failed=True)))
        assert (alone.computed, alone.reasons) == (1, {"failed before": 1})
        assert failed_shards(path).empty
        assert do(settings).reasons == {"never computed": 2}


def test_an_update_from_python(world: World, archive: Archive, tmp_path: Path) -> None:
    archive.hide("20220829T")
    catalog, store = archive.folder / "catalog.json", StoreOptions(str(tmp_path / "a.zarr"))
    scenes = settle_offsets(find(catalog, world.region, "2021/..", ["sentinel-2"]), world.region)
    assert run(make_plan(world.region, scenes, load_model("ndsi"), store)).computed == 3
    archive.show()
    archive.hide("20210811T")
    found = find(catalog, world.region, "2021/..", ["sentinel-2"])
    outcome = update(world.region, found, load_model("ndsi"), store)
    assert (outcome.computed, outcome.skipped) == (1, 3)
    assert missing_scenes(tmp_path / "a.zarr").empty


@pytest.mark.parametrize("name", ["a.zarr", "a.icechunk"])
def test_a_half_redone_store_says_so(
    world: World, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name.endswith("icechunk"):
        pytest.importorskip("icechunk")
    path = tmp_path / name
    settings = config(world, archive.folder / "catalog.json", path, run="{dates: 1, threads: 1}")
    do(settings)
    assert "unfinished" not in provenance_of(open_store(path))
    other = replace(settings, model=replace(settings.model, parameters={"threshold": 0.6}))
    real, asked = tasks, []

    def interrupted(*arguments: Any) -> Any:
        for task in real(*arguments):
            asked.append(task)
            if len(asked) > 1:
                raise KeyboardInterrupt
            yield task

    monkeypatch.setattr("glaciercube.campaign.threads_run.tasks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        do(other)
    monkeypatch.undo()
    assert provenance_of(open_store(path))["unfinished"].startswith("4 of 4 shards may still be as they were made")
    shares = tuple(np.tile(np.linspace(0.0, 1.0, 41), 25))
    ours = Calibration("ndsi", other.load_model().hash, ("optical",), "observation", (0.1,) * len(shares), shares)
    with pytest.warns(UserWarning, match="may still be as they were .* without an interval"):
        assert area_series(path, world.outlines, calibration=ours)["lower_km2"].isna().all()
    # Whoever does only what failed before does not finish it.
    assert do(replace(other, run=replace(other.run, only_failed=True))).computed == 0
    assert provenance_of(open_store(path))["unfinished"].startswith("3 of 4 shards")
    assert do(other).computed == 3
    assert "unfinished" not in provenance_of(open_store(path))
    assert area_series(path, world.outlines, calibration=ours)["lower_km2"].notna().any()


def test_a_date_that_could_not_be_made_anew_keeps_its_scenes(world: World, archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    settings = config(world, archive.folder / "catalog.json", path)
    do(settings)
    old, new = archive.process_again("20220829T211853_R086_T06VWM", "20230301T061853", "05.11")
    plan = settings.plan(again=True)
    row = next(label for label in plan.labels if label.startswith(LAST))

    def unreadable(*_: Any) -> Any:
        raise ReadError("cannot read", "try again", failure="transient", uri="a", scene=new, band="red", reason="503")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "read", unreadable)
        with pytest.raises(ReadError):
            run(plan, settings.run, settings.as_dict())
    made = provenance_of(open_store(path))
    assert old in made["scenes"][row]
    assert new not in made["scenes"][row]
    assert new in made["scenes_planned"][row]
    # A later run still says what changed, goes on with the same plan, and tells in the end.
    again = settings.plan()
    assert again.keys == plan.keys
    assert what_is_left(again).details == (f"{row}: {new} instead of {old}",)
    assert do(settings).computed == 1
    made = provenance_of(open_store(path))
    assert new in made["scenes"][row]
    assert "scenes_planned" not in made


def test_an_update_of_a_later_time_keeps_what_is_earlier(world: World, archive: Archive, tmp_path: Path) -> None:
    """Its rows, and that one of them failed."""
    path = tmp_path / "a.zarr"
    settings = config(world, archive.folder / "catalog.json", path, time="2021", run="{dates: 1}")
    read = Kernel.read

    def unreadable(kernel: Kernel, task: Any) -> Any:
        if task.unit.rows == (1,):
            raise ReadError("cannot read", "try again", failure="transient", uri="a", scene="a", band="b", reason="503")
        return read(kernel, task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "read", unreadable)
        with pytest.raises(ReadError):
            do(settings)
    # What is gone from the catalogue stays, too: nobody looked for it there.
    archive.hide(FIRST.replace("-", ""))
    later = settings.plan(time="2022-08-01/2022-12-31")
    assert [label[:10] for label in later.labels] == [FIRST, SECOND, LAST]
    failed = replace(settings.run, only_failed=True)
    assert run(later, failed).reasons == {"failed before": 1}
    assert run(settings.plan(), settings.run).computed == 1
    memory = remembered(settings.store, settings.region.region().geobox)
    assert memory is not None
    assert memory.request is not None
    assert memory.request["searched"] == "2021/2022-12-31"
    # The next update searches what is in between, and one of an earlier end takes nothing back.
    assert [label[:10] for label in settings.plan(again=True).labels] == [FIRST, SECOND, THIRD, LAST]
    assert len(settings.plan(until="2021-12-31").labels) == 3
    assert len(replace(settings, time="2021-09").plan().labels) == 1


def test_program_and_configuration_go_on_from_each_other(world: World, archive: Archive, tmp_path: Path) -> None:
    catalog, path = archive.folder / "catalog.json", tmp_path / "a.zarr"
    settings = config(world, catalog, path, time="2022")
    region, store, model = settings.region.region(), settings.store, settings.load_model()

    def found(time: str) -> Scenes:
        return find(catalog, region, time, ["sentinel-2"])

    assert run(make_plan(region, settle_offsets(found("2021"), region), model, store)).computed == 2
    archive.hide(FIRST.replace("-", ""))
    # A run is of its own time; an update goes on from what the program found.
    assert [label[:10] for label in settings.plan().labels] == [THIRD, LAST]
    outcome = do(settings, again=True)
    assert (outcome.computed, outcome.skipped) == (2, 2)
    assert len(settings.plan(again=True).labels) == 4
    # And the program from that: the search stays the configuration's.
    archive.hide(LAST.replace("-", ""))
    assert update(region, found("2022-06/2022-07"), model, store).computed == 0
    archive.hide(THIRD.replace("-", ""))
    assert len(settings.plan().labels) == 4


def test_an_interval_that_holds_two() -> None:
    assert hull("2021", "2022-06/2022-07") == "2021/2022-07"
    assert hull("2021-06/..", "2021") == "2021/.."
    assert hull("2021", "2021") == "2021"
    assert hull("", "2021") == ""
    assert parse_interval(hull("../2020", "2019-01-01T00:00:00Z/2021")) == parse_interval("../2021")
