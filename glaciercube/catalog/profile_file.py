"""Reading a provider's profile from YAML; what is wrong is named by file, key and nearest name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from glaciercube.catalog.profiles import OFFSET_POLICIES, CollectionProfile, Profile
from glaciercube.catalog.unsigned import without_secrets
from glaciercube.errors import ConfigError
from glaciercube.sensors import SENSORS, Published
from glaciercube.sensors.stored import DTYPES, holds

__all__ = ["load_profile", "parse_profile"]

_PROFILE: Final = ("name", "url", "signing", "credentials", "options", "collections")
_COLLECTION: Final = (
    "sensor",
    "offset",
    "level",
    "dtype",
    "nodata",
    "scale",
    "distrust",
    "hrefs",
    "alternate",
    "bands",
)
_BAND: Final = ("asset", "inner", "dtype", "nodata", "scale", "offset")
_WORD: Final = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_DISTRUST: Final = ("proj:epsg", "proj:code", "proj:wkt2", "proj:projjson", "proj:transform", "proj:shape", "proj:bbox")
# What reading may need to know of a store. Keys and tokens are not among them: they belong into the environment.
_OPTIONS: Final = (
    "AWS_HTTPS",
    "AWS_NO_SIGN_REQUEST",
    "AWS_REGION",
    "AWS_REQUEST_PAYER",
    "AWS_S3_ENDPOINT",
    "AWS_VIRTUAL_HOSTING",
)


def load_profile(path: str | Path) -> Profile:
    """Read a profile from a YAML file; a relative path in its ``url`` starts at the file's folder.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    ConfigError
        If it cannot be read or understood.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the profile {path} ({error.strerror})", "check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the profile {path} is not text in UTF-8 ({error.reason})", "save it as UTF-8") from error
    return parse_profile(text, str(path), path.parent)


def parse_profile(text: str, file: str, folder: Path | None = None) -> Profile:
    """Read a profile from YAML text.

    Parameters
    ----------
    text : str
        YAML, as docs/providers.md describes it.
    file : str
        What to call it in errors.
    folder : Path or None
        Where a relative path in ``url`` starts.

    Raises
    ------
    ConfigError
        If it cannot be understood.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file} line {mark.line + 1}" if mark else file
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'it is not YAML'}", "mend it there") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is not a mapping", "write keys such as url and collections")
    _known(content, _PROFILE, file, "")
    url = _url(content.get("url"), file, folder)
    collections = {
        str(name): _collection(each, file, f"collections.{name}")
        for name, each in _mapping(content, "collections", file, "").items()
    }
    return Profile(
        name=_text(content, "name", file, "") or Path(file).stem,
        url=url,
        signing=_signing(content.get("signing"), file),
        credentials=_text(content, "credentials", file, ""),
        collections=collections,
        options={
            str(start): _options(each, file, str(start))
            for start, each in _mapping(content, "options", file, "").items()
        },
    )


def _url(url: Any, file: str, folder: Path | None) -> str:
    if not isinstance(url, str) or not url:
        raise ConfigError(f"{file}: url is missing", "give the root of the STAC API, or a catalog.json")
    if url.endswith((".yaml", ".yml")):
        raise ConfigError(
            f"{file}: url: {without_secrets(url)} is a profile too", "give the root of the STAC API, or a catalog.json"
        )
    if folder is not None and not url.startswith(("http://", "https://")):
        return str((folder / url).resolve())
    return url


def _collection(content: Any, file: str, path: str) -> CollectionProfile:
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: {path} is not a mapping", "write sensor and bands under it")
    _known(content, _COLLECTION, file, path)
    sensor = _chosen(content.get("sensor"), SENSORS, file, f"{path}.sensor")
    bands = _mapping(content, "bands", file, path)
    names = [band.name for band in SENSORS[sensor].bands]
    for band in bands:
        _chosen(band, names, file, f"{path}.bands")
    hrefs = _mapping(content, "hrefs", file, path)
    return CollectionProfile(
        sensor=sensor,
        bands={str(band): _published(each, file, f"{path}.bands.{band}") for band, each in bands.items()},
        offset=_chosen(content.get("offset", ""), OFFSET_POLICIES, file, f"{path}.offset"),
        level=_chosen(content.get("level", ""), ("", "surface", "toa"), file, f"{path}.level"),
        distrust=_distrust(content.get("distrust"), file, f"{path}.distrust"),
        hrefs={str(old): _text(hrefs, old, file, f"{path}.hrefs") for old in hrefs},
        alternate=_text(content, "alternate", file, path),
        **_stored(content, ("dtype", "nodata", "scale"), file, path),
    )


def _distrust(content: Any, file: str, path: str) -> tuple[str, ...]:
    if not isinstance(content, list | None):
        raise ConfigError(f"{file}: {path}: {content!r} is not a list", "write names in brackets: [proj:transform]")
    return tuple(_chosen(each, _DISTRUST, file, path) for each in content or ())


def _published(content: Any, file: str, path: str) -> tuple[Published, ...]:
    """One way or several: an asset's key, or a mapping."""
    choices = content if isinstance(content, list) else [content]
    found = []
    for choice in choices or [None]:
        given = choice if isinstance(choice, dict) else {"asset": choice}
        _known(given, _BAND, file, path)
        asset = given.get("asset")
        if not isinstance(asset, str) or not asset:
            raise ConfigError(f"{file}: {path} names no asset", "write the asset's key, such as red: B04")
        stored = _stored(given, ("dtype", "nodata", "scale", "offset"), file, path)
        found.append(Published(asset, _text(given, "inner", file, path), **stored))
    return tuple(found)


def _stored(content: Mapping[str, Any], keys: Iterable[str], file: str, path: str) -> dict[str, Any]:
    """How pixels are stored, as far as it is said."""
    said: dict[str, Any] = {}
    for key in keys:
        if key == "dtype" and key in content:
            said[key] = _chosen(content[key], DTYPES, file, f"{path}.{key}")
        elif key in content:
            said[key] = _number(content[key], file, f"{path}.{key}")
    dtype, nodata = said.get("dtype"), said.get("nodata")
    if dtype and nodata is not None and not holds(dtype, nodata):
        raise ConfigError(
            f"{file}: {path}.nodata: {dtype} cannot hold {nodata:g}", "give a value that stored pixels can have"
        )
    return said


def _signing(content: Any, file: str) -> str:
    if not content:
        return ""
    if not isinstance(content, dict):
        return _chosen(content, ("planetary-computer",), file, "signing")
    _known(content, ("parameter", "environment", "bearer"), file, "signing")
    for key, value in content.items():
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            kind = "parameter of a URL" if key == "parameter" else "environment variable"
            # What stands there may be the token itself: it is not repeated.
            raise ConfigError(
                f"{file}: signing.{key} is not the name of a{'n' * (kind[0] == 'e')} {kind}",
                "write a name of letters, digits and _; the token itself stays in the environment",
            )
    if set(content) == {"bearer"}:
        return f"bearer:${content['bearer']}"
    if set(content) != {"parameter", "environment"}:
        raise ConfigError(f"{file}: signing needs parameter and environment, or bearer", "name them")
    return f"query:{content['parameter']}=${content['environment']}"


def _options(content: Any, file: str, start: str) -> tuple[tuple[str, str], ...]:
    path = f"options.{start}"
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: {path} is not a mapping", "write GDAL's options under it")
    _known(content, _OPTIONS, file, path)
    return tuple(sorted((str(name), _text(content, name, file, path)) for name in content))


def _mapping(content: Mapping[str, Any], key: str, file: str, path: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {'.'.join(filter(None, (path, key)))} is not a mapping", "write keys under it")
    return value


def _text(content: Mapping[str, Any], key: str, file: str, path: str) -> str:
    """A text, number or yes and no as it is written; empty where there is none."""
    value = content.get(key, "")
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"{file}: {'.'.join(filter(None, (path, str(key))))}: {value!r} is not a text", "write a word")


def _known(content: Mapping[str, Any], names: Iterable[str], file: str, path: str) -> None:
    for key in content:
        _chosen(key, names, file, path or "the profile", what="key")


def _chosen(value: Any, names: Iterable[str], file: str, path: str, what: str = "name") -> str:
    """A value that must be one of some names."""
    known = list(names)
    if value in known:
        return str(value)
    near = difflib.get_close_matches(str(value), [name for name in known if name], n=1)
    choices = ", ".join(name for name in known if name)
    raise ConfigError(
        f"{file}: {path}: unknown {what} {value!r}", f"did you mean {near[0]}?" if near else f"choose among {choices}"
    )


def _number(value: Any, file: str, path: str) -> float:
    try:
        number = float("x" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        raise ConfigError(f"{file}: {path}: {value!r} is not a number", "write a number, or .nan") from None
    key = path.rpartition(".")[2]
    if (key != "nodata" and not math.isfinite(number)) or (key == "scale" and number == 0):
        raise ConfigError(
            f"{file}: {path}: pixels cannot be read with {number:g}", "write the number to read them with"
        )
    return number
