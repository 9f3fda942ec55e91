"""Asking a catalogue over HTTP: time-outs, retries that honour Retry-After, and a token that only it gets to see."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from pystac.stac_io import DefaultStacIO

from glaciercube.catalog.hush import hide
from glaciercube.errors import CatalogError

if TYPE_CHECKING:
    import requests
    from pystac_client.stac_api_io import StacApiIO

__all__ = ["TOKEN", "Access", "CatalogIO", "timeouts"]

# The environment variable that holds the token of the user's own API.
TOKEN: Final = "GLACIERCUBE_CATALOG_TOKEN"  # noqa: S105 - its name

CONNECT_TIMEOUT: Final = 10.0  # seconds
READ_TIMEOUT: Final = 60.0  # seconds; big archives take up to half a minute over a page
PAUSE: Final = 0.5  # seconds before the second retry, doubled with each
TRIES: Final = 5  # retries of a request that was answered 429, 502, 503, 504 or not at all
UNANSWERED: Final = 2  # of these, where there is no connection or no answer: nobody shall wait for long
LONGEST_PAUSE: Final = 120  # seconds that Retry-After is followed for


@dataclass(frozen=True)
class Access:
    """How a catalogue on the web is asked.

    Attributes
    ----------
    url : str
        Its address without user, password and query.
    headers : mapping of str
        Sent to its host, and to no other.
    query : str
        Likewise, added to every request's.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    query: str = field(default="", repr=False)

    @classmethod
    def of(cls, location: str, *, token: bool) -> Access:
        """Take an address apart, and add the token of the environment where it is meant.

        Parameters
        ----------
        location : str
            URL; a user and password in it become a header.
        token : bool
            Whether ``GLACIERCUBE_CATALOG_TOKEN`` is this catalogue's. It is a bearer token, the whole value of the
            header Authorization (``"Basic ..."``), or another header (``"X-Api-Key: ..."``).
        """
        parts = urlsplit(location)
        user, _, host = parts.netloc.rpartition("@")
        headers = {}
        if user:
            headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode()}"
        given = os.environ.get(TOKEN, "").strip() if token else ""
        if given:
            name, colon, value = given.partition(":")
            # Neither bearer tokens (RFC 6750) nor base64 have a colon.
            if not colon:
                name, value = "Authorization", given if " " in given else f"Bearer {given}"
            headers[name.strip()] = value.strip()
        return cls(urlunsplit((parts.scheme, host, parts.path, "", "")), headers, parts.query)

    @property
    def secrets(self) -> list[str]:
        """What must not be repeated to anybody, the longest first."""
        values = [value for header in self.headers.values() for value in (header, header.rpartition(" ")[2])]
        for header in self.headers.values():
            if header.startswith("Basic "):
                values += base64.b64decode(header.removeprefix("Basic ")).decode(errors="replace").split(":", 1)
        values += [self.query, *(pair.partition("=")[2] for pair in self.query.split("&"))]
        return sorted({value for value in values if value}, key=len, reverse=True)

    def session(self) -> requests.Session:
        """A session with these time-outs, retries and credentials."""
        import requests

        session = requests.Session()
        self.equip(session)
        return session

    def equip(self, session: requests.Session) -> None:
        """Give a session these retries, and these credentials for this catalogue's host."""
        hide(*self.secrets)
        parts = urlsplit(self.url)
        for scheme in ("http://", "https://"):
            session.mount(scheme, _adapter(Access(scheme)))
        # Added as a request leaves, so that neither the client's log nor a link to another host has them.
        session.mount(f"{parts.scheme}://{parts.netloc.lower()}/", _adapter(self))

    def api(self) -> StacApiIO:
        """What pystac-client asks by."""
        from pystac_client.stac_api_io import StacApiIO

        asking = StacApiIO(timeout=timeouts())
        self.equip(asking.session)
        return asking

    def failure(self, error: Exception) -> CatalogError:
        """What went wrong, in words, without secrets: servers and clients like to quote what they were sent."""
        reason, remedy = _explained(error, bool(self.headers))
        for secret in self.secrets:
            reason = reason.replace(secret, "...")
        return CatalogError(f"the catalogue {self.url} cannot be read ({reason})", remedy)


class CatalogIO(DefaultStacIO):
    """Reads the files of a static catalogue, on disk or on the web."""

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._session = access.session()

    def read_text_from_href(self, href: str) -> str:
        """The text of a file."""
        if not href.startswith(("http://", "https://")):
            return super().read_text_from_href(href)
        answer = self._session.get(href, timeout=timeouts())
        answer.raise_for_status()
        return answer.content.decode()


def timeouts() -> tuple[float, float]:
    """Seconds to wait for a connection, and for an answer."""
    return CONNECT_TIMEOUT, READ_TIMEOUT


def _adapter(access: Access) -> requests.adapters.HTTPAdapter:
    import requests.adapters
    from urllib3 import Retry

    class Adapter(requests.adapters.HTTPAdapter):
        def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
            request.headers.update(access.headers)

        def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
            url: str = super().request_url(request, proxies)
            return f"{url}{'&' if '?' in url else '?'}{access.query}" if access.query else url

    return Adapter(
        max_retries=Retry(
            total=TRIES,
            connect=UNANSWERED,
            read=UNANSWERED,
            backoff_factor=PAUSE,
            backoff_jitter=PAUSE,
            status_forcelist=(429, 502, 503, 504),
            # Searching changes nothing, whatever the method.
            allowed_methods=None,
            raise_on_status=False,
            retry_after_max=LONGEST_PAUSE,
        )
    )


# The kind of an exception, or of one behind it -> reason and remedy; the first that fits.
_KINDS: Final = {
    ("ConnectTimeout", "ConnectTimeoutError"): ("no connection in time", "check the URL and the network"),
    ("ReadTimeout", "ReadTimeoutError", "Timeout"): (
        f"no answer within {READ_TIMEOUT:.0f} s",
        "try again later, or ask for a shorter interval",
    ),
    ("SSLError", "SSLCertVerificationError"): (
        "its certificate is not trusted",
        "check the URL, or name its authority in REQUESTS_CA_BUNDLE",
    ),
    ("NameResolutionError", "gaierror"): ("there is no host of this name", "check the URL and the network"),
    ("ConnectionError", "MaxRetryError"): ("no connection", "check the URL, the network, and that the server runs"),
    ("JSONDecodeError", "STACTypeError", "KeyError", "UnicodeDecodeError"): (
        "it is not STAC",
        "give the root of a STAC API, or a catalog.json",
    ),
}


def _explained(error: Exception, authorised: bool) -> tuple[str, str]:
    """A reason and a remedy."""
    status, body = _status(error)
    if status is not None:
        return f"it answers {status}{_detail(body)}", _remedy(status, authorised)
    found = {type(cause).__name__ for cause in _causes(error)}
    for kinds, words in _KINDS.items():
        if found.intersection(kinds):
            return words
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return reason[:200], "check the path or URL, the network, and that it is STAC"


def _remedy(status: int, authorised: bool) -> str:
    if status in (401, 403):
        return (
            f"the token or password is not valid here, or no longer: renew it (environment variable {TOKEN})"
            if authorised
            else f"it wants to know who asks: put a token into the environment variable {TOKEN}"
        )
    if status == 404:
        return "check the URL: give the root of a STAC API, or a catalog.json"
    if status == 429 or status >= 500:
        return "it is overloaded or out of order: try again later, or ask for a shorter interval"
    return "check the URL, and that it is STAC"


def _status(error: Exception) -> tuple[int | None, str]:
    """The HTTP status of a refusal, and what was said with it."""
    for cause in _causes(error):
        status = getattr(cause, "status_code", None)
        if isinstance(status, int):
            return status, str(cause)
        answer = getattr(cause, "response", None)
        if answer is not None:
            return answer.status_code, answer.text
    return None, ""


def _detail(body: str) -> str:
    """What a server says of its refusal in JSON; an HTML page says nothing that helps."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    said = [content.get(name) for name in ("description", "detail", "message")] if isinstance(content, dict) else []
    text = next((" ".join(words.split()) for words in said if isinstance(words, str) and words), "")
    return f": {text[:200]}" if text else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what lies behind it: clients wrap one in the other."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
