"""Files on disk and objects in a bucket by the same few operations, on which the safety of the store rests."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit

from glaciercube.errors import StoreError

T = TypeVar("T")

__all__ = ["Listed", "Location", "Objects", "clear_errors", "delete_all", "first_line"]

_SECRETS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# How AWS's tools, and GDAL, spell the address of a server that is not Amazon's.
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_S3_ENDPOINT")
# How requests are repeated: servers restart, and a campaign waits for them. Ten retries may be over in two seconds, so
# it is the time that counts.
RETRIES: dict[str, Any] = {
    "max_retries": 10_000,
    "retry_timeout": timedelta(minutes=2),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
}
# Objects that are deleted at a time.
_DELETERS: Final = 16
_memory: dict[str, Any] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Listed:
    """A file or object.

    Attributes
    ----------
    key : str
        Its path relative to the root.
    size : int
        Bytes.
    etag : str
        The server's name of its content; empty on disk.
    """

    key: str
    size: int
    etag: str


class Objects(Protocol):
    """A folder, or a prefix of a bucket. Every write is atomic: a reader sees the old content or the new."""

    def get(self, key: str) -> bytes:
        """Content; FileNotFoundError if there is none."""

    def put(self, key: str, data: bytes) -> str:
        """Write or replace; the etag, empty on disk."""

    def create(self, key: str, data: bytes) -> str:
        """Write, for one of several who try; FileExistsError for the others."""

    def delete(self, key: str) -> None:
        """Remove, if it is there."""

    def list(self, prefix: str = "") -> Iterator[Listed]:
        """All below a folder, in no order."""

    def zarr(self, *, read_only: bool = False) -> Any:
        """The same place as a `zarr.abc.store.Store`."""


@dataclass(frozen=True)
class Location:
    """Where a store is: a folder, ``s3://bucket/prefix`` or, for tests, ``memory://name``; can be pickled.

    Attributes
    ----------
    path : str
        As the user gave it.
    endpoint : str
        Address of an S3 server that is not Amazon's; by default what ``AWS_ENDPOINT_URL`` says.
    carried : mapping
        The environment's credentials where this was made: they travel to workers, and show themselves nowhere.
        A worker's own environment counts more.
    """

    path: str
    endpoint: str = ""
    carried: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def here(cls, path: str | os.PathLike[str], endpoint: str = "") -> Location:
        """A place, with this process's settings for reaching it.

        Raises
        ------
        StoreError
            If the address is of no known kind, or has a password in it.
        """
        place = cls(os.fspath(path), endpoint)
        if place.scheme not in {"", "s3", "memory"}:
            raise StoreError(f"no store can be at {place.scheme}://", "give a folder, or s3://bucket/prefix")
        if place.scheme and "@" in urlsplit(place.path).netloc:
            raise StoreError("the address of the store has a password in it", "put credentials into the environment")
        if place.scheme != "s3":
            return place
        names = (*_SECRETS, *_ENDPOINTS, "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING")
        return cls(place.path, endpoint, {name: os.environ[name] for name in names if name in os.environ})

    @property
    def scheme(self) -> str:
        """``s3``, ``memory``, or empty for a folder."""
        return self.path.partition("://")[0] if "://" in self.path else ""

    @property
    def folder(self) -> Path:
        """The folder, where it is one."""
        return Path(self.path)

    def objects(self) -> Objects:
        """What is there."""
        return _ObjectStore(self._client()) if self.scheme else _Folder(self.folder)

    def setting(self, *names: str) -> str:
        """The first of the variables that this process, or the one that made the location, has."""
        known = {**self.carried, **os.environ}
        return next((known[name] for name in names if known.get(name)), "")

    @property
    def server(self) -> str:
        """URL of the S3 server; empty for Amazon's."""
        address = self.endpoint or self.setting(*_ENDPOINTS)
        if not address or "://" in address:
            return address
        return f"{'http' if self.setting('AWS_HTTPS').upper() in {'NO', 'FALSE', 'OFF'} else 'https'}://{address}"

    @property
    def bucket(self) -> tuple[str, str]:
        """Bucket and prefix."""
        parts = urlsplit(self.path)
        return parts.netloc, parts.path.strip("/")

    @property
    def virtual_hosting(self) -> bool:
        """Whether the bucket is part of the host's name, as it is at Amazon's."""
        said = self.setting("AWS_VIRTUAL_HOSTING").upper()
        return said in {"YES", "TRUE", "ON"} if said else not self.server

    def _client(self) -> Any:
        try:
            from obstore.store import MemoryStore, S3Store
        except ImportError:
            raise StoreError(f"{self.path} needs obstore", "pip install 'glaciercube[s3]'") from None
        if self.scheme == "memory":
            with _lock:
                return _memory.setdefault(self.path.rstrip("/"), MemoryStore())
        bucket, prefix = self.bucket
        settings: dict[str, Any] = {
            "region": self.setting("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
            "virtual_hosted_style_request": self.virtual_hosting,
            "access_key_id": self.setting("AWS_ACCESS_KEY_ID"),
            "secret_access_key": self.setting("AWS_SECRET_ACCESS_KEY"),
            "session_token": self.setting("AWS_SESSION_TOKEN"),
            "endpoint": self.server,
        }
        plain = self.server.startswith("http://")
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"allow_http": plain},
            retry_config=cast("Any", RETRIES),
            **{name: value for name, value in settings.items() if value != ""},
        )


class _Folder:
    """A folder on disk; what was written stays written when the power fails."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str) -> bytes:
        return (self._root / key).read_bytes()

    def put(self, key: str, data: bytes) -> str:
        with self._partial(key, data) as (partial, target):
            partial.replace(target)
        return ""

    def create(self, key: str, data: bytes) -> str:
        with self._partial(key, data) as (partial, target):
            try:
                # Of several links to one name only the first is made.
                os.link(partial, target)
            except FileExistsError:
                raise
            except OSError as error:
                if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
                    raise
                # A file system without links: the name is taken first, and whoever reads meanwhile sees a torn file.
                with target.open("xb") as file:
                    file.write(data)
        return ""

    @contextmanager
    def _partial(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        # zarr's own name for a file that is not whole yet.
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield partial, target
        finally:
            partial.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        (self._root / key).unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        folders = [(self._root / prefix, prefix)]
        while folders:
            folder, name = folders.pop()
            try:
                entries = list(os.scandir(folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            for entry in entries:
                key = f"{name}/{entry.name}" if name else entry.name
                if entry.is_dir(follow_symlinks=True):
                    folders.append((Path(entry.path), key))
                elif not entry.name.endswith(".partial"):
                    with suppress(FileNotFoundError):
                        yield Listed(key, entry.stat().st_size, "")

    def zarr(self, *, read_only: bool = False) -> Any:
        from zarr.storage import LocalStore

        return LocalStore(self._root, read_only=read_only)


class _ObjectStore:
    """Objects below a prefix of a bucket, or in memory."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get(self, key: str) -> bytes:
        import obstore

        return _patiently(lambda: bytes(obstore.get(self._client, key).bytes()))

    def put(self, key: str, data: bytes) -> str:
        import obstore

        # In one part, so that it is there at once and its etag is one of the whole.
        done = _patiently(lambda: obstore.put(self._client, key, data, use_multipart=False))
        return str(done["e_tag"] or "")

    def create(self, key: str, data: bytes) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            done = _patiently(lambda: obstore.put(self._client, key, data, mode="create", use_multipart=False))
        except (AlreadyExistsError, PreconditionError):
            # An answer may be lost and the request repeated: then it is ours that is there.
            with suppress(FileNotFoundError):
                if self.get(key) == data:
                    return str(_patiently(lambda: obstore.head(self._client, key))["e_tag"] or "")
            raise FileExistsError(errno.EEXIST, "there is one already", key) from None
        return str(done["e_tag"] or "")

    def delete(self, key: str) -> None:
        import obstore

        with suppress(FileNotFoundError):
            _patiently(lambda: obstore.delete(self._client, key))

    def list(self, prefix: str = "") -> Iterator[Listed]:
        import obstore

        last, ordered = "", True
        patience = _Patience()
        while True:
            try:
                for page in obstore.list(self._client, prefix or None, offset=last or None, chunk_size=1000):
                    for entry in page:
                        path = str(entry["path"])
                        ordered, last = ordered and path > last, path
                        yield Listed(path, int(entry["size"]), str(entry["e_tag"] or ""))
                    patience = _Patience()
            except Exception as error:
                # Where keys come in order, it goes on after the last one.
                if last and not ordered:
                    raise
                patience.wait(error)
            else:
                return

    def zarr(self, *, read_only: bool = False) -> Any:
        from zarr.storage import ObjectStore

        return ObjectStore(self._client, read_only=read_only)


class _Patience:
    """Waits, longer each time, as long as a server may need to restart."""

    def __init__(self) -> None:
        self._until = time.monotonic() + RETRIES.get("retry_timeout", timedelta()).total_seconds()
        self._pause = 0.1

    def wait(self, error: Exception) -> None:
        """Wait after an error of the connection; raise it if it is another, or if there was enough waiting."""
        from obstore.exceptions import GenericError

        if not isinstance(error, GenericError) or "HTTP error" not in str(error) or time.monotonic() > self._until:
            raise error
        time.sleep(self._pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        self._pause = min(2 * self._pause, 5.0)


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again where the client does not, since it cannot know whether the server did it.

    All that we ask may be asked twice.
    """
    patience = _Patience()
    while True:
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - all but a few are raised again
            patience.wait(error)


def delete_all(objects: Objects, keys: Iterable[str]) -> None:
    """Remove what is there of these, several at a time."""
    with ThreadPoolExecutor(_DELETERS, thread_name_prefix="glaciercube-delete") as pool:
        for _ in pool.map(objects.delete, keys):
            pass


@contextmanager
def clear_errors(path: str | os.PathLike[str], *, reading: bool = False) -> Iterator[None]:
    """Say what a disk or a server will not do, with a remedy and without what a server quotes of a request.

    Parameters
    ----------
    path : str or Path
        The store.
    reading : bool
        Whether it is only read: then nothing is said of writing, and no run is to be repeated.

    Raises
    ------
    StoreError
        For errors of the system and of the object store.
    """
    again = "" if reading else ", then run again: what was written is kept and only the rest is computed"
    try:
        yield
    except OSError as error:
        if reading:
            what, remedy = f"{os.fspath(path)} cannot be opened as a Zarr store", "check the path"
            if isinstance(error, PermissionError):
                remedy += " and its permissions"
        else:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            what = f"cannot write to the store {os.fspath(path)}"
            remedy = "free space" if full else "check the path and its permissions"
        raise StoreError(f"{what} ({error.strerror or first_line(error)})", f"{remedy}{again}") from (
            None if "://" in os.fspath(path) else error
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "obstore":
            raise
        what, remedy = _TOLD.get(type(error).__name__, ("it does not answer as it should", "see that the server is up"))
        # Servers quote keys and signatures in their answers: none of it is passed on.
        raise StoreError(f"cannot use the store {os.fspath(path)} ({what})", f"{remedy}{again}") from None


_TOLD: Final = {
    "PermissionDeniedError": ("the server refuses", "check AWS_ACCESS_KEY_ID and what that key may do"),
    "UnauthenticatedError": ("the server wants to know who you are", "set AWS_ACCESS_KEY_ID and its secret"),
    "InvalidPathError": ("its name is not one of an object", "choose another path"),
}


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
