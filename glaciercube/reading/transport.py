"""Files over HTTP: every request is tried, signed, checked and counted here, and GDAL sees whole bytes or an end.

GDAL's own client repeats a refused request at once, does not know Retry-After, repeats no answer that was cut off,
keeps that a file could not be opened, and quotes signed URLs in its messages. So it reads through Python files.
"""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import requests

from glaciercube.catalog.hush import hide
from glaciercube.errors import GlaciercubeError
from glaciercube.reading.access import Access
from glaciercube.reading.address import Address
from glaciercube.reading.blocks import BLOCK, Cache, Gates
from glaciercube.reading.carried import gdal_option
from glaciercube.reading.retry import Failure, Turn, kind_of_status, retry_after

__all__ = ["Remote", "RemoteFile", "forget"]

_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


_cache, _gates = Cache(), Gates()
_local = threading.local()


def forget(href: str | None = None) -> None:
    """Keep nothing of a file, or of any: what was read of it may be bad, or it may be mended."""
    _cache.drop(href)


class Remote:
    """A file on an HTTP server.

    Parameters
    ----------
    address : Address
        Which.
    access : Access
        How it is signed.
    turn : Turn
        The time that its read may take.
    """

    def __init__(self, address: Address, access: Access, turn: Turn) -> None:
        self.href, self.origin, self.access, self.turn = address.href, address.origin, access, turn
        self.failure: Failure | None = None
        self._whole: bytes | None = None
        # GDAL's settings belong to this thread; the file may be fetched by another.
        self._headers, self._verify, self._proxies = _settings(), _verify(), _proxies()

    def size(self) -> int:
        """Bytes of the file.

        Raises
        ------
        Failure
            If it cannot be told.
        """
        facts = _cache.facts(self.href)
        if facts is None:
            # What was kept of it may be of another version by now.
            _cache.drop(self.href)
            self._fetch(0, BLOCK)
            facts = _cache.facts(self.href)
        if facts is None:
            raise Failure("its size cannot be told", "permanent")
        return facts[0]

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file; fewer at its end.

        Raises
        ------
        Failure
            If they cannot be fetched.
        """
        stop = min(start + length, self.size())
        if stop <= start:
            return b""
        if self._whole is not None:
            return self._whole[start:stop]
        blocks: dict[int, bytes] = {}
        wanted = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        for block in wanted:
            if (known := _cache.get(self.href, block)) is not None:
                blocks[block] = known
        for first, last in _runs([block for block in wanted if block not in blocks]):
            content = self._fetch(first * BLOCK, (last + 1 - first) * BLOCK)
            for index in range(first, last + 1):
                blocks[index] = content[(index - first) * BLOCK : (index + 1 - first) * BLOCK]
        joined = b"".join(blocks[block] for block in wanted)
        return joined[start - wanted.start * BLOCK : stop - wanted.start * BLOCK]

    def whole(self) -> bytes | None:
        """The whole file, for small ones; None if there is none.

        Raises
        ------
        Failure
            If it cannot be fetched, for any reason but that it is not there.
        """
        if (facts := _cache.facts(self.href)) is not None:
            known = [_cache.get(self.href, block) for block in range(-(-facts[0] // BLOCK))]
            if all(part is not None for part in known):
                return b"".join(part for part in known if part is not None)
        answer = self._persist(lambda: self._get({}, missing=True))
        if answer is None:
            return None
        content: bytes = answer[1]
        _cache.drop(self.href)
        _cache.learn(self.href, len(content), _validator(answer[0]))
        _cache.put(self.href, 0, content)
        return content

    def _fetch(self, start: int, length: int) -> bytes:
        """Fetch blocks and keep them."""
        content: bytes = self._persist(lambda: self._range(start, length))
        return content

    def _persist(self, once: Callable[[], Any]) -> Any:
        """Try until it is done, or until there is no sense in it."""
        failed, renewed = 0, False
        while True:
            try:
                return once()
            except Failure as failure:
                if failure.kind == "authorisation" and not renewed:
                    # A token ends while it is used: once more with a new one. A refusal that stays is meant.
                    renewed = True
                    self.access.renew()
                    continue
                if failure.kind != "transient":
                    raise
                failed += 1
                _gates.shut(self.origin, failure.asked)
                self.turn.pause(failure, failed)

    def _range(self, start: int, length: int) -> bytes:
        known = _cache.facts(self.href)
        last = start + length - 1 if known is None else min(start + length, known[0]) - 1
        answer = self._get({"Range": f"bytes={start}-{last}"})
        if answer is None:
            raise Failure("the server answers 404", "permanent")
        response, content = answer
        size, validator = len(content), _validator(response)
        if response.status_code == requests.codes.partial_content:
            given = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not given or int(given[1]) != start or len(content) != int(given[2]) - start + 1:
                raise Failure("the server sent other bytes than it was asked for", "transient")
            size = int(given[3])
            if len(content) != min(length, size - start):
                raise Failure("the server sent fewer bytes than it was asked for", "transient")
        if known is not None and known != (size, validator):
            forget(self.href)
            raise Failure("the file changed while it was read", "permanent", garbled=True)
        _cache.learn(self.href, size, validator)
        if response.status_code != requests.codes.partial_content:
            # No ranges here: the whole file came.
            self._whole = content
            return content[start : start + length]
        _cache.put(self.href, start // BLOCK, content)
        return content

    def _get(self, headers: dict[str, str], *, missing: bool = False) -> tuple[requests.Response, bytes] | None:
        """One request, and its body if all of it came; None for a 404 where that is an answer."""
        options = self.turn.options
        while (wait := _gates.left(self.origin)) > 0:
            if wait >= self.turn.left:
                raise Failure(f"the server asks to wait {wait:.0f} s", "transient")
            time.sleep(wait)
        try:
            url, headers = self.access.url(self.href), {**headers, **self._headers, **self.access.headers()}
        except GlaciercubeError as error:
            reason = f"{error.problem}: {error.remedy}"
            raise Failure(reason, "authorisation") from None
        parts = urlsplit(url)
        hide(parts.query, parts.password or "")
        try:
            with _session().get(
                url,
                headers={"Accept-Encoding": "identity", **headers},
                timeout=(options.connect_timeout, options.timeout),
                stream=True,
                verify=self._verify,
                proxies=self._proxies,
            ) as response:
                if missing and response.status_code == requests.codes.not_found:
                    return None
                self._check(response)
                return response, self._body(response)
        except requests.RequestException as error:
            raise _failure(error) from None

    def _check(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (requests.codes.ok, requests.codes.partial_content):
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise Failure("the server answers with a web page", "permanent")
            return
        kind = kind_of_status(status)
        if status == requests.codes.bad_request and self.access.signs:
            # What S3 says of a token whose time is over.
            kind = "authorisation"
        raise Failure(f"the server answers {status}", kind, retry_after(response.headers.get("Retry-After")))

    def _body(self, response: requests.Response) -> bytes:
        parts = []
        for part in response.iter_content(1 << 16):
            parts.append(part)
            if self.turn.left <= 0:
                raise Failure("the server sends too slowly", "transient")
        content = b"".join(parts)
        length = response.headers.get("Content-Length")
        if length is not None and len(content) != int(length):
            raise Failure("the answer was cut off", "transient")
        return content


class RemoteFile(io.RawIOBase):
    """A file on a server as GDAL reads it; a failure is kept in ``remote.failure``, and ends the file.

    Parameters
    ----------
    remote : Remote
        The file.
    """

    def __init__(self, remote: Remote) -> None:
        super().__init__()
        self._remote, self._at = remote, 0
        # GDAL may open a file more than once, and rasterio makes each of these as it does with files of fsspec.
        self.fs, self.path, self.mode = self, "", "rb"

    def open(self, path: str, mode: str = "rb") -> RemoteFile:  # noqa: ARG002 - fsspec's protocol
        """The same file once more, at its beginning."""
        return RemoteFile(self._remote)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence)
        self._at = offset + (self._guarded(self._remote.size, 0) if start is None else start)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Bytes from here; none after a failure."""
        length = max(0, self._guarded(self._remote.size, 0) - self._at) if size is None or size < 0 else size
        content: bytes = self._guarded(lambda: self._remote.read(self._at, length), b"")
        self._at += len(content)
        return content

    def _guarded(self, call: Callable[[], Any], otherwise: Any) -> Any:
        # Between GDAL and this there is C, through which no exception passes: what fails is kept, and asked for after.
        if self._remote.failure is not None:
            return otherwise
        try:
            return call()
        except Failure as failure:
            self._remote.failure = failure
        except Exception as error:  # noqa: BLE001 - a signer is anybody's code, and may quote what it signs
            self._remote.failure = Failure(f"{type(error).__name__} while it was fetched", "permanent")
        return otherwise


def _validator(response: requests.Response) -> str:
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")


def _runs(blocks: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        if runs and runs[-1][1] == block - 1:
            runs[-1] = (runs[-1][0], block)
        else:
            runs.append((block, block))
    return runs


def _session() -> requests.Session:
    if getattr(_local, "pid", None) != os.getpid():
        _local.pid, _local.session = os.getpid(), requests.Session()
    session: requests.Session = _local.session
    return session


def _settings() -> dict[str, str]:
    """Headers that the user set for GDAL."""
    headers = {}
    for line in re.split(r"[\r\n]+", gdal_option("GDAL_HTTP_HEADERS")):
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    if agent := gdal_option("GDAL_HTTP_USERAGENT"):
        headers["User-Agent"] = agent
    if bearer := gdal_option("GDAL_HTTP_BEARER"):
        headers["Authorization"] = f"Bearer {bearer}"
    elif user := gdal_option("GDAL_HTTP_USERPWD"):
        name, _, word = user.partition(":")
        headers["Authorization"] = str(requests.auth._basic_auth_str(name, word))  # noqa: SLF001 - no public one
    return headers


def _verify() -> bool | str:
    if gdal_option("GDAL_HTTP_UNSAFESSL").upper() in ("YES", "ON", "TRUE", "1"):
        return False
    return gdal_option("GDAL_CURL_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True


def _proxies() -> dict[str, str] | None:
    proxy = gdal_option("GDAL_HTTP_PROXY")
    return {"http": _with_scheme(proxy), "https": _with_scheme(proxy)} if proxy else None


def _with_scheme(proxy: str) -> str:
    return proxy if urlsplit(proxy).scheme in ("http", "https", "socks5", "socks5h") else f"http://{proxy}"


def _failure(error: requests.RequestException) -> Failure:
    """What happened, without the URL, which every text of the client quotes."""
    kinds: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, Any], ...] = (
        (requests.exceptions.SSLError, "the server's certificate is not trusted", "permanent"),
        (requests.exceptions.ProxyError, "the proxy cannot be reached", "transient"),
        (requests.exceptions.ConnectTimeout, "the server does not take the connection", "transient"),
        (requests.exceptions.Timeout, "the server stalled", "transient"),
        (requests.exceptions.ChunkedEncodingError, "the answer was cut off", "transient"),
        (requests.exceptions.ConnectionError, "the connection failed", "transient"),
        (requests.exceptions.TooManyRedirects, "the server redirects in a circle", "permanent"),
    )
    for kind, reason, failure in kinds:
        if isinstance(error, kind):
            return Failure(reason, failure)
    return Failure(f"the request failed ({type(error).__name__})", "permanent")
