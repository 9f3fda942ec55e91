"""Icechunk repositories: where they are, what they say when they fail, their commits, their history and their garbage.

1.x (Python 3.11) and 2.x are used alike.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from glaciercube.errors import StoreError
from glaciercube.store.objects import Location, clear_errors, first_line

__all__ = ["BRANCH", "commit", "ice_errors", "no_store", "readonly_store", "repository", "runs_of", "tidied"]

BRANCH: Final = "main"
_NONCE: Final = "glaciercube_commit"


@contextmanager
def ice_errors(path: str) -> Iterator[None]:
    """Say what Icechunk, a disk or a server will not do.

    Raises
    ------
    StoreError
        For their errors.
    """
    icechunk = _icechunk(path)
    with clear_errors(path):
        try:
            yield
        except icechunk.IcechunkError as error:
            told = first_line(error).strip(" x") if "://" not in path else type(error).__name__
            raise StoreError(
                f"cannot use the store {path} ({told})",
                "see that the path is right and the disk or server can be written to, then run again",
            ) from None


def repository(location: Location, *, create: bool = False) -> Any:
    """The repository at a place; None if there is none and none is to be made.

    Raises
    ------
    StoreError
        If none can be made there.
    """
    icechunk, storage = _icechunk(location.path), _storage(location)
    if icechunk.Repository.exists(storage):
        return icechunk.Repository.open(storage)
    if not create:
        return None
    try:
        return icechunk.Repository.create(storage)
    except icechunk.IcechunkError as error:
        # Somebody else has made it meanwhile, or there is something else.
        if icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage)
        raise StoreError(
            f"{location.path} exists and is not an Icechunk repository ({first_line(error).strip(' x')})"
            if "clean prefix" in str(error)
            else f"no Icechunk repository can be made at {location.path}",
            "choose another path",
        ) from None


def commit(found: Any, session: Any, message: str, metadata: Mapping[str, Any]) -> str:
    """Commit a session; the snapshot.

    A server that dies between doing it and saying so is asked again, and then says that somebody was faster: if that
    was us, all is well.

    Raises
    ------
    icechunk.ConflictError
        If others have committed since the session began.
    """
    import icechunk

    nonce = secrets.token_hex(8)
    try:
        return str(session.commit(message, {**metadata, _NONCE: nonce}))
    except icechunk.ConflictError:
        latest = next(iter(found.ancestry(branch=BRANCH)))
        if latest.metadata.get(_NONCE) != nonce:
            raise
        return str(latest.id)


def readonly_store(location: Location, as_of: str | datetime | None = None) -> Any:
    """The store as it is, or as it was after a run, at a commit or at a time, for `xarray.open_zarr`.

    Parameters
    ----------
    location : Location
        The repository.
    as_of : str, datetime or None
        Name of a run (see `runs_of`), identifier of a snapshot, or a time, ISO 8601 (UTC unless it says otherwise).

    Raises
    ------
    StoreError
        If there is no store, or it was not there then.
    """
    with ice_errors(location.path):
        found = repository(location)
        if found is None:
            raise no_store(location.path)
        if as_of is None:
            return found.readonly_session(BRANCH).store
        if as_of in found.list_tags():
            return found.readonly_session(tag=as_of).store
        time = _time(as_of)
        if time is None:
            return found.readonly_session(snapshot_id=as_of).store
        return found.readonly_session(BRANCH, as_of=time).store


def runs_of(location: Location) -> dict[str, datetime]:
    """Name of each run that committed anything -> when it last did, oldest first.

    Raises
    ------
    StoreError
        If there is no store.
    """
    with ice_errors(location.path):
        found = repository(location)
        if found is None:
            raise no_store(location.path)
        runs = {tag: next(iter(found.ancestry(tag=tag))).written_at for tag in found.list_tags()}
    return dict(sorted(runs.items(), key=lambda item: item[1]))


def tidied(location: Location, before: timedelta) -> tuple[int, int]:
    """Delete what no commit, branch or run refers to: what killed workers wrote; how many objects and bytes.

    Parameters
    ----------
    location : Location
        The repository; nobody may be writing to it.
    before : timedelta
        Objects must be so old: clocks may disagree.
    """
    with ice_errors(location.path):
        found = repository(location)
        if found is None:
            raise no_store(location.path)
        gone = found.garbage_collect(datetime.now(UTC) - before)
        kinds = ("chunks", "manifests", "snapshots", "attributes", "transaction_logs")
        return sum(getattr(gone, f"{kind}_deleted") for kind in kinds), int(gone.bytes_deleted)


def no_store(path: str) -> StoreError:
    """The error of a path without a store."""
    return StoreError(f"there is no store at {path}", "check the path")


def _icechunk(path: str) -> Any:
    try:
        import icechunk
    except ImportError:
        raise StoreError(f"{path} needs Icechunk", "pip install 'glaciercube[icechunk]'") from None
    return icechunk


def _storage(location: Location) -> Any:
    icechunk = _icechunk(location.path)
    if location.scheme == "memory":
        raise StoreError("an Icechunk repository cannot be in memory", "give a folder, or s3://bucket/prefix")
    if not location.scheme:
        # It warns that a folder is not safe for concurrent commits, on standard output; the lease sees to that.
        icechunk.set_logs_filter("icechunk=error")
        return icechunk.local_filesystem_storage(str(location.folder))
    bucket, prefix = location.bucket
    key, secret, token = (
        location.setting(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    )
    known = {"access_key_id": key, "secret_access_key": secret, "session_token": token or None} if key else {}
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=location.setting("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=location.server or None,
        allow_http=location.server.startswith("http://"),
        force_path_style=not location.virtual_hosting,
        from_env=None if known else True,
        **known,
    )


def _time(text: str | datetime) -> datetime | None:
    if isinstance(text, str):
        try:
            text = datetime.fromisoformat(text)
        except ValueError:
            return None
    return text if text.tzinfo else text.replace(tzinfo=UTC)
