"""What workers are given for as long as somebody needs it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from glaciercube.cluster.checks import everywhere

if TYPE_CHECKING:
    from distributed import Client, Scheduler

__all__ = ["registered"]


@contextmanager
def registered(client: Client, plugins: Sequence[Any]) -> Iterator[None]:
    """Give plugins to all workers, also to those that come later, and take them back at the end.

    A driver that is killed cannot take them back: the scheduler does when it sees that its client is gone, unless it
    takes no code from clients (``distributed.scheduler.pickle: false``).

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    plugins : sequence of distributed.WorkerPlugin
        Each with a name of its own.

    Raises
    ------
    ClusterError
        If workers keep on dying.
    """
    names = [str(plugin.name) for plugin in plugins]
    heir = _heir(client.id, names)
    try:
        with suppress(ValueError):
            client.register_plugin(heir, name=heir.name)
        for plugin in plugins:
            everywhere(partial(client.register_plugin, plugin, name=plugin.name))
        yield
    finally:
        if client.status == "running":
            for name in names:
                # A worker that dies meanwhile has forgotten it, too; what was not reached was not registered.
                with suppress(OSError, ValueError):
                    client.unregister_worker_plugin(name)
            with suppress(OSError, ValueError):
                client.unregister_scheduler_plugin(heir.name)


def _heir(owner: str, names: Sequence[str]) -> Any:
    """Takes plugins back when their client is gone; travels by value, since a scheduler need not have glaciercube."""
    from distributed import SchedulerPlugin

    own = f"glaciercube-heir-{secrets.token_hex(4)}"

    async def take_back(scheduler: Scheduler) -> None:
        for name in names:
            if name in scheduler.worker_plugins:
                with suppress(OSError):
                    await scheduler.unregister_worker_plugin(None, name)
        with suppress(ValueError):
            scheduler.remove_plugin(own)

    class Heir(SchedulerPlugin):
        name = own

        def remove_client(self, scheduler: Scheduler, client: str) -> None:
            if client == owner:
                scheduler.loop.add_callback(take_back, scheduler)

    return Heir()
