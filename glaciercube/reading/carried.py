"""Settings and credentials on their way to where the read happens: carried with the graph, and never shown."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import rasterio
from rasterio.session import Session

__all__ = ["Carried", "gdal_option"]

# Settings of GDAL for reading from elsewhere, by the beginning of their names.
_GDAL: Final = ("AWS_", "AZURE_", "GS_", "OSS_", "SWIFT_", "GDAL_HTTP_", "CPL_VSIL_", "CPL_AWS_", "CPL_GS_", "VSI")
# What Python clients read from the environment.
_PYTHON: Final = ("PC_SDK_SUBSCRIPTION_KEY", "PC_SDK_SAS_URL", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
# A path of this machine means nothing on another; what is to be printed is a matter of the terminal.
_NOT_CARRIED: Final = ("GDAL_DATA", "PROJ_DATA", "CPL_DEBUG", "CPL_CURL_VERBOSE", "CPL_LOG")
# What rasterio takes only from a session.
_SESSION: Final = ("AWS_", "AZURE_", "GS_", "OSS_", "SWIFT_")

# Variables that were set here for a graph that came from elsewhere: a newer graph may set them anew.
_placed: dict[str, str] = {}
_lock = threading.Lock()


class Carried:
    """What reads depend on beside the files; travels with every task, and shows itself in no text, key or log.

    Parameters
    ----------
    gdal : mapping
        GDAL's options that were set in so many words.
    inherited : mapping
        GDAL's options that stood in the environment.
    python : mapping
        Environment variables that Python clients read.
    """

    def __init__(self, gdal: Mapping[str, Any], inherited: Mapping[str, str], python: Mapping[str, str]) -> None:
        self._gdal, self._inherited, self._python = dict(gdal), dict(inherited), dict(python)

    def __repr__(self) -> str:
        return "Carried(...)"

    def __dask_tokenize__(self) -> tuple[str]:
        # Credentials decide whether pixels may be read, not what they are.
        return ("glaciercube-carried",)

    @classmethod
    def capture(cls, variable: str = "") -> Carried:
        """What is set here and now.

        Parameters
        ----------
        variable : str
            An environment variable that holds a token, carried too.
        """
        inherited = {n: v for n, v in os.environ.items() if n.startswith(_GDAL) and n not in _NOT_CARRIED}
        python = {n: os.environ[n] for n in (*_PYTHON, *_PROXIES, variable) if n and n in os.environ}
        return cls(_explicit(), inherited, python)

    @classmethod
    def nothing(cls) -> Carried:
        """No settings."""
        return cls({}, {}, {})

    @contextmanager
    def applied(self, defaults: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Set GDAL up as it was where this was captured.

        Parameters
        ----------
        defaults : mapping
            Options that all others outrank.
        own : mapping or None
            Options that outrank all others.
        """
        _place(self._python)
        # What a worker has in its own environment counts more: it may have been renewed since.
        ranked = {**defaults, **self._inherited}
        options: dict[str, Any] = {name: value for name, value in ranked.items() if name not in os.environ}
        options = {**options, **self._gdal, **(own or {})}
        session = _Given({name: value for name, value in options.items() if name.startswith(_SESSION)})
        plain = {name: value for name, value in options.items() if not name.startswith(_SESSION)}
        with rasterio.Env(session, **plain):
            yield


def gdal_option(name: str) -> str:
    """An option as GDAL has it in this thread; empty where it is not set."""
    known = rasterio.env.getenv() if rasterio.env.hasenv() else {}
    value = known.get(name)
    if isinstance(value, bool):
        return "YES" if value else "NO"
    return os.environ.get(name, "") if value is None else str(value)


class _Given(Session):  # type: ignore[misc]
    """Credentials as GDAL's options, however they were come by."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)

    @classmethod
    def hascreds(cls, config: Any) -> bool:  # noqa: ARG003 - rasterio's protocol
        """Always: nothing else is to be looked for."""
        return True

    def get_credential_options(self) -> dict[str, Any]:
        """GDAL's options."""
        return self._options


def _explicit() -> dict[str, Any]:
    """What was set by `rasterio.Env` or `odc.stac.configure_rio`, credentials of a session included."""
    from odc.loader._rio import _CFG

    found: dict[str, Any] = {}
    if _CFG.configured:
        with _CFG.env():
            found.update(rasterio.env.getenv())
    if rasterio.env.hasenv():
        found.update(rasterio.env.getenv())
    return {name: value for name, value in found.items() if name not in _NOT_CARRIED and value is not None}


def _place(variables: Mapping[str, str]) -> None:
    with _lock:
        for name, value in variables.items():
            if os.environ.get(name) == _placed.get(name):
                os.environ[name] = _placed[name] = value
