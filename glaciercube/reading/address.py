"""Where one band of one scene lies: an address that travels as a URI through any backend."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from glaciercube.catalog import without_secrets

__all__ = ["Address"]

_MARK: Final = "#glaciercube="


@dataclass(frozen=True)
class Address:
    """A band of a scene.

    Attributes
    ----------
    href : str
        The file, unsigned.
    scene, band : str
        STAC identifier and band, for errors and records.
    inner : str
        Path of the array within the file, where that is a Zarr group.
    crs : str
        CRS of such an array, where the item says it.
    transform : tuple of float
        Its affine coefficients a to f, where the item says them.
    options : tuple of (str, str)
        GDAL's options that reading there needs; never a secret.
    """

    href: str
    scene: str = ""
    band: str = ""
    inner: str = ""
    crs: str = ""
    transform: tuple[float, ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    @property
    def uri(self) -> str:
        """The address as one string; backends take it for the file's URI."""
        known = {name: value for name in _FIELDS if (value := getattr(self, name))}
        return f"{self.href}{_MARK}{quote(json.dumps(known, sort_keys=True))}" if known else self.href

    @classmethod
    def parse(cls, uri: str) -> Address:
        """Read an address that `uri` wrote; any other URI or path is an address of which nothing else is known."""
        href, _, text = uri.partition(_MARK)
        known: dict[str, Any] = json.loads(unquote(text)) if text else {}
        options = tuple((str(name), str(value)) for name, value in known.pop("options", ()))
        transform = tuple(float(value) for value in known.pop("transform", ()))
        return cls(href, options=options, transform=transform, **known)

    @property
    def shown(self) -> str:
        """The file without what nobody must see."""
        return without_secrets(self.href)

    @property
    def is_http(self) -> bool:
        """True if it is fetched by HTTP."""
        return self.href.startswith(("http://", "https://"))

    @property
    def is_remote(self) -> bool:
        """True if it lies behind a network."""
        return "://" in self.href or self.href.startswith("/vsi")

    @property
    def is_zarr(self) -> bool:
        """True if it is an array of a Zarr group."""
        path = urlsplit(self.href).path if self.is_remote else self.href
        return bool(self.inner) or any(part.endswith(".zarr") for part in path.split("/"))

    @property
    def origin(self) -> str:
        """Who serves it: the host, the bucket, or ``"disk"``."""
        parts = urlsplit(self.href)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if self.is_remote and parts.netloc else "disk"


_FIELDS: Final = ("scene", "band", "inner", "crs", "transform", "options")
