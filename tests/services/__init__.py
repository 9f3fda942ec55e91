"""Real servers for tests and for trying things out: a STAC API on PostgreSQL, nginx, S3, Dask Gateway and SLURM.

Each is a context manager that starts a server on a free port of this machine, in a folder of its own, and stops it.
`make services` starts those that serve data, over a simulated world (see `__main__`); tests have them all as fixtures
(see `fixtures`).
"""

from __future__ import annotations

from services.catalogue import Published, published
from services.gateway import Gateway, gateway
from services.nginx import Nginx, nginx
from services.postgres import Postgres, postgres
from services.process import Missing
from services.seaweedfs import SeaweedFS, seaweedfs
from services.slurm import Slurm, slurm
from services.stac_api import StacApi, stac_api

__all__ = [
    "Gateway",
    "Missing",
    "Nginx",
    "Postgres",
    "Published",
    "SeaweedFS",
    "Slurm",
    "StacApi",
    "gateway",
    "nginx",
    "postgres",
    "published",
    "seaweedfs",
    "slurm",
    "stac_api",
]
