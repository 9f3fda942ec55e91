"""Configurations as they are written: YAML, its short spellings, and errors that name the line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml

from glaciercube.config.job import Config
from glaciercube.errors import ConfigError
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
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is not a mapping", "write keys such as region, catalog and time")
    content = _expanded(content)
    _check_keys(kind, content, (), node, name)
    layers = content.get("layers")
    for layer, options in layers.items() if isinstance(layers, dict) else ():
        # What is not even of the right kind is told below.
        with _at_line(name, node, ("layers", layer)), contextlib.suppress(pydantic.ValidationError):
            Layer(layer, pydantic.TypeAdapter(LayerOptions).validate_python(options))
    try:
        config = pydantic.TypeAdapter(kind).validate_python(content)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.problem}", error.remedy) from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = tuple(first["loc"])
        raise ConfigError(
            f"{name} line {_line(node, path)}: {'.'.join(map(str, path))}: {first['msg']}", _remedy(first["type"])
        ) from error
    for sensor in getattr(config, "sensors", ()):
        with _at_line(name, node, ("sensors", sensor)):
            get_sensor(sensor)
    return config


@contextlib.contextmanager
def _at_line(name: str, node: Any, path: tuple[Any, ...]) -> Iterator[None]:
    """Errors of rooms that know no files, with the line of what they are about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name} line {_line(node, path)}: {error.problem}", error.remedy) from None


def _expanded(content: dict[str, Any]) -> dict[str, Any]:
    """Short spellings into long ones."""
    out = dict(content)
    sensors = out.get("sensors")
    if isinstance(sensors, list):
        out["sensors"] = {str(sensor): {} for sensor in sensors}
    elif isinstance(sensors, dict):
        out["sensors"] = {sensor: options or {} for sensor, options in sensors.items()}
    layers = out.get("layers")
    if isinstance(layers, dict):
        out["layers"] = {str(layer): _layer(options or {}) for layer, options in layers.items()}
    for key, first in (("compose", "every"), ("store", "path"), ("model", "name"), ("cluster", "kind")):
        if isinstance(out.get(key), str):
            out[key] = {first: out[key]}
    catalog = out.get("catalog")
    if isinstance(catalog, dict) and set(catalog) == {"profile"}:
        out["catalog"] = catalog["profile"]
    model = out.get("model")
    if isinstance(model, dict) and "parameters" not in model:
        rest = {key: value for key, value in model.items() if key != "name"}
        out["model"] = {**{key: model[key] for key in ("name",) if key in model}, "parameters": rest}
    if "time" in out and not isinstance(out["time"], str):
        # YAML reads 2024 as a number and 2024-07-01 as a date.
        out["time"] = str(out["time"])
    return out


def _layer(options: Any) -> Any:
    if isinstance(options, dict) and isinstance(options.get("unit"), int | float):
        # The unit of a share is 1, and YAML reads a number.
        return {**options, "unit": f"{options['unit']:g}"}
    return options


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
                f"{name} line {_line(node, (*path, key))}: unknown key {'.'.join(map(str, (*path, key)))!r}",
                f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(hints)}",
            )
        _check_keys(_inner(hints[key]), value, (*path, key), node, name)


def _inner(kind: Any) -> Any:
    """The type within ``X | None``."""
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def _line(node: Any, path: tuple[Any, ...]) -> int:
    """Line of the deepest part of a path that the YAML spells out."""
    line = node.start_mark.line + 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            items = {item.value: item for item in node.value if isinstance(item, yaml.ScalarNode)}
            position = step if isinstance(step, int) and step < len(node.value) else None
            chosen = node.value[position] if position is not None else items.get(str(step))
            if chosen is None:
                break
            node = chosen
            line = node.start_mark.line + 1
        else:
            break
    return int(line)


def _remedy(kind: str) -> str:
    if kind == "missing":
        return "add it"
    if kind.startswith("literal"):
        return "choose one of those"
    return "write a value of that kind"
