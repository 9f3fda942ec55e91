"""Reaching a cluster, or starting one that ends with us."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from glaciercube.cluster.checks import address_of, check_versions
from glaciercube.cluster.kubernetes import cluster_spec
from glaciercube.cluster.options import ClusterOptions
from glaciercube.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["connect"]

# One numerical thread per task: dask's threads are the parallelism, and sums keep their order.
_ENVIRONMENT: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
# Several runs on one machine must not fight for a port.
_DASHBOARD: Final = {"dashboard_address": ":0"}
# Keywords of `dask_gateway.Gateway`; what else is given are options of the cluster that it starts.
_GATEWAY: Final = ("address", "proxy_address", "public_address", "auth")
# Closed gateways: dask-gateway 2026.3 closes them again when they are collected, and complains that it cannot.
_closed: list[Any] = []
# What starts a cluster raises whatever its client raises: HTTP's errors, a batch system's, a missing kubeconfig.
_OURS: Final = (ClusterError, ConfigError, KeyboardInterrupt)


@contextmanager
def connect(options: ClusterOptions | Client) -> Iterator[Client]:
    """Reach or start a cluster, for as long as the context lasts; it has a worker then, and the same versions.

    Parameters
    ----------
    options : ClusterOptions or distributed.Client
        Not ``threads``. A client is used as it is, and left open.

    Yields
    ------
    distributed.Client
        Not the default of other computations.

    Raises
    ------
    ConfigError
        If the package that the kind of cluster needs is not installed.
    ClusterError
        If it cannot be reached, has no worker in time, or has other versions of what decides pixels.
    """
    with ExitStack() as stack:
        if isinstance(options, ClusterOptions):
            client, wait = _client(options, stack), options.wait
        else:
            client, wait = options, ClusterOptions().wait
        try:
            client.wait_for_workers(1, timeout=wait)
        except TimeoutError:
            raise ClusterError(
                f"the cluster {address_of(client)} had no worker within {wait:g} s",
                "start workers there, or raise cluster.wait",
            ) from None
        check_versions(client)
        yield client


def _client(options: ClusterOptions, stack: ExitStack) -> Client:
    distributed = _import("distributed", "distributed")
    where: Any = options.kind
    if "://" not in options.kind:
        where = _started(options, stack)
    with warnings.catch_warnings():
        # Versions are compared by us, and refused.
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)
        try:
            client: Client = stack.enter_context(distributed.Client(where, set_as_default=False))
        except (OSError, ValueError, TimeoutError) as error:
            raise ClusterError(
                f"no scheduler answers at {options.kind} ({type(error).__name__})",
                "check the address, and that it runs",
            ) from None
    if options.kind == "local":
        from glaciercube.devices import Undisturbed

        client.register_plugin(Undisturbed())
    return client


def _started(options: ClusterOptions, stack: ExitStack) -> Any:
    """A cluster of our own, to be ended with the stack."""
    try:
        return stack.enter_context(_STARTERS[options.kind](options))
    except _OURS:
        raise
    except TypeError as error:
        # An option that the kind of cluster does not have.
        raise ConfigError(f"the {options.kind} cluster cannot be asked so ({error})", "mend cluster.options") from error
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ClusterError(
            f"no {options.kind} cluster could be started ({type(error).__name__}: {first})",
            "check cluster.options, and that you may start one",
        ) from error


def _local(options: ClusterOptions) -> Any:
    distributed = _import("distributed", "distributed")
    given = {**_DASHBOARD, **options.options}
    return distributed.LocalCluster(
        n_workers=options.processes,
        threads_per_worker=options.threads,
        memory_limit=options.memory or "auto",
        env={**_ENVIRONMENT, **given.pop("env", {})},
        **given,
    )


@contextmanager
def _gateway(options: ClusterOptions) -> Iterator[Any]:
    package = _import("dask_gateway", "dask-gateway")
    own = {name: value for name, value in options.options.items() if name in _GATEWAY}
    rest = {name: value for name, value in options.options.items() if name not in _GATEWAY}
    with package.Gateway(**own) as gateway, gateway.new_cluster(shutdown_on_close=True, **rest) as cluster:
        _closed.extend((gateway, cluster))
        cluster.scale(options.processes)
        yield cluster


@contextmanager
def _slurm(options: ClusterOptions) -> Iterator[Any]:
    package = _import("dask_jobqueue", "dask-jobqueue")
    given = {"processes": 1, "memory": options.memory or "4GiB", **options.options}
    exports = [f"export {name}={value}" for name, value in _ENVIRONMENT.items()]
    given["job_script_prologue"] = [*exports, *given.get("job_script_prologue", ())]
    given["scheduler_options"] = {**_DASHBOARD, **given.get("scheduler_options", {})}
    with package.SLURMCluster(cores=options.threads, **given) as cluster:
        cluster.scale(options.processes)
        yield cluster


@contextmanager
def _kubernetes(options: ClusterOptions) -> Iterator[Any]:
    package = _import("dask_kubernetes.operator", "dask-kubernetes")
    spec, rest = cluster_spec(options, _ENVIRONMENT)
    with package.KubeCluster(custom_cluster_spec=spec, quiet=True, **rest) as cluster:
        yield cluster


_STARTERS: Final = {"local": _local, "gateway": _gateway, "slurm": _slurm, "kubernetes": _kubernetes}


def _import(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"this cluster needs {package}, which is not installed",
            "pip install 'glaciercube[cluster]', or use cluster: threads",
        ) from None
