"""What GDAL says of files that it cannot read, and how it forgets them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

import rasterio

from glaciercube.catalog import without_secrets
from glaciercube.reading.address import Address
from glaciercube.reading.retry import Failure, FailureKind, kind_of_status

__all__ = ["clear", "failure_of", "first_line", "heard"]

_STATUS: Final = re.compile(r"(?:response code|response_code|error code)(?: on \S+?)?[ :=]+(\d{3})\b", re.IGNORECASE)
# What GDAL and the stores say, in lower case.
_SAYS: Final[tuple[tuple[FailureKind, tuple[str, ...]], ...]] = (
    (
        "authorisation",
        (
            "accessdenied",
            "access denied",
            "invalidaccesskeyid",
            "signaturedoesnotmatch",
            "expiredtoken",
            # What S3 says of these in so many words, which is all that GDAL hands on.
            "request signature we calculated",
            "access key id you provided",
            "provided token",
            "no valid aws credentials",
            "no valid azure",
            "no valid gcs",
        ),
    ),
    (
        "transient",
        ("timed out", "timeout", "reset by peer", "curl error", "could not resolve", "slowdown"),
    ),
    ("permanent", ("does not exist", "no such file", "not recognized", "nosuchkey", "nosuchbucket")),
)


_CUT: Final = re.compile(r"got \d+ bytes, expected \d+")


def clear(path: str) -> None:
    """Make GDAL forget that a file could not be opened, and what it read of it."""
    # It forgets files under these names when a handle is closed: one is opened for that.
    with rasterio.Env(CPL_VSIL_CURL_NON_CACHED="/vsicurl/:/vsis3/:/vsigs/:/vsiaz/:/vsioss/:/vsiswift/"):
        try:
            rasterio.open(path, sharing=False).close()
        except rasterio.errors.RasterioError:
            return


class _Ear(logging.Handler):
    """Keeps what rasterio logs of one thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.lines.append(record.getMessage())


@contextmanager
def heard() -> Iterator[list[str]]:
    """Listen to GDAL: of a failed open it tells the status by a warning only, and not in the error."""
    ear, logger = _Ear(), logging.getLogger("rasterio")
    logger.addHandler(ear)
    try:
        yield ear.lines
    finally:
        logger.removeHandler(ear)


def failure_of(error: Exception, address: Address, lines: list[str]) -> Failure:
    """What kind of failure an error of rasterio or GDAL is.

    Parameters
    ----------
    error : Exception
        Theirs.
    address : Address
        The file.
    lines : list of str
        What was `heard` meanwhile.
    """
    texts = [*lines] if address.is_remote else []
    at: BaseException | None = error
    while at is not None:
        texts.append(str(at))
        at = at.__cause__ or at.__context__
    said = " ".join(texts).lower()
    reason = first_line(error, address.href) or "it cannot be decoded"
    if status := _STATUS.findall(said):
        return Failure(f"the server answers {status[-1]}", kind_of_status(int(status[-1])))
    if address.is_remote and _CUT.search(said):
        return Failure("the file was cut off", "transient", garbled=True)
    unknown: FailureKind = "permanent"
    kind = next((kind for kind, words in _SAYS if any(word in said for word in words)), unknown)
    return Failure(reason, kind)


def first_line(error: Exception, path: str) -> str:
    """The first line of what an error says, without the file's name and whatever a query may hold.

    Parameters
    ----------
    error : Exception
        Of rasterio or GDAL.
    path : str
        What was opened.
    """
    lines = str(error.__cause__ or error).splitlines()
    text = without_secrets(lines[0]) if lines else ""
    for name in (path, PurePosixPath(urlsplit(path).path).name):
        text = re.sub(rf"/vsipythonfilelike/[0-9a-f-]+/{re.escape(name)}", "it", text) if name else text
        text = text.replace(name, "it") if name else text
    # A query may hold a signature, wherever GDAL quotes it.
    return re.sub(r"\?\S+", "", text)
