"""The lease: whoever writes is alone, is named, and stops when somebody else has taken over."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glaciercube.errors import StoreError
from glaciercube.store.lease import DURATION, SKEW, Holder, Lease, _born, _machine
from glaciercube.store.objects import Location, _Folder

FOLDER = "provenance/lease"


@pytest.fixture(params=["disk", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """Somewhere for a store: a folder, a bucket in memory, a bucket of a real server."""
    if request.param == "disk":
        return Location.here(tmp_path / "a.zarr")
    if request.param == "memory":
        return Location.here(f"memory://{uuid.uuid4()}")
    server = request.getfixturevalue("s3")
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return Location.here(f"{server.url}/{uuid.uuid4()}/a.zarr", server.endpoint)


@pytest.fixture
def elsewhere() -> Callable[..., Holder]:
    """Somebody on another machine who holds the lease."""

    def made(place: Location, number: int = 1, **changed: Any) -> Holder:
        now = time.time()
        holder = replace(Holder.here(now, DURATION), host="far", user="eve", pid=7, machine="other", **changed)
        place.objects().put(f"{FOLDER}/{number:010d}.json", json.dumps(holder.__dict__).encode())
        return holder

    return made


def test_a_second_writer_is_refused_by_name(place: Location) -> None:
    first = Lease(place, FOLDER)
    with pytest.raises(StoreError, match=r"is being written by .*\(pid \d+, this process\) until .* UTC: wait until"):
        Lease(place, FOLDER)
    first.check()
    first.release()
    second = Lease(place, FOLDER)
    assert second.number == first.number + 1
    with pytest.raises(StoreError, match="was closed"):
        first.check()
    second.release()


def test_whoever_still_has_a_ticket_of_a_lease_that_was_given_back_is_refused(place: Location) -> None:
    """A thread or worker that was left behind must not write on: nobody will say what it wrote."""
    lease = Lease(place, FOLDER)
    ticket = lease.ticket
    ticket.check()
    lease.release()
    with pytest.raises(StoreError, match="was closed by its writer"):
        ticket.check()


def test_of_many_who_try_at_once_one_gets_it(place: Location) -> None:
    for _ in range(5):

        def attempt(_: int) -> Lease | StoreError:
            try:
                return Lease(place, FOLDER)
            except StoreError as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(attempt, range(8)))
        (winner,) = [one for one in got if isinstance(one, Lease)]
        winner.check()
        winner.release()


def test_an_expired_lease_can_be_taken_and_a_live_one_cannot(place: Location, elsewhere: Callable[..., Holder]) -> None:
    elsewhere(place)
    with pytest.raises(StoreError, match=r"being written by eve@far \(pid 7\) until .*takeover: true"):
        Lease(place, FOLDER)
    # Clocks may disagree by a little.
    elsewhere(place, until=time.time() - SKEW / 2)
    with pytest.raises(StoreError, match="eve@far"):
        Lease(place, FOLDER)
    elsewhere(place, until=time.time() - SKEW - 1)
    Lease(place, FOLDER).release()


def test_a_lease_can_be_taken_over_and_its_holder_stops(place: Location) -> None:
    first = Lease(place, FOLDER)
    ticket = first.ticket
    second = Lease(place, FOLDER, takeover=True)
    for check in (first.check, first.renew, ticket.check):
        with pytest.raises(StoreError, match=r"was taken over by .*what was finished here before is kept"):
            check()
    first.release()
    second.check()
    second.release()


def test_who_read_the_list_long_ago_does_not_get_an_old_number(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw number 1; meanwhile 2 and 3 came and went, 4 is held, and old ones were deleted."""
    for _ in range(3):
        Lease(place, FOLDER).release()
    held = Lease(place, FOLDER)
    from glaciercube.store import lease as module

    numbers, calls = module._numbers, iter([{1}])
    monkeypatch.setattr(module, "_numbers", lambda *args: next(calls, None) or numbers(*args))
    with pytest.raises(StoreError, match="is being written by"):
        Lease(place, FOLDER)
    monkeypatch.undo()
    held.check()


_HOLD = """
import sys, time
from glaciercube.store.lease import Lease
from glaciercube.store.objects import Location
Lease(Location.here(sys.argv[1]), "provenance/lease")
lease = Lease(Location.here(sys.argv[1] + "-kept"), "provenance/lease")
print("held", flush=True)
time.sleep(60)
"""


def test_the_lease_of_a_killed_process_of_this_machine_is_free_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "a.zarr")
    command = [sys.executable, "-W", "ignore", "-c", _HOLD, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        # What nobody holds on to any more was given back.
        Lease(Location.here(path), FOLDER).release()
        with pytest.raises(StoreError, match=rf"\(pid {process.pid}\)"):
            Lease(Location.here(path + "-kept"), FOLDER)
        process.kill()
        process.wait()
        Lease(Location.here(path + "-kept"), FOLDER).release()


def test_another_process_of_the_same_number_is_not_the_holder() -> None:
    now = time.time()
    here = Holder.here(now, DURATION)
    assert not here.dead
    assert replace(here, born="1").dead
    assert not replace(here, born="1", machine="another").dead
    assert _born(2**22 + 1) == ""
    assert _machine()


def test_a_heartbeat_keeps_it(place: Location) -> None:
    lease = Lease(place, FOLDER, duration=0.4)
    key = f"{FOLDER}/{lease.number:010d}.json"
    until = json.loads(place.objects().get(key))["until"]
    deadline = time.monotonic() + 30
    while json.loads(place.objects().get(key))["until"] < until + 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lease.release()
    assert json.loads(place.objects().get(key))["released"]


def test_a_server_that_cannot_keep_two_apart_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Folder, "create", _Folder.put)
    with pytest.raises(StoreError, match="does not honour If-None-Match"):
        Lease(Location.here(tmp_path / "a.zarr"), FOLDER)


def test_an_answer_that_was_lost_is_not_taken_for_somebody_else() -> None:
    objects = Location.here(f"memory://{uuid.uuid4()}").objects()
    objects.create("a", b"mine")
    # The client repeats a request whose answer it did not get.
    objects.create("a", b"mine")
    with pytest.raises(FileExistsError):
        objects.create("a", b"other")
    assert objects.get("a") == b"mine"


def _credentials() -> Iterator[str]:
    yield from ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def test_credentials_travel_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    for name in _credentials():
        monkeypatch.setenv(name, f"secret-{name}")
    location = Location.here("s3://bucket/a.zarr")
    assert "secret" not in repr(location)
    for name in _credentials():
        monkeypatch.delenv(name)
    there = pickle.loads(pickle.dumps(location))  # noqa: S301 - our own
    assert there.setting("AWS_SECRET_ACCESS_KEY") == "secret-AWS_SECRET_ACCESS_KEY"
    # What a worker has itself may have been renewed since.
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "newer")
    assert there.setting("AWS_SECRET_ACCESS_KEY") == "newer"


@pytest.mark.parametrize("path", ["gs://b/a", "http://h/a", "s3://me:pw@b/a"])
def test_addresses_that_cannot_be_used_are_refused(path: str) -> None:
    with pytest.raises(StoreError, match=r"no store can be at|has a password in it") as failure:
        Location.here(path)
    assert "pw" not in str(failure.value)
