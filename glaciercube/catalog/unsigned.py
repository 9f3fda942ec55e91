"""Taking signatures, passwords and keys out of addresses and items, before anybody sees or keeps them."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import parse_qs

import pystac

__all__ = ["unsigned", "without_secrets"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USER = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:|^)//(?P<user>[^/?#]*)@")
# GDAL's names for what lies behind a network; the other file systems are of this machine.
_REMOTE = re.compile(r"/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(?:_streaming)?(?:[/?]|$)")
_CURL_QUERY = re.compile(r"(?P<before>.*/vsicurl(?:_streaming)?)\?(?P<query>.*)", re.DOTALL)
# Azure writes the container where others have the user: container@account.
_CONTAINERS: Final = ("abfs:", "abfss:", "wasb:", "wasbs:")
_CLOSING: Final = {"{": "}", '"': '"', "'": "'"}

# Fields that hold what opens a store. STAC's storage, authentication and xarray extensions have such ones.
_SECRET = re.compile(
    r"token|secret|signature|credential|passw|passphrase|authorization|cookie"
    r"|(?:account|access|api|private|shared)[-_]?key|storage[:_-]?options|^headers?$"
    r"|(?:^|[^a-z])(?:sas|sig|pwd)(?:[^a-z]|$)",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Addresses without user, query and fragment, alone or within a text.

    Parameters
    ----------
    text : str
        A URL of any scheme, a path of GDAL's file systems (``/vsicurl/...``), a relative href, or words among which
        there may be some. The path of a local file is not changed: its name may have a ``?``.
    """
    on_disk = text.startswith("/") and not text.startswith("//") and "://" not in text and not _REMOTE.search(text)
    if on_disk or text.startswith("file:///"):
        return text
    if re.match(rf"\s*(?:{_SCHEME.pattern}|/)", text):
        return _address(text.strip())
    if re.search(r"\s", text):
        return re.sub(r"\S+", lambda word: _address(word[0]) if _is_address(word[0]) else word[0], text)
    return _address(text) if _is_address(text) else text.partition("?")[0]


def unsigned(item: pystac.Item) -> dict[str, Any]:
    """An item as plain values: without links, secrets in hrefs, and fields that hold keys or tokens."""
    content: dict[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
    # Names of assets are names, whatever they say.
    assets = {str(key): _without(asset) for key, asset in content["assets"].items()}
    whole: dict[str, Any] = _without({**content, "links": []})
    return {**whole, "assets": assets}


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(each) for key, each in value.items() if not _SECRET.search(str(key))}
    if isinstance(value, list):
        return [_without(each) for each in value]
    return without_secrets(value) if isinstance(value, str) else value


def _is_address(word: str) -> bool:
    return bool(_SCHEME.search(word) or _REMOTE.search(word)) or word.startswith("//")


def _address(text: str) -> str:
    given = _CURL_QUERY.fullmatch(text)
    if given:
        # GDAL's other spelling: the URL is a parameter, beside headers and passwords.
        inside = parse_qs(given["query"]).get("url", [""])[0]
        return f"{given['before']}/{_address(inside)}" if inside else given["before"]
    text = _USER.sub(_no_user, text)
    cut = re.search(r"[?#]", text)
    if cut is None:
        return text
    before, after = text[: cut.start()], text[cut.start() :]
    # Within quotes or braces, what follows them belongs to the path.
    closing = next((close for start, close in _CLOSING.items() if start in before and close in after), None)
    return before + closing + after.rpartition(closing)[2] if closing else before


def _no_user(found: re.Match[str]) -> str:
    scheme, user = found["scheme"], found["user"]
    keep = scheme.lower() in _CONTAINERS and ":" not in user and "@" not in user
    return f"{scheme}//{user}@" if keep else f"{scheme}//"
