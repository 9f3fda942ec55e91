"""What must be the same on all machines: versions, and the files that paths name."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from glaciercube.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Paths", "Versions", "address_of", "check_paths", "check_versions", "everywhere"]

T = TypeVar("T")

# How often, and after how many seconds, workers are asked again when one died meanwhile.
_ATTEMPTS: Final = 10
_PAUSE: Final = 0.5

# What decides pixels or bytes, or must understand the other side.
_EVERYWHERE: Final = ("python", "dask", "distributed")
_ON_WORKERS: Final = (
    *("glaciercube", "numpy", "scipy", "xarray", "pandas", "rasterio", "pyproj", "odc-geo", "odc-loader", "odc-stac"),
    *("torch", "zarr", "numcodecs", "icechunk", "obstore", "cloudpickle", "msgpack"),
)


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


@dataclass(frozen=True)
class Versions:
    """Versions of what decides pixels or bytes, on one machine.

    Attributes
    ----------
    packages : mapping of str to str or None
        By name; None where it is not installed.
    """

    packages: Mapping[str, str | None]

    @classmethod
    def here(cls) -> Self:
        """Those of this process."""
        from distributed.versions import get_versions

        return cls(get_versions([*_EVERYWHERE, *_ON_WORKERS])["packages"])

    def difference(self, other: Versions, *, worker: bool = True) -> tuple[str, str, str] | None:
        """The first package that differs, with its versions here and there; None if there is none.

        Parameters
        ----------
        other : Versions
            Of another machine.
        worker : bool
            It computes; a scheduler must only understand.
        """
        for name in (*_EVERYWHERE, *_ON_WORKERS) if worker else _EVERYWHERE:
            own, there = (_version(name, versions.packages.get(name)) for versions in (self, other))
            if own != there:
                return name, own, there
        return None


def check_versions(client: Client) -> None:
    """Hold the versions of scheduler and workers against this process's.

    Raises
    ------
    ClusterError
        If one differs; it names the package.
    """
    found: Any = everywhere(lambda: client.get_versions(packages=list(_ON_WORKERS)))
    here = Versions(found["client"]["packages"])
    others = {f"the worker {address}": (versions, True) for address, versions in found["workers"].items()}
    for who, (versions, worker) in {"the scheduler": (found["scheduler"], False), **others}.items():
        different = here.difference(Versions(versions["packages"]), worker=worker)
        if different is not None:
            name, own, there = different
            raise ClusterError(
                f"{who} has {name} {there} and this process has {own}",
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
    sizes = Paths.here(None, files).sizes
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


@dataclass(frozen=True)
class Paths:
    """What a worker that comes while a run goes on must see; see `check_paths`.

    Attributes
    ----------
    folder : str or None
        The store, which was made before.
    sizes : mapping of str to int
        Files that workers read -> bytes.
    """

    folder: str | None
    sizes: Mapping[str, int]

    @classmethod
    def here(cls, folder: str | None, files: Iterable[str]) -> Self:
        """As this process sees them; what is not there for anybody is nobody's fault."""
        return cls(folder, {path: size for path in files if (size := _size(path)) is not None})

    def unseen(self) -> str:
        """The first path that this process does not see as it is there; empty if it sees all."""
        _, unseen = _unseen(self.sizes, None)
        if not unseen and self.folder is not None and not os.access(self.folder, os.W_OK):
            return self.folder
        return unseen


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
