"""Where tasks run: workers of this machine, a scheduler's address, Dask Gateway, SLURM or Kubernetes."""

from __future__ import annotations

from glaciercube.cluster.checks import Paths, Versions, address_of, check_paths, check_versions, everywhere
from glaciercube.cluster.crew import Crew
from glaciercube.cluster.options import ClusterOptions
from glaciercube.cluster.plugins import registered
from glaciercube.cluster.resources import predict_resources
from glaciercube.cluster.start import connect

__all__ = [
    "ClusterOptions",
    "Crew",
    "Paths",
    "Versions",
    "address_of",
    "check_paths",
    "check_versions",
    "connect",
    "everywhere",
    "predict_resources",
    "registered",
]
