"""A Dask Gateway whose clusters are processes of this machine."""

from __future__ import annotations

import importlib.util
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.process import HOST, Missing, answers, free_ports, program, running, scratch

__all__ = ["Gateway", "gateway"]

# The programs dask-scheduler and dask-worker, which it would start, are not installed by distributed any more.
_CONFIG = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.address = "{host}:{private}"
c.Proxy.address = "{host}:{web}"
c.Proxy.tcp_address = "{host}:{tcp}"
c.SimpleAuthenticator.password = "{password}"
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.LocalClusterConfig.scheduler_cmd = ["{dask}", "scheduler"]
c.LocalClusterConfig.worker_cmd = ["{dask}", "worker"]
c.LocalClusterConfig.environment = {{"GLACIERCUBE_STARTED_BY": "{mark}"}}
"""


@dataclass(frozen=True)
class Gateway:
    """A running gateway.

    Attributes
    ----------
    address, proxy_address : str
        Of its API, and of its clusters' schedulers.
    mark : str
        ``GLACIERCUBE_STARTED_BY`` in the environment of all that its clusters are made of.
    environ : mapping
        The variables by which dask-gateway's client comes in.
    """

    address: str
    proxy_address: str
    mark: str
    environ: Mapping[str, str] = field(repr=False)


@contextmanager
def gateway() -> Iterator[Gateway]:
    """Run a gateway for as long as the context lasts.

    Raises
    ------
    Missing
        If dask-gateway or its server is not installed.
    """
    for module in ("dask_gateway", "dask_gateway_server"):
        if importlib.util.find_spec(module) is None:
            raise Missing(f"{module} is not installed (make install-services)")
    private, web, tcp = free_ports(3)
    password, mark = secrets.token_hex(16), secrets.token_hex(8)
    given = {"DASK_GATEWAY__AUTH__TYPE": "basic", "DASK_GATEWAY__AUTH__KWARGS__PASSWORD": password}
    server = Gateway(f"http://{HOST}:{web}", f"tls://{HOST}:{tcp}", mark, given)
    with scratch("gateway") as folder:
        config = folder / "config.py"
        dask = Path(sys.executable).parent / "dask"
        config.write_text(
            _CONFIG.format(
                host=HOST, private=private, web=web, tcp=tcp, password=password, folder=folder, dask=dask, mark=mark
            )
        )
        command = [program("dask-gateway-server"), "-f", str(config)]
        with running(command, folder=folder, ready=answers(f"{server.address}/api/health")):
            yield server
