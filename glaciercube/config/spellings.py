"""What people write for short, and what YAML makes of it, as the fields of a configuration take it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import types
import typing
from typing import Any

import yaml

__all__ = ["as_fields", "expanded", "inner"]


def expanded(content: dict[str, Any]) -> dict[str, Any]:
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
    return out


def as_fields(kind: Any, value: Any, node: Any) -> Any:
    """Values as their fields take them.

    A date or a number is text where the field is text, as it was written (``1.10`` stays so), and one text is a list
    where the field is a list of texts.

    Parameters
    ----------
    kind : type
        Of the field.
    value : object
        What YAML made of it.
    node : yaml.Node or None
        What was written, where that is known.
    """
    kind = inner(kind)
    if kind is str:
        return _text(value, node)
    if isinstance(value, dict):
        return _mapping(kind, value, node)
    many = _items_of(kind)
    if many is str and not isinstance(value, bool) and isinstance(value, str | int | float | dt.date):
        return [_text(value, node)]
    if many is not None and isinstance(value, list):
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [None] * len(value)
        return [as_fields(many, each, at) for each, at in zip(value, nodes, strict=True)]
    return value


def inner(kind: Any) -> Any:
    """The type within ``X | None``; others as they are."""
    if isinstance(kind, types.UnionType):
        parts = [part for part in typing.get_args(kind) if part is not type(None)]
        return parts[0] if len(parts) == 1 else kind
    return kind


def _mapping(kind: Any, value: dict[Any, Any], node: Any) -> dict[Any, Any]:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return {key: as_fields(hints.get(key), part, _under(node, key)) for key, part in value.items()}
    if typing.get_origin(kind) is dict:
        _, part_kind = typing.get_args(kind)
        return {_text(key, None): as_fields(part_kind, part, _under(node, key)) for key, part in value.items()}
    return value


def _text(value: Any, node: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | dt.date):
        return value
    return node.value if isinstance(node, yaml.ScalarNode) else str(value)


def _items_of(kind: Any) -> Any:
    """Type of the items of a list of any length; None of anything else."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        return arguments[0]
    return arguments[0] if typing.get_origin(kind) is tuple and arguments[-1] is Ellipsis else None


def _under(node: Any, key: Any) -> Any:
    """Node of a mapping's key, where it is spelt out."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((part for name, part in pairs if name.value == str(key)), None)


def _layer(options: Any) -> Any:
    if isinstance(options, dict) and isinstance(options.get("unit"), int | float):
        # The unit of a share is 1, and YAML reads a number.
        return {**options, "unit": f"{options['unit']:g}"}
    return options
