"""Reading a provider's profile from YAML; what is wrong is named by file, key and nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from glaciercube.catalog.profiles import OFFSET_POLICIES, CollectionProfile, Profile
from glaciercube.errors import ConfigError
from glaciercube.sensors import SENSORS, Published

__all__ = ["load_profile", "parse_profile"]

_PROFILE: Final = ("name", "url", "signing", "credentials", "options", "collections")
_COLLECTION: Final = ("sensor", "offset", "level", "nodata", "scale", "distrust", "hrefs", "alternate", "bands")
_BAND: Final = ("asset", "inner", "dtype", "nodata", "scale", "offset")
_DTYPES: Final = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
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
    url = content.get("url")
    if not isinstance(url, str) or not url:
        raise ConfigError(f"{file}: url is missing", "give the root of the STAC API, or a catalog.json")
    if folder is not None and not url.startswith(("http://", "https://")):
        url = str((folder / url).resolve())
    collections = {
        str(name): _collection(each, file, f"collections.{name}")
        for name, each in _mapping(content, "collections", file, "").items()
    }
    return Profile(
        name=str(content.get("name", Path(file).stem)),
        url=url,
        signing=_signing(content.get("signing"), file),
        credentials=str(content.get("credentials", "")),
        collections=collections,
        options={start: _options(each, file, start) for start, each in _mapping(content, "options", file, "").items()},
    )


def _collection(content: Any, file: str, path: str) -> CollectionProfile:
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: {path} is not a mapping", "write sensor and bands under it")
    _known(content, _COLLECTION, file, path)
    sensor = _chosen(content.get("sensor"), SENSORS, file, f"{path}.sensor")
    bands = _mapping(content, "bands", file, path)
    names = [band.name for band in SENSORS[sensor].bands]
    common = {key: content[key] for key in ("nodata", "scale") if key in content}
    for band in bands:
        _chosen(band, names, file, f"{path}.bands")
    distrust = tuple(content.get("distrust") or ())
    for fields in distrust:
        _chosen(fields, _DISTRUST, file, f"{path}.distrust")
    return CollectionProfile(
        sensor=sensor,
        bands={str(band): _published(each, common, file, f"{path}.bands.{band}") for band, each in bands.items()},
        offset=_chosen(content.get("offset", ""), OFFSET_POLICIES, file, f"{path}.offset"),
        level=_chosen(content.get("level", ""), ("", "surface", "toa"), file, f"{path}.level"),
        distrust=distrust,
        hrefs={str(old): str(new) for old, new in _mapping(content, "hrefs", file, path).items()},
        alternate=str(content.get("alternate", "")),
    )


def _published(content: Any, common: Mapping[str, Any], file: str, path: str) -> tuple[Published, ...]:
    """One way or several: an asset's key, or a mapping."""
    choices = content if isinstance(content, list) else [content]
    found = []
    for choice in choices:
        given = choice if isinstance(choice, dict) else {"asset": choice}
        _known(given, _BAND, file, path)
        if not isinstance(given.get("asset"), str):
            raise ConfigError(f"{file}: {path} names no asset", "write the asset's key, such as red: B04")
        merged = {**common, **given}
        if "dtype" in merged:
            _chosen(merged["dtype"], _DTYPES, file, f"{path}.dtype")
        numbers = {
            key: _number(merged[key], file, f"{path}.{key}") for key in ("nodata", "scale", "offset") & merged.keys()
        }
        found.append(
            Published(str(merged["asset"]), str(merged.get("inner", "")), dtype=merged.get("dtype"), **numbers)
        )
    return tuple(found)


def _signing(content: Any, file: str) -> str:
    if not content:
        return ""
    if isinstance(content, dict):
        _known(content, ("parameter", "environment", "bearer"), file, "signing")
        if set(content) == {"bearer"}:
            return f"bearer:${content['bearer']}"
        if set(content) != {"parameter", "environment"}:
            raise ConfigError(f"{file}: signing needs parameter and environment, or bearer", "name them")
        return f"query:{content['parameter']}=${content['environment']}"
    return _chosen(content, ("planetary-computer",), file, "signing")


def _options(content: Any, file: str, start: str) -> tuple[tuple[str, str], ...]:
    path = f"options.{start}"
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: {path} is not a mapping", "write GDAL's options under it")
    _known(content, _OPTIONS, file, path)
    return tuple(sorted((str(name), str(value)) for name, value in content.items()))


def _mapping(content: Mapping[str, Any], key: str, file: str, path: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: {'.'.join(filter(None, (path, key)))} is not a mapping", "write keys under it")
    return value


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
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{file}: {path}: {value!r} is not a number", "write a number, or .nan") from None
