"""Configurations as they are written: YAML, and errors that name the line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml

from glaciercube.config.job import Config
from glaciercube.config.lines import at_line, line_of, refused_part
from glaciercube.config.spellings import as_fields, expanded, inner
from glaciercube.errors import ConfigError, GlaciercubeError
from glaciercube.sensors import Layer, LayerOptions, get_sensor

__all__ = ["load_config", "parse_config"]

Kind = TypeVar("Kind")


@overload
def load_config(path: str | Path) -> Config: ...


@overload
def load_config(path: str | Path, kind: type[Kind]) -> Kind: ...


def load_config(path: str | Path, kind: Any = Config) -> Any:
    """Read a configuration file.

    Parameters
    ----------
    path : path
        YAML.
    kind : type
        Dataclass that it describes; `Config` by default.

    Raises
    ------
    ConfigError
        If it cannot be read or understood; the message names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path} ({error.strerror})", "check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration {path} is not text in UTF-8", "save it as UTF-8") from error
    return parse_config(text, str(path), kind)


@overload
def parse_config(text: str, name: str = ...) -> Config: ...


@overload
def parse_config(text: str, name: str, kind: type[Kind]) -> Kind: ...


def parse_config(text: str, name: str = "configuration", kind: Any = Config) -> Any:
    """Read a configuration from YAML text.

    Parameters
    ----------
    text : str
        YAML.
    name : str
        What to call it in errors.
    kind : type
        Dataclass that it describes; `Config` by default.

    Raises
    ------
    ConfigError
        If it cannot be understood; the message names the line.
    """
    import pydantic

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name} line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigError(f"{where}: {problem}", "mend the YAML there") from error
    except ValueError as error:
        # Of a date such as 2024-02-31, whose line YAML does not tell.
        raise ConfigError(f"{name} has a date that does not exist ({error})", "mend it") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is not a mapping", "write keys such as region, catalog and time")
    content = expanded(content)
    _check_keys(kind, content, (), node, name)
    content = as_fields(kind, content, node)
    layers = content.get("layers")
    for layer, options in layers.items() if isinstance(layers, dict) else ():
        # What is not even of the right kind is told below.
        with at_line(name, node, ("layers", layer)), contextlib.suppress(pydantic.ValidationError):
            Layer(layer, pydantic.TypeAdapter(LayerOptions).validate_python(options))
    try:
        config = pydantic.TypeAdapter(kind).validate_python(content)
    except GlaciercubeError as error:
        path = refused_part(kind, content, error.problem)
        where = f"{name} line {line_of(node, path)}" if path else name
        raise ConfigError(f"{where}: {error.problem}", error.remedy) from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = tuple(first["loc"])
        raise ConfigError(
            f"{name} line {line_of(node, path)}: {'.'.join(map(str, path))}: {first['msg']}",
            _remedy(first["type"], first["input"]),
        ) from error
    for sensor in getattr(config, "sensors", ()):
        with at_line(name, node, ("sensors", sensor)):
            get_sensor(sensor)
    return config


def _check_keys(kind: Any, content: Any, path: tuple[Any, ...], node: Any, name: str) -> None:
    """Refuse keys that nothing would read, with the nearest that would be."""
    if not isinstance(content, Mapping):
        return
    if not dataclasses.is_dataclass(kind):
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) is dict and dataclasses.is_dataclass(arguments[1]):
            for key, value in content.items():
                _check_keys(arguments[1], value, (*path, key), node, name)
        return
    hints = typing.get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            raise ConfigError(
                f"{name} line {line_of(node, (*path, key))}: unknown key {'.'.join(map(str, (*path, key)))!r}",
                f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(hints)}",
            )
        _check_keys(inner(hints[key]), value, (*path, key), node, name)


def _remedy(kind: str, given: Any) -> str:
    if kind == "missing":
        return "add it"
    if kind.startswith("literal"):
        return "choose one of those"
    if kind == "string_type" and isinstance(given, bool):
        # YAML reads yes, no, on and off as true and false.
        return "write it in quotes"
    if kind in ("tuple_type", "list_type") and not isinstance(given, dict):
        return "write it in brackets"
    return "write a value of that kind"
