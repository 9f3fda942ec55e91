"""Watching a run, and stopping it: one sentence, the lease given back, and the next run goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import FULL, ROOT
from fault_server import Asked, serve

from glaciercube.campaign.events import read_events
from glaciercube.cli import main
from glaciercube.simulate.world import World

COMMAND = [sys.executable, "-c", "from glaciercube.cli import main; main()"]

# What each event has beside time, run and event itself, as docs/events.md says.
SCHEMA: dict[str, set[str]] = {
    "began": {"store", "shards", "left", "empty", "cluster", "reasons", "details"},
    "started": {"block", "rows"},
    **{step: {"block", "rows", "worker", "seconds", "bytes"} for step in ("read", "predicted", "written")},
    "failed": {"block", "rows", "kind", "reason", "failure", "scene", "band", "uri"},
    "worker-lost": {"worker"},
    "ended": {"computed", "failed", "seconds"},
    "stopped": {"computed", "failed", "seconds", "reason"},
}


def job(folder: Path, world: World, url: str, **other: str) -> Path:
    west, south, east, north = world.region.bbox
    lines = {
        "region": f"{{name: small, bbox: [{west}, {south}, {east}, {north}], resolution: 40}}",
        "catalog": f"{url}/catalog.json",
        "time": "2021/2022",
        "sensors": "[sentinel-2]",
        "model": "ndsi",
        "store": f"{{path: {folder / 'a.zarr'}, shard: 24, chunk: 24}}",
        "run": "{dates: 1, threads: 2}",
        **other,
    }
    path = folder / "job.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in lines.items()))
    return path


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("times", [1, 2] if FULL else [2])
@pytest.mark.parametrize("where", ["threads", *(["local"] if FULL else [])])
def test_ctrl_c_ends_a_run_cleanly(tmp_path: Path, world: World, catalog: Path, times: int, where: str) -> None:
    held = [0.0]

    def slow(asked: Asked) -> None:
        if not asked.path.endswith(".json"):
            time.sleep(held[0])

    with serve(catalog.parent) as server:
        server.choose = slow
        config = job(tmp_path, world, server.url, cluster=f"{{kind: {where}, workers: 1}}")
        log = tmp_path / "a.zarr.events.jsonl"
        command = [*COMMAND, "run", str(config)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            wait_for(lambda: log.exists() and '"written"' in log.read_text(), process)
            # Asked twice it must not wait for what is being read.
            held[0] = 30.0 if times == 2 else 0.3
            time.sleep(0.3)
            for number in range(times):
                process.send_signal(signal.SIGINT)
                time.sleep(0.5 * (number + 1 < times))
            stopped = time.monotonic()
            out, told = process.communicate()
        held[0] = 0.0
        assert process.returncode == 130, told
        assert not out
        assert told.splitlines()[-1] == "glaciercube: stopped: run again to go on where it ended."
        assert "Traceback" not in told
        assert times == 1 or time.monotonic() - stopped < 25
        (lease,) = (tmp_path / "a.zarr" / "provenance" / "lease").iterdir()
        assert json.loads(lease.read_text())["released"]
        events = read_events(log)
        assert (events[-1]["event"], events[-1]["reason"]) == ("stopped", "KeyboardInterrupt")
        done = events[-1]["computed"]
        again = CliRunner().invoke(main, ["run", str(config)])
        assert again.exit_code == 0, again.output
        assert f"{16 - done} shards computed, {done} were done" in again.stdout
    assert_documented(read_events(log))


def assert_documented(events: Any) -> None:
    described = (ROOT / "docs" / "events.md").read_text()
    for event in events:
        assert set(event) - {"time", "run", "event"} <= SCHEMA[event["event"]]
        assert f"`{event['event']}`" in described
        for key in SCHEMA[event["event"]]:
            assert f"`{key}`" in described


def test_failures_are_told_and_skipped_shards_are_not_in_the_rate(tmp_path: Path, world: World, catalog: Path) -> None:
    with serve(catalog.parent) as server:
        server.choose = lambda asked: "503" if "20210905T" in asked.path and "json" not in asked.path else None
        reading = "{read: {attempts: 1, delay: 0.01, longest: 0.02}}"
        config = job(tmp_path, world, server.url, load=reading)
        command = [*COMMAND, "run", str(config)]
        broken = subprocess.run(command, capture_output=True, text=True, check=False)
        assert broken.returncode == 1
        assert (
            len(re.findall(r"shard \(\d, \d\) of 2021-09-05T[\d:]+ could not be made: cannot read", broken.stderr)) == 4
        )
        assert broken.stderr.splitlines()[-1].startswith("glaciercube: cannot read")
        server.choose = None
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "4: failed before" in again.stderr
        # The bar begins where the run before ended.
        assert re.search(r"run: +75%.*12/16 \[00:00<\?", again.stderr)
        assert "16/16" in again.stderr
    events = read_events(tmp_path / "a.zarr.events.jsonl")
    assert_documented(events)
    assert [event["left"] for event in events if event["event"] == "began"] == [16, 4]
    assert [event["computed"] for event in events if event["event"] == "ended"] == [4]
    assert {event["failure"] for event in events if event["event"] == "failed"} == {"transient"}
