"""SeaweedFS, an S3 server in one program."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from services.process import HOST, free_ports, program, running, scratch

__all__ = ["SeaweedFS", "seaweedfs"]


@dataclass(frozen=True)
class SeaweedFS:
    """A running server.

    Attributes
    ----------
    endpoint : str
        Its URL.
    bucket : str
        A bucket that it has.
    key, secret : str
        Credentials; without them it answers nobody.
    restart : callable
        Kill it (SIGKILL), leave it dead for so many seconds, and start it again; what it had answered for is still
        there.
    """

    endpoint: str
    bucket: str
    key: str = field(repr=False)
    secret: str = field(repr=False)
    restart: Callable[[float], None] = field(repr=False, compare=False, default=lambda _: None)

    @property
    def url(self) -> str:
        """The bucket, as assets name it."""
        return f"s3://{self.bucket}"

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables by which GDAL reads from it."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_S3_ENDPOINT": self.endpoint.removeprefix("http://"),
            "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }

    def store(self, prefix: str = "") -> S3Store:
        """A client of the bucket."""
        return S3Store(
            self.bucket,
            prefix=prefix or None,
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=self.key,
            secret_access_key=self.secret,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def upload(self, folder: Path, prefix: str = "") -> int:
        """Copy a folder's files into the bucket, under their paths in it; how many there were."""
        store = self.store(prefix)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in paths:
            obstore.put(store, path.relative_to(folder).as_posix(), path)
        return len(paths)


@contextmanager
def seaweedfs(bucket: str = "cogs") -> Iterator[SeaweedFS]:
    """Run an S3 server with one bucket for as long as the context lasts.

    Raises
    ------
    Missing
        If SeaweedFS is not installed.
    """
    command = program("weed")
    # It is several servers in one process; each wants a port, and one more for its colleagues.
    names = ("master", "volume", "filer", "s3", "admin")
    ports = free_ports(2 * len(names))
    flags = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    flags += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=True)]
    flags += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
    # By itself it would report to its makers.
    flags += ["-master.telemetry=false", f"-bucket={bucket}", f"-ip={HOST}", f"-ip.bind={HOST}"]
    server = SeaweedFS(f"http://{HOST}:{ports[names.index('s3')]}", bucket, secrets.token_hex(8), secrets.token_hex(16))
    environ = {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": server.secret}
    # A thread of its own starts it: the server is told to end when the thread that started it does.
    with scratch("s3") as folder, ThreadPoolExecutor(1) as starter, ExitStack() as life:
        whole = [command, "mini", f"-dir={folder}", *flags]
        # Told to end, it would wait for its clients to hang up.
        run = partial(running, whole, folder=folder, ready=_writes(server), environ=environ, stop=signal.SIGKILL)

        def restart(down: float) -> None:
            life.close()
            time.sleep(down)
            starter.submit(lambda: life.enter_context(run())).result()

        try:
            restart(0)
            yield replace(server, restart=restart)
        finally:
            life.close()
            # Its sockets lie outside its folder, whatever it is told.
            for port in ports:
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                    left.unlink(missing_ok=True)


def _writes(server: SeaweedFS) -> Callable[[], bool]:
    """Whether an object can be put: it answers before its bucket is there."""
    store = server.store()

    def asked() -> bool:
        try:
            obstore.put(store, ".ready", b"")
            obstore.delete(store, ".ready")
        except (BaseError, OSError):
            return False
        return True

    return asked
