"""The servers as fixtures: one of each for all tests, started when the first asks for it.

Where a server is not installed a test skips and says what would install it; with GLACIERCUBE_SERVICES=required, as in
continuous integration, it fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from services import (
    Gateway,
    Missing,
    Nginx,
    Postgres,
    SeaweedFS,
    Slurm,
    StacApi,
    gateway,
    nginx,
    postgres,
    published,
    seaweedfs,
    slurm,
    stac_api,
)

__all__ = ["served"]

Server = TypeVar("Server")


def served(server: AbstractContextManager[Server]) -> Iterator[Server]:
    """A server for as long as a fixture lasts; where it is not installed, a skip or a failure."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(server)
        except Missing as missing:
            if os.environ.get("GLACIERCUBE_SERVICES") == "required":
                pytest.fail(f"GLACIERCUBE_SERVICES=required, and {missing}")
            pytest.skip(str(missing))
        yield started


@pytest.fixture(scope="session")
def database_server() -> Iterator[Postgres]:
    """PostgreSQL with pgstac."""
    yield from served(postgres())


@pytest.fixture(scope="session")
def web(catalog: Path) -> Iterator[Nginx]:
    """nginx over the simulated world: its COGs, and its static catalogue."""
    yield from served(nginx(catalog.parent))


@pytest.fixture(scope="session")
def s3(catalog: Path) -> Iterator[SeaweedFS]:
    """An S3 server whose bucket holds the simulated world."""
    for server in served(seaweedfs()):
        server.upload(catalog.parent)
        yield server


@pytest.fixture(scope="session")
def api(database_server: Postgres, web: Nginx, catalog: Path) -> Iterator[StacApi]:
    """A STAC API over the simulated world, its assets at nginx."""
    yield from served(stac_api(database_server, "web", published(catalog.parent, web.url)))


@pytest.fixture(scope="session")
def s3_api(database_server: Postgres, s3: SeaweedFS, catalog: Path) -> Iterator[StacApi]:
    """A STAC API over the simulated world, its assets in the bucket."""
    yield from served(stac_api(database_server, "s3", published(catalog.parent, s3.url)))


@pytest.fixture(scope="session")
def gateway_server() -> Iterator[Gateway]:
    """A Dask Gateway that starts clusters on this machine."""
    yield from served(gateway())


@pytest.fixture(scope="session")
def slurm_server() -> Iterator[Slurm]:
    """A SLURM whose only node is this machine."""
    yield from served(slurm())
