"""The workers of a run: how many there are, whether all may predict, and the one that must leave."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from glaciercube.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Crew"]

# How often the scheduler is asked who is there, seconds: workers come and go.
_LOOK: Final = 1.0
# A worker that was asked to leave must have left after so many seconds.
_LEAVE: Final = 60.0


class Crew:
    """Workers as the scheduler knows them.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    needs : mapping of str to float
        What a prediction needs, from `predict_resources`.
    """

    def __init__(self, client: Client, needs: dict[str, float]) -> None:
        self._client, self.needs = client, needs
        self._asked, self._workers = 0.0, list[dict[str, Any]]()
        self._sent_away: dict[str, float] = {}

    @property
    def threads(self) -> int:
        """Threads of all workers; at least 1, since others may come."""
        return max(1, sum(int(worker["nthreads"]) for worker in self._now()))

    @property
    def alike(self) -> bool:
        """Whether every worker may predict: then a unit need not leave the worker that reads it."""
        return all(worker["resources"].get(name, 0) >= n for worker in self._now() for name, n in self.needs.items())

    @property
    def capable(self) -> bool:
        """Whether a worker that runs may predict."""
        return any(
            worker["status"] == "running"
            and all(worker["resources"].get(name, 0) >= n for name, n in self.needs.items())
            for worker in self._now()
        )

    def send_away(self, address: str) -> bool:
        """Ask a worker to leave for good; whether it is asked for the first time.

        Raises
        ------
        ClusterError
            If it was asked long ago.
        """
        first = address not in self._sent_away
        if time.monotonic() - self._sent_away.setdefault(address, time.monotonic()) > _LEAVE:
            raise ClusterError(f"the worker {address} was asked to leave and did not", "end it, then run again")
        if first:
            # It may be gone already.
            with suppress(OSError, KeyError):
                self._client.retire_workers([address], close_workers=True)
        return first

    def _now(self) -> list[dict[str, Any]]:
        if time.monotonic() - self._asked > _LOOK:
            self._workers = list(self._client.scheduler_info(n_workers=-1)["workers"].values())
            self._asked = time.monotonic()
        return self._workers
