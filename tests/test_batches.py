"""Marks of a run on threads: many to a commit, none lost by a Ctrl-C; the event log after a kill."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from glaciercube.campaign import Plan, RunOptions, make_plan, run
from glaciercube.campaign.batches import Batch
from glaciercube.campaign.events import read_events
from glaciercube.catalog import Scenes, find
from glaciercube.models import load_model
from glaciercube.simulate.world import World
from glaciercube.store import StoreOptions, Written, ZarrStore, open_reader
from glaciercube.store.icestore import IcechunkStore

ONE_BY_ONE = RunOptions(dates=1, threads=2, events="")


@pytest.fixture(scope="module")
def scenes(world: World, catalog: Path) -> Scenes:
    return find(catalog, world.region, "2021", ["sentinel-2"])


def plan_at(path: Path, world: World, scenes: Scenes) -> Plan:
    options = StoreOptions(str(path), shard=48, chunk=48)
    return make_plan(world.region, scenes, load_model("ndsi"), options)


def test_a_line_that_was_cut_off_costs_no_event_of_the_next_run(tmp_path: Path, world: World, scenes: Scenes) -> None:
    plan, log = plan_at(tmp_path / "a.zarr", world, scenes), tmp_path / "events.jsonl"
    whole, cut = '{"event": "began", "run": "killed"}', '{"event": "writ'
    log.write_text(f"{whole}\n{cut}")
    run(plan, RunOptions(events=str(log)))
    names = [(event["event"], event["run"] == "killed") for event in read_events(log)]
    assert names[:2] == [("began", True), ("began", False)]
    # Nothing is added to a log that is whole.
    run(plan, RunOptions(events=str(log)))
    lines = log.read_text().splitlines()
    assert "" not in lines
    assert len(read_events(log)) == len(lines) - 1


@pytest.mark.parametrize(("name", "kind"), [("a.zarr", ZarrStore), ("a.icechunk", IcechunkStore)])
def test_many_shards_are_committed_at_once(
    name: str, kind: Any, tmp_path: Path, world: World, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is IcechunkStore:
        pytest.importorskip("icechunk")
    sizes: list[int] = []
    commit = kind.commit

    def counted(self: Any, written: Iterable[Written]) -> None:
        some = list(written)
        sizes.append(sum(len(one.marks) for one in some))
        commit(self, some)

    monkeypatch.setattr(kind, "commit", counted)
    monkeypatch.setattr(Batch, "seconds", 1e6)
    monkeypatch.setattr(Batch, "shards", 3)
    plan = plan_at(tmp_path / name, world, scenes)
    count = run(plan, ONE_BY_ONE).computed
    # Each as soon as there are so many, and the rest at the end.
    assert sizes == [3] * (count // 3) + [count % 3] * (count % 3 > 0)
    assert len(sizes) > 1
    sizes.clear()
    monkeypatch.setattr(Batch, "seconds", 0.0)
    run(plan_at(tmp_path / f"b{name}", world, scenes), ONE_BY_ONE)
    # What is old is not kept waiting.
    assert sizes == [1] * count


def test_what_was_written_whole_is_kept_by_a_ctrl_c(
    tmp_path: Path, world: World, scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, add, added = plan_at(tmp_path / "a.zarr", world, scenes), Batch.add, []

    def interrupted(self: Batch, written: Written) -> None:
        add(self, written)
        added.append(written)
        if len(added) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Batch, "seconds", 1e6)
    monkeypatch.setattr(Batch, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(plan, ONE_BY_ONE)
    store = open_reader(plan.store, world.region.geobox)
    assert store is not None
    assert len(store.done("sha256")) == len(added) >= 5
