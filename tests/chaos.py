"""What goes wrong in `test_chaos`: workers, drivers and servers that die at random, on real processes."""

from __future__ import annotations

import math
import os
import pickle
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import dask
from clusters import forked, local, preloaded
from distributed import Client, Scheduler, SchedulerPlugin
from distributed.chaos import KillWorker
from services import SeaweedFS

from glaciercube.campaign import Plan, RunOptions, run
from glaciercube.campaign.batches import Batch
from glaciercube.cluster import ClusterOptions, address_of
from glaciercube.errors import ClusterError, ReadError, StoreError
from glaciercube.store import open_reader

__all__ = ["COMMITS", "MODES", "REFUSED", "UNFINISHED", "Tally", "attempt", "cluster", "other_process"]

# How distributed.chaos ends a worker: all of them, since they die differently.
MODES: Final = ("sys.exit", "graceful", "segfault")
# How a driver ends that could not read all, or may not write.
UNFINISHED, REFUSED = 3, 4
# Shards and seconds of a commit here: whoever is killed after a second or two has committed some, and not others.
COMMITS: Final = (3, 0.3)


@dataclass
class Tally:
    """What was done to the runs, and what became of it."""

    stores: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    workers: Counter[str] = field(default_factory=Counter)
    drivers: int = 0
    # Those among them that had committed something in that run.
    between: int = 0
    servers: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    pixels: int = 0

    def __str__(self) -> str:
        return (
            f"chaos: {self.stores.total()} stores {dict(self.stores)} in {self.rounds} runs; "
            f"{self.workers.total()} workers killed {dict(self.workers)}, {self.drivers} drivers killed, "
            f"{self.between} of them after a commit of theirs, "
            f"the S3 server killed and restarted {self.servers} times, "
            f"{self.reads.total()} reads failed {dict(self.reads)}; "
            f"{self.lost} of {self.pixels} pixels lost or changed"
        )


class _Deaths(SchedulerPlugin):
    count = 0

    def remove_worker(self, scheduler: Scheduler, worker: str, **more: Any) -> None:
        self.count += 1


@contextmanager
def cluster(tally: Tally, mode: str) -> Iterator[Client]:
    """Two worker processes; who dies otherwise than by SIGKILL died of ``mode``."""
    # So many deaths are nobody's fault.
    with dask.config.set({"distributed.scheduler.allowed-failures": 20}), local(2) as client:
        workers: Any = client.cluster
        # Nannies give up on a worker that says goodbye; this does not.
        workers.adapt(minimum=2, maximum=2, interval="500ms")
        deaths, before = _Deaths(), tally.workers["SIGKILL"]
        workers.scheduler.add_plugin(deaths)
        yield client
        tally.workers[mode] += max(0, deaths.count - (tally.workers["SIGKILL"] - before))


def attempt(plan: Plan, client: Client, draw: random.Random, tally: Tally, mode: str, server: SeaweedFS | None) -> bool:
    """Run a plan once while things go wrong; whether it says that all is done."""
    tally.rounds += 1
    options = RunOptions(dates=draw.choice([1, 2]), events="")
    # What is drawn depends on the seed alone; when it happens does not.
    killed_after = draw.uniform(0.3, 4.0) if draw.random() < 0.3 else None
    with _upset(client, random.Random(draw.random()), tally, mode, server):  # noqa: S311
        if killed_after is not None:
            return _driven(plan, options, client, killed_after, tally)
        try:
            run(plan, options, cluster=client)
        except (ReadError, ClusterError):
            return False
        return True


def _driven(plan: Plan, options: RunOptions, client: Client, seconds: float, tally: Tally) -> bool:
    """The same from a process of its own, which is killed after so many seconds."""
    before = _committed(plan)
    driver, _ = other_process(plan, options, address_of(client))
    driver.join(seconds)
    # Every second one right after a commit of its own, however slow the machine is.
    deadline = time.monotonic() + 20 * (tally.drivers % 2 == 0)
    while driver.is_alive() and time.monotonic() < deadline and not _committed(plan) > before:
        time.sleep(0.05)
    if driver.is_alive():
        driver.kill()
        driver.join()
        tally.drivers += 1
        tally.between += _committed(plan) > before
    if driver.exitcode not in {0, UNFINISHED, -signal.SIGKILL}:
        raise RuntimeError(f"the driver ended with {driver.exitcode}")
    return bool(driver.exitcode == 0)


def _committed(plan: Plan) -> float:
    """Shards that count as done; not a number while the server is down."""
    try:
        store = open_reader(plan.store, plan.region.geobox)
        return 0 if store is None else len(store.done("none"))
    except StoreError:
        return math.nan


def other_process(plan: Plan, options: RunOptions, cluster: str = "threads") -> tuple[Any, Any]:
    """Run a plan in a process of its own: the process, and where it sends the error that it ends with."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    with forked():
        context = preloaded()
    here, there = context.Pipe(duplex=False)
    job = pickle.dumps((plan, options, environ, ClusterOptions(cluster)))
    process = context.Process(target=_drive, args=(job, there))
    process.start()
    return process, here


def _drive(job: bytes, tell: Any) -> None:
    plan, options, environ, where = pickle.loads(job)  # noqa: S301 - our own
    os.environ.update(environ)
    Batch.shards, Batch.seconds = COMMITS
    try:
        run(plan, options, cluster=where)
    except (ReadError, ClusterError):
        raise SystemExit(UNFINISHED) from None
    except StoreError as error:
        tell.send(str(error))
        raise SystemExit(REFUSED) from None


@contextmanager
def _upset(client: Client, draw: random.Random, tally: Tally, mode: str, server: SeaweedFS | None) -> Iterator[None]:
    """Let things go wrong, one after the other, as long as the context lasts."""
    stop, errors = threading.Event(), []
    kinds: list[Callable[[], None]] = [lambda: _kill(client, draw, tally), lambda: _chaos(client, draw, mode, stop)]
    if server is not None:
        kinds.append(lambda: _restart(server, draw, tally))
    plan = [draw.choice(kinds) for _ in range(draw.randint(1, 3))]

    def go() -> None:
        try:
            for harm in plan:
                if stop.wait(draw.uniform(0.2, 2.0)):
                    return
                harm()
        except Exception as error:  # noqa: BLE001 - told where it can be seen
            errors.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]
    # The next run begins with workers.
    deadline = time.monotonic() + 60
    while not client.nthreads() and time.monotonic() < deadline:
        time.sleep(0.05)


def _kill(client: Client, draw: random.Random, tally: Tally) -> None:
    victims: list[int] = []
    with suppress(OSError):  # one died while it was asked
        victims = sorted(client.run(os.getpid).values())
    if victims:
        with suppress(ProcessLookupError):
            os.kill(draw.choice(victims), signal.SIGKILL)
            tally.workers["SIGKILL"] += 1


def _chaos(client: Client, draw: random.Random, mode: str, stop: threading.Event) -> None:
    """Workers that live now, or begin soon, die at random times."""
    with suppress(OSError):
        client.register_plugin(KillWorker(draw.uniform(0.5, 2.0), mode=mode), name="chaos")  # type: ignore[arg-type]
        stop.wait(draw.uniform(0.5, 2.0))
    with suppress(OSError):
        client.unregister_worker_plugin("chaos")


def _restart(server: SeaweedFS, draw: random.Random, tally: Tally) -> None:
    server.restart(draw.uniform(0.0, 1.5))
    tally.servers += 1
