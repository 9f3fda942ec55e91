"""Watching a run: a progress bar, a line per failure, and an event log for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from glaciercube.campaign.failed import Failures
from glaciercube.campaign.left import Left
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.campaign.task import Step
from glaciercube.errors import ConfigError, StoreError

__all__ = ["Watch", "read_events"]

_log = logging.getLogger(__name__)

# Failures that are told on screen; all are in the event log.
_LINES: Final = 50


class Watch:
    """What a run says while it goes on.

    Each line of the event log is a JSON object with ``time`` (UTC, ISO 8601), ``run`` (the run's name) and ``event``:
    ``began`` (``store``, ``shards``, ``left``, ``empty``, ``cluster``, ``reasons``, ``details``), ``started``,
    ``read``, ``predicted``, ``written`` and ``failed`` of a unit (``block``, ``rows``, and ``worker``, ``seconds``,
    ``bytes`` of a step, ``kind``, ``failure``, ``reason``, ``scene``, ``band``, ``uri`` of a failure), ``worker-lost``
    (``worker``), and last ``ended`` or ``stopped`` (``computed``, ``failed``, ``seconds``, and ``reason`` where it was
    stopped). Steps are written when the unit has ended, with the time at which they began.

    Parameters
    ----------
    plan : Plan
        The job.
    name : str
        Of the run.
    left : Left
        What is to be done, and why.
    failures : Failures
        Kept up to date.
    bar : bool
        Show a progress bar.
    path : Path or None
        Event log; lines are added to it.

    Raises
    ------
    ConfigError
        If the log cannot be written.
    """

    def __init__(self, plan: Plan, name: str, left: Left, failures: Failures, *, bar: bool, path: Path | None) -> None:
        from tqdm.auto import tqdm

        self._plan, self.name, self._lock = plan, name, threading.Lock()
        self._labels = plan.labels
        self.computed = self.failed = self._lines = 0
        self._began = time.time()
        # Shards that hold nothing take no time, and those that are done took theirs before: neither is in the rate.
        total = int(left.work.sum())
        try:
            self._file = None if path is None else _to_be_added_to(path)
        except OSError as error:
            raise ConfigError(f"cannot write the event log {path} ({error.strerror})", "choose another path") from None
        self._bar = tqdm(total=total, initial=total - left.shards, unit="shard", desc="run", disable=not bar)
        self._left, self._failures = left, failures

    def began(self, cluster: str, dashboard: str = "") -> None:
        """Say that the run begins.

        Parameters
        ----------
        cluster : str
            Where it runs.
        dashboard : str
            Link to what dask shows of it.
        """
        left = self._left
        job = {"store": self._plan.store.path, "shards": int(left.todo.size), "left": left.shards, "empty": left.empty}
        why = {"reasons": dict(left.reasons), "details": list(left.details)}
        self._note("began", {**job, "cluster": cluster, **why})
        for line in left.lines():
            self.say(line, logging.INFO)
        if dashboard:
            self.say(f"dashboard: {dashboard}", logging.INFO)

    def started(self, unit: Unit) -> None:
        """Say that a unit is under way."""
        self._note("started", self._of(unit))

    def finished(self, unit: Unit, steps: Iterable[Step]) -> None:
        """Say that a unit was written."""
        for step in steps:
            cost = {"worker": step.worker, "seconds": round(step.seconds, 4), "bytes": step.bytes}
            self._note(step.name, {**self._of(unit), **cost}, step.began)
        with self._lock:
            self.computed += len(unit.rows)
        self._failures.made(unit, [self._labels[row] for row in unit.rows])
        if not unit.skip:
            self._bar.update(len(unit.rows))

    def missed(self, unit: Unit, error: BaseException) -> None:
        """Say that a unit, or some of its rows, could not be made."""
        told = {name: str(getattr(error, name, "")) for name in ("kind", "failure", "scene", "band", "uri")}
        reason = getattr(error, "problem", None) or str(error)
        self._note("failed", {**self._of(unit), **{k: v for k, v in told.items() if v}, "reason": reason})
        rows = [self._labels[row] for row in unit.rows]
        self._failures.missed(unit, rows, error)
        with self._lock:
            self.failed += len(unit.rows)
            self._lines += 1
            lines = self._lines
        self._bar.set_postfix_str(f"{self.failed} failed", refresh=False)
        if lines <= _LINES:
            dates = rows[0] if len(rows) == 1 else f"{rows[0]} to {rows[-1]}"
            self.say(f"shard {unit.block} of {dates} could not be made: {reason}")
        elif lines == _LINES + 1:
            self.say("further failures are in the event log, and in what `glaciercube failed` lists")

    def lost(self, worker: str) -> None:
        """Say that a worker has gone."""
        self._note("worker-lost", {"worker": worker})

    def say(self, text: str, level: int = logging.WARNING) -> None:
        """Show a line, above the bar if there is one; else by the log."""
        if self._bar.disable:
            _log.log(level, "%s", text)
        else:
            self._bar.write(text, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        try:
            self._failures.save()
        except StoreError as trouble:
            _log.warning("the list of failures cannot be kept (%s)", trouble.problem)
        event = "ended" if kind is None else "stopped"
        reason = {} if error is None else {"reason": getattr(error, "problem", None) or type(error).__name__}
        seconds = round(time.time() - self._began, 3)
        self._note(event, {"computed": self.computed, "failed": self.failed, "seconds": seconds, **reason})
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _of(self, unit: Unit) -> dict[str, Any]:
        return {"block": list(unit.block), "rows": [self._labels[row] for row in unit.rows]}

    def _note(self, event: str, values: dict[str, Any], when: float | None = None) -> None:
        if self._file is None:
            return
        stamp = datetime.fromtimestamp(when or time.time(), UTC).isoformat(timespec="milliseconds")
        text = json.dumps({"time": stamp, "run": self.name, "event": event, **values})
        with self._lock:
            try:
                self._file.write(text + "\n")
                self._file.flush()
            except OSError as error:
                # A log that cannot be kept is no reason to lose a campaign.
                _log.warning("the event log cannot be written any more (%s)", error.strerror)
                self._file = None


def _to_be_added_to(path: Path) -> TextIO:
    """A log at the beginning of a line: a run that was killed may have left half of one."""
    torn = False
    # Not of a pipe.
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
    log = path.open("a", encoding="utf-8")
    if torn:
        log.write("\n")
    return log


def read_events(path: str | Path) -> Sequence[dict[str, Any]]:
    """The events of a log, in the order in which they were written; a line that was cut off by a kill is left out."""
    events = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            events.append(json.loads(line))
    return events
