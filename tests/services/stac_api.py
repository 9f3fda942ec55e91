"""A STAC API: stac-fastapi on pgstac, behind uvicorn."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.catalogue import Published
from services.postgres import Postgres
from services.process import HOST, Missing, answers, free_ports, running, scratch

__all__ = ["StacApi", "stac_api"]


@dataclass(frozen=True)
class StacApi:
    """A running API.

    Attributes
    ----------
    url : str
        Its root.
    database : str
        The database behind it.
    """

    url: str
    database: str


@contextmanager
def stac_api(server: Postgres, name: str, content: Published) -> Iterator[StacApi]:
    """Serve collections and items from a database of their own for as long as the context lasts.

    Raises
    ------
    Missing
        If stac-fastapi-pgstac or uvicorn is not installed.
    """
    for module in ("stac_fastapi", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            raise Missing(f"{module} is not installed (make install-services)")
    database = server.database(name)
    server.load(name, content)
    (port,) = free_ports(1)
    application = ["--factory", "stac_fastapi.pgstac.app:create_app"]
    command = [sys.executable, "-m", "uvicorn", *application, "--host", HOST, "--port", str(port)]
    url = f"http://{HOST}:{port}"
    with scratch("api") as folder, running(command, folder=folder, ready=answers(f"{url}/"), environ=database):
        yield StacApi(url, name)
