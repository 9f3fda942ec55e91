"""Units on threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from glaciercube.campaign.batches import Batch
from glaciercube.campaign.events import Watch
from glaciercube.campaign.kernel import Kernel
from glaciercube.campaign.lacking import Witnesses
from glaciercube.campaign.options import RunOptions
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.campaign.task import tasks
from glaciercube.errors import ReadError, StoreError
from glaciercube.store import Store, Written, row_label

__all__ = ["run_on_threads"]

# How long to wait for a unit to end before looking whether it is time to commit, seconds.
_LOOK: Final = 1.0


def run_on_threads(
    units: Iterator[Unit], plan: Plan, store: Store, options: RunOptions, watch: Watch
) -> tuple[int, list[BaseException]]:
    """Do units.

    Parameters
    ----------
    units : iterator of Unit
        Taken one by one, as there is room for them.
    plan : Plan
        The job.
    store : Store
        Where to.
    options : RunOptions
        Threads, dates and batch at a time.
    watch : Watch
        Told what happens.

    Returns
    -------
    lacking : int
        Shards made without some of their scenes.
    failures : list of exceptions
        One per unit or row that could not be made; everything else is written.

    Raises
    ------
    StoreError, ModelError
        If there is no use in going on; so is a Ctrl-C passed on, after the dates under way were written.
        What was written whole is committed before.
    """
    return _Threads(plan, store, options, watch).run(units)


class _Threads:
    def __init__(self, plan: Plan, store: Store, options: RunOptions, watch: Watch) -> None:
        self.witnesses = Witnesses.of(plan)
        self.kernel = Kernel(plan.model, options.block, self.witnesses, options.threads + 1)
        self.plan, self.store, self.options, self.watch = plan, store, options, watch
        self.batch, self.handle = Batch(store), store.handle()
        self.stop = threading.Event()
        self.lacking, self._lock = 0, threading.Lock()

    def run(self, units: Iterator[Unit]) -> tuple[int, list[BaseException]]:
        failures: list[BaseException] = []
        pool = ThreadPoolExecutor(self.options.threads, thread_name_prefix="glaciercube")
        pending: set[Future[list[ReadError]]] = set()
        try:
            while True:
                # A bounded number in flight: the arrays in memory do not grow with the region.
                while len(pending) < self.options.threads and (unit := next(units, None)) is not None:
                    pending.add(pool.submit(self._do, unit))
                if not pending:
                    break
                done, pending = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
                self.batch.commit_if_due()
                for future in done:
                    failures += future.result()
        except BaseException as error:
            # Ctrl-C or a full disk: the units under way stop after their current dates.
            self.stop.set()
            if isinstance(error, KeyboardInterrupt):
                self.watch.say("stopping: what is being read is still written; Ctrl-C again stops at once")
            try:
                pool.shutdown(wait=True, cancel_futures=True)
            except KeyboardInterrupt:
                # Asked twice: what is under way is left, and is not marked.
                pool.shutdown(wait=False, cancel_futures=True)
            self._commit_the_rest()
            raise
        pool.shutdown()
        self.batch.commit()
        return self.lacking, failures

    def _commit_the_rest(self) -> None:
        try:
            self.batch.commit()
        except StoreError as error:
            # What stopped the run is to be told, and not this.
            self.watch.say(f"what was written last is not kept: {error.problem}")

    def _do(self, unit: Unit) -> list[ReadError]:
        failures: list[ReadError] = []
        for task in tasks(self.plan, unit, self.options.dates, self.witnesses.shared):
            part = task.unit
            if self.stop.is_set():
                break
            self.watch.started(part)
            try:
                inputs = self.kernel.read(task)
            except ReadError as error:
                # What all dates need could not be read.
                rest = replace(unit, rows=unit.rows[unit.rows.index(part.rows[0]) :])
                self.watch.missed(rest, error)
                return [*failures, error]
            outputs = self.kernel.predict(inputs)
            written, steps = self.kernel.write(outputs, self._write)
            if written is not None:
                self.batch.add(written)
            with self._lock:
                self.lacking += sum(map(bool, outputs.missing))
            for row, failure in outputs.failures:
                failures.append(failure)
                self.watch.missed(replace(part, rows=(row,)), failure)
            self.watch.finished(outputs.task.unit, steps)
        return failures

    def _write(self, times: npt.NDArray[np.datetime64], block: tuple[int, int], *data: Any) -> Written:
        # Not before there is something to write: what cannot be read stays as it was, and is known to be.
        self.store.prepare((row_label(time), block) for time in times)
        return self.handle.write(times, block, *data)
