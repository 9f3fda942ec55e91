"""Where tasks run: workers of this machine, a scheduler's address, Dask Gateway, SLURM or Kubernetes."""

from __future__ import annotations

import os
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from glaciercube.errors import ClusterError, ConfigError, require

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "ClusterOptions",
    "address_of",
    "check_paths",
    "check_versions",
    "connect",
    "everywhere",
    "predict_resources",
]

T = TypeVar("T")

# How often, and after how many seconds, workers are asked again when one died meanwhile.
_ATTEMPTS: Final = 10
_PAUSE: Final = 0.5

_KINDS: Final = ("threads", "local", "gateway", "slurm", "kubernetes")
# One numerical thread per task: dask's threads are the parallelism, and sums keep their order.
_ENVIRONMENT: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
# What decides pixels or bytes, or must understand the other side.
_EVERYWHERE: Final = ("python", "dask", "distributed")
_ON_WORKERS: Final = (
    *("glaciercube", "numpy", "scipy", "xarray", "pandas", "rasterio", "pyproj", "odc-geo", "odc-loader", "odc-stac"),
    *("torch", "zarr", "numcodecs", "icechunk", "obstore", "cloudpickle", "msgpack"),
)
# Keywords of `dask_gateway.Gateway`; what else is given are options of the cluster that it starts.
_GATEWAY: Final = ("address", "proxy_address", "auth", "asynchronous")


@dataclass(frozen=True)
class ClusterOptions:
    """Where units are run.

    Attributes
    ----------
    kind : str
        ``threads`` (of this process), ``local`` (worker processes of this machine), ``gateway`` (Dask Gateway),
        ``slurm`` (dask-jobqueue), ``kubernetes`` (dask-kubernetes operator), or a scheduler's address
        (``tcp://host:8786``, ``tls://...``).
    workers : int or None
        Workers to ask for; by default as many as there are cores (``local``) or one. Not used with an address.
    threads : int
        Threads of a worker (``local``, ``slurm``).
    memory : str or None
        Memory of a worker, such as ``8GiB`` (``local``, ``slurm``).
    resource : str or None
        Predict only on workers that have this resource, 1 per prediction. By default ``GPU`` where a worker has
        CUDA: each process then gets a device of its own, and those that get none only read and write.
    wait : float
        Seconds to wait for the first worker, and for another one when all are gone.
    options : dict
        Keywords of LocalCluster, SLURMCluster or KubeCluster; of Gateway (``address``, ``proxy_address``, ``auth``)
        and of the cluster that it starts. They are not kept in the store.
    """

    kind: str = "threads"
    workers: int | None = None
    threads: int = 1
    memory: str | None = None
    resource: str | None = None
    wait: float = 600.0
    options: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        known = self.kind in _KINDS or "://" in self.kind
        require(known, f"there is no cluster {self.kind!r}", f"give {', '.join(_KINDS)} or tcp://host:port")
        for name, value in (("workers", self.workers), ("threads", self.threads), ("wait", self.wait)):
            require(value is None or value > 0, f"{name} {value} is too few", "give 1 or more")


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


def address_of(client: Client) -> str:
    """The scheduler's address; empty if the connection is gone."""
    return str(getattr(client.scheduler, "address", ""))


def everywhere(call: Callable[[], T]) -> T:
    """Ask something of all workers, once more where one died meanwhile.

    Raises
    ------
    ClusterError
        If they keep on dying.
    """
    for _ in range(_ATTEMPTS):
        with suppress(OSError):  # among them dask's CommClosedError
            return call()
        time.sleep(_PAUSE)
    raise ClusterError("the cluster's workers do not stay alive", "look at their logs; they may have too little memory")


def _client(options: ClusterOptions, stack: ExitStack) -> Client:
    distributed = _import("distributed", "distributed")
    if "://" in options.kind:
        where: Any = options.kind
    else:
        where = stack.enter_context(_STARTERS[options.kind](options))
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


def _local(options: ClusterOptions) -> Any:
    distributed = _import("distributed", "distributed")
    given = dict(options.options)
    return distributed.LocalCluster(
        n_workers=options.workers or os.cpu_count() or 1,
        threads_per_worker=options.threads,
        memory_limit=options.memory or "auto",
        # Several runs on one machine must not fight for a port.
        dashboard_address=given.pop("dashboard_address", ":0"),
        env={**_ENVIRONMENT, **given.pop("env", {})},
        **given,
    )


@contextmanager
def _gateway(options: ClusterOptions) -> Iterator[Any]:
    package = _import("dask_gateway", "dask-gateway")
    own = {name: value for name, value in options.options.items() if name in _GATEWAY}
    rest = {name: value for name, value in options.options.items() if name not in _GATEWAY}
    with package.Gateway(**own) as gateway, gateway.new_cluster(shutdown_on_close=True, **rest) as cluster:
        cluster.scale(options.workers or 1)
        yield cluster


@contextmanager
def _slurm(options: ClusterOptions) -> Iterator[Any]:
    package = _import("dask_jobqueue", "dask-jobqueue")
    given = {"processes": 1, "memory": options.memory or "4GiB", **options.options}
    exports = [f"export {name}={value}" for name, value in _ENVIRONMENT.items()]
    given["job_script_prologue"] = [*exports, *given.get("job_script_prologue", ())]
    with package.SLURMCluster(cores=options.threads, **given) as cluster:
        cluster.scale(options.workers or 1)
        yield cluster


@contextmanager
def _kubernetes(options: ClusterOptions) -> Iterator[Any]:
    package = _import("dask_kubernetes.operator", "dask-kubernetes")
    given = dict(options.options)
    environment = {**_ENVIRONMENT, **given.pop("env", {})}
    with package.KubeCluster(n_workers=options.workers or 1, env=environment, **given) as cluster:
        yield cluster


_STARTERS: Final = {"local": _local, "gateway": _gateway, "slurm": _slurm, "kubernetes": _kubernetes}


def _import(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            f"this cluster needs {package}, which is not installed", f"pip install {package}, or use cluster: threads"
        ) from None


def check_versions(client: Client) -> None:
    """Hold the versions of scheduler and workers against this process's.

    Raises
    ------
    ClusterError
        If one differs; it names the package.
    """
    found: Any = everywhere(lambda: client.get_versions(packages=list(_ON_WORKERS)))
    here = found["client"]["packages"]
    _compare("the scheduler", found["scheduler"]["packages"], here, _EVERYWHERE)
    for address, versions in found["workers"].items():
        _compare(f"the worker {address}", versions["packages"], here, (*_EVERYWHERE, *_ON_WORKERS))


def _compare(who: str, there: Mapping[str, Any], here: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        other, own = _version(name, there.get(name)), _version(name, here.get(name))
        if other != own:
            raise ClusterError(
                f"{who} has {name} {other} and this process has {own}",
                "install the same versions on all machines, such as by one constraints file or image",
            )


def _version(name: str, version: str | None) -> str:
    if name == "python":
        return ".".join((version or "none").split(".")[:2])
    # torch 2.13.0+cpu here and 2.13.0+cu130 there belong together.
    return (version or "none").partition("+")[0]


def check_paths(client: Client, folder: str | None, files: Iterable[str]) -> None:
    """See that every worker has the same files at the same paths, as a shared disk gives them.

    Parameters
    ----------
    client : distributed.Client
        Its present workers are asked.
    folder : str or None
        Folder that workers write to, or will when it is made.
    files : iterable of str
        Files that workers read.

    Raises
    ------
    ClusterError
        If a worker does not.
    """
    sizes = {path: size for path in files if (size := _size(path)) is not None}
    token: Path | None = None
    try:
        if folder is not None:
            parent = next(p for p in (Path(folder).absolute(), *Path(folder).absolute().parents) if p.is_dir())
            mark = parent / f".glaciercube-{secrets.token_hex(8)}"
            with suppress(OSError):  # opening the store will say why
                mark.write_text(mark.name, encoding="ascii")
                token = mark
        seen = everywhere(lambda: client.run(_unseen, sizes, None if token is None else str(token)))
    finally:
        if token is not None:
            token.unlink(missing_ok=True)
    for address, (host, unseen) in seen.items():
        if unseen:
            what = folder if token is not None and unseen == str(token) else unseen
            raise ClusterError(
                f"the worker {address} on {host} does not see {what}, which is a path of this machine",
                "use a bucket (s3://...) or a disk that all workers share at the same path",
            )


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


def _unseen(sizes: Mapping[str, int], token: str | None) -> tuple[str, str]:
    """On a worker: its host, and the first path that is not there as it is at the client."""
    for path, size in sizes.items():
        if _size(path) != size:
            return socket.gethostname(), path
    if token is not None:
        try:
            there = Path(token).read_text(encoding="ascii") == Path(token).name
        except OSError:
            there = False
        if not (there and os.access(Path(token).parent, os.W_OK)):
            return socket.gethostname(), token
    return socket.gethostname(), ""


def predict_resources(client: Client, resource: str | None, device: str | None) -> dict[str, float]:
    """What a prediction asks of its worker.

    Parameters
    ----------
    client : distributed.Client
        With `glaciercube.devices.DevicePlugin`.
    resource : str or None
        As in `ClusterOptions`.
    device : str or None
        As in `glaciercube.inference.BlockOptions`.

    Returns
    -------
    dict
        Resource -> quantity; empty if any worker may predict.

    Raises
    ------
    ClusterError
        If no worker has what is asked for.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    wanted = resource or ("GPU" if device is None or device.startswith("cuda") else None)
    if wanted is None:
        return {}
    if any(worker["resources"].get(wanted, 0) >= 1 for worker in workers):
        return {wanted: 1}
    if resource is not None or device is not None:
        raise ClusterError(
            f"no worker has the resource {wanted}" + ("" if resource else ", since none has CUDA"),
            f"start workers with --resources {wanted}=1" if resource else "start workers with GPUs, or use device: cpu",
        )
    return {}
