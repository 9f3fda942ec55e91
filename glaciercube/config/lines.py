"""Where in a configuration it was written what was refused."""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from glaciercube.config.spellings import inner
from glaciercube.errors import ConfigError, GlaciercubeError

__all__ = ["at_line", "line_of", "refused_part"]


@contextlib.contextmanager
def at_line(name: str, node: Any, path: tuple[Any, ...]) -> Iterator[None]:
    """Errors of rooms that know no files, with the line of what they are about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name} line {line_of(node, path)}: {error.problem}", error.remedy) from None


def line_of(node: Any, path: tuple[Any, ...]) -> int:
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


def refused_part(kind: Any, content: Any, problem: str) -> tuple[Any, ...]:
    """The part of a configuration that its own checks refuse.

    Parameters
    ----------
    kind : type
        Dataclass, or mapping of them, that the content describes.
    content : object
        What is refused.
    problem : str
        Why.

    Returns
    -------
    tuple of (str or int)
        Keys that lead to it; empty where it is no part of it but the whole.
    """
    for key, part in _parts(kind, content):
        if _problem(part, content[key]) == problem:
            return (key, *refused_part(part, content[key], problem))
    if not dataclasses.is_dataclass(kind):
        return ()
    # A key that is refused by itself, or without which nothing is.
    alone = [key for key in content if _problem(kind, {key: content[key]}) == problem]
    if len(alone) == 1 and _problem(kind, {}) != problem:
        return (alone[0],)
    rest = ({other: content[other] for other in content if other != key} for key in content)
    return next(((key,) for key, left in zip(content, rest, strict=True) if _problem(kind, left) is None), ())


def _parts(kind: Any, content: Any) -> list[tuple[Any, Any]]:
    """Keys of what is checked by itself, and its type."""
    if not isinstance(content, Mapping):
        return []
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        found = [(key, inner(hints[key])) for key in content if key in hints]
    elif typing.get_origin(kind) is dict:
        found = [(key, inner(typing.get_args(kind)[1])) for key in content]
    else:
        return []
    return [(key, part) for key, part in found if dataclasses.is_dataclass(part) or typing.get_origin(part) is dict]


def _problem(kind: Any, content: Any) -> str | None:
    """What a part's own checks say of it; empty if it is not even of the right kind, None if it is fine."""
    import pydantic

    try:
        pydantic.TypeAdapter(kind).validate_python(content)
    except GlaciercubeError as error:
        return error.problem
    except pydantic.ValidationError:
        return ""
    return None
