"""Real servers for tests and for trying things out: a STAC API on PostgreSQL, nginx and an S3 server.

Each is a context manager that starts a server on a free port of this machine, in a folder of its own, and stops it.
`make services` starts them all over a simulated world (see `__main__`); tests have them as fixtures (see `fixtures`).
"""

from __future__ import annotations

from services.catalogue import Published, published
from services.nginx import Nginx, nginx
from services.postgres import Postgres, postgres
from services.process import Missing
from services.seaweedfs import SeaweedFS, seaweedfs
from services.stac_api import StacApi, stac_api

__all__ = [
    "Missing",
    "Nginx",
    "Postgres",
    "Published",
    "SeaweedFS",
    "StacApi",
    "nginx",
    "postgres",
    "published",
    "seaweedfs",
    "stac_api",
]
