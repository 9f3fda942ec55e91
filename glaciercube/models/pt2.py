"""Exported programs (.pt2) read so that nothing in them runs: what is not known to be harmless is refused.

`torch.export.load` is not made for files of others. In torch 2.13 it unpickles weights and constants that say so,
custom objects, and the sample inputs (`torch.load` without ``weights_only``, for the last as a fallback); it evaluates
shapes as Python (`sympy.sympify`), executes guards as Python, and imports what a tree specification names. So an
archive is opened here as the zip that it is, and a clean copy is made of

- tensors as plain bytes,
- the graph, of which every name is an identifier, every shape an arithmetic expression, every operator one of ATen's,
- no sample inputs, no guards, no metadata, no other file,

and only that copy goes to `torch.export.load`. See https://github.com/pytorch/pytorch/pull/176791.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from glaciercube.errors import ModelError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["clean_archive", "open_program"]

_GRAPH = "models/model.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_SAMPLES = "data/sample_inputs/model.pt"
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_MARKS = ("archive_format", "archive_version", "byteorder", ".data/version", ".format_version", ".storage_alignment")
# Left out of the copy: pickled, or of no use.
_DROPPED = re.compile(r"data/sample_inputs/|extra/|\.data/serialization_id$")

_NAME = re.compile(r"[\w.]*")
_TEXT = re.compile(r"[\w .,:>+-]*")
_ATEN = re.compile(r"torch\.ops\.aten\.([a-z_]\w*)\.(\w+)")
_SCALAR = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_(max|min|not|int|float|sum|ite)"
)
# As sympy and torch write shapes. No powers: 9**9**9 would never end.
_NAMES = """
    Symbol Integer Rational Float Add Mul Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv IntTrueDiv ModularIndexing
    Eq Ne Lt Le Gt Ge StrictLessThan LessThan StrictGreaterThan GreaterThan Equality Unequality And Or Not ToFloat
    FloorToInt CeilToInt TruncToInt RoundToInt Where true false oo int_oo
"""
_FUNCTIONS = frozenset(_NAMES.split())
_SYMBOL = re.compile(r"[suz]f?\d+|u\d+")
_TREES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict"})
_FILES = frozenset({"filename", "file", "path", "f"})


def open_program(data: bytes, name: str) -> ExportedProgram:
    """Open a clean archive.

    Parameters
    ----------
    data : bytes
        From `clean_archive`.
    name : str
        Of the file, for errors.

    Raises
    ------
    ModelError
        If torch cannot read it.
    """
    import torch

    try:
        program: ExportedProgram = torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise ModelError(
            f"{name} cannot be read by torch {torch.__version__} ({type(error).__name__}: {str(error)[:200]})",
            "export the model again with this version of torch",
        ) from error
    return program


def clean_archive(path: Path) -> tuple[bytes, str]:
    """Read an exported program and leave out, or refuse, whatever could run.

    Parameters
    ----------
    path : Path
        As `torch.export.save` writes it.

    Returns
    -------
    data : bytes
        The archive anew.
    digest : str
        Sha256 (hex) over its graph and tensors.

    Raises
    ------
    ModelError
        If it is no such archive, or holds what may not be opened.
    """
    name = str(path)
    files = _files(path)
    if _GRAPH not in files:
        kind = "a pickled torch file" if any(key.endswith("data.pkl") for key in files) else "no exported program"
        _refuse(name, f"is {kind}")
    for key in files:
        if key not in (_GRAPH, _WEIGHTS, _CONSTANTS, *_MARKS) and not _TENSOR.fullmatch(key):
            _refuse(name, f"holds {key}, which is neither graph nor tensor")
    for config in (_WEIGHTS, _CONSTANTS):
        if config not in files:
            _refuse(name, f"lacks {config}: its tensors are pickled, as older versions of torch did")
        _check_payload(name, _json(name, files[config]))
    graph = _json(name, files[_GRAPH])
    files[_GRAPH] = json.dumps(_cleaned(name, graph)).encode()
    digest = hashlib.sha256()
    for key in sorted(files):
        digest.update(f"{key}|{len(files[key])}|".encode())
        digest.update(files[key])
    return _zipped(files), digest.hexdigest()


def _files(path: Path) -> dict[str, bytes]:
    """Content by name, without the folder that holds all, and without what is dropped unseen."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {
                key.partition("/")[2]: archive.read(key)
                for key in archive.namelist()
                if not _DROPPED.match(key.partition("/")[2])
            }
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read as an exported program ({error})", _REMEDY) from error
    return found


def _zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for key in sorted(files):
            # A fixed time: the same program gives the same bytes.
            archive.writestr(zipfile.ZipInfo(f"program/{key}"), files[key])
        archive.writestr(zipfile.ZipInfo(f"program/{_SAMPLES}"), b"")
    return stream.getvalue()


_REMEDY = (
    "write it with torch.export.save of torch 2.9 or newer, or build the module yourself and write a model folder with "
    "save_model (safetensors)"
)


def _refuse(name: str, what: str) -> NoReturn:
    raise ModelError(f"{name} {what}, and nothing is opened here that could run code", _REMEDY)


def _json(name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        _refuse(name, "holds text that is no JSON")


def _check_payload(name: str, config: Any) -> None:
    for key, entry in config.get("config", {}).items():
        if entry.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", str(entry.get("path_name"))):
            _refuse(name, f"keeps {key!r} pickled")
        if not _NAME.fullmatch(key):
            _refuse(name, f"names a tensor {key!r}")


def _cleaned(name: str, value: Any, key: str = "") -> Any:
    """JSON without metadata and guards, every text of it held against what may stand there."""
    if key == "metadata":
        return {}
    if key == "guards_code":
        return []
    if isinstance(value, dict):
        for inner in value:
            if not _NAME.fullmatch(inner) and not _is_expression(inner):
                _refuse(name, f"names something {inner!r}")
            if inner in ("as_graph", "as_custom_obj", "as_operator") and value[inner] is not None:
                _refuse(name, f"holds a program within the program ({inner})")
        return {inner: _cleaned(name, each, inner) for inner, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(name, each, key) for each in value]
    if isinstance(value, str) and not _harmless(key, value):
        _refuse(name, f"says {value[:80]!r} for {key!r}")
    return value


def _harmless(key: str, value: str) -> bool:
    if key == "target":
        return _is_operator(value)
    if key == "expr_str":
        return _is_expression(value)
    if key in ("in_spec", "out_spec"):
        return _is_tree(value)
    if key in ("as_float", "as_floats"):
        return value in ("Infinity", "-Infinity", "NaN")
    if key in ("as_string", "as_strings", "torch_version"):
        return _TEXT.fullmatch(value) is not None
    return _NAME.fullmatch(value) is not None


def _is_operator(target: str) -> bool:
    """Whether a target is an operator of ATen that touches no file, or arithmetic on sizes."""
    if _SCALAR.fullmatch(target):
        return True
    found = _ATEN.fullmatch(target)
    if found is None:
        return False
    import torch

    packet = getattr(torch.ops.aten, found[1], None)
    overload = getattr(packet, found[2], None)
    if not isinstance(overload, torch._ops.OpOverload):  # noqa: SLF001 - the type has no public name
        return False
    return not any(argument.name in _FILES for argument in overload._schema.arguments)  # noqa: SLF001


def _is_expression(text: str) -> bool:
    """Whether a shape is built of symbols, numbers and the functions of shapes alone."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError):
        return False
    return all(_is_part(node) for node in ast.walk(tree))


def _is_part(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or _SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Constant):
        numeric = isinstance(node.value, int | float)
        return numeric or (isinstance(node.value, str) and _SYMBOL.fullmatch(node.value) is not None)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.keyword):
        return node.arg in ("positive", "integer", "nonnegative", "real", "evaluate", "precision")
    signs = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.cmpop)
    return isinstance(node, (ast.Expression, ast.expr_context, ast.BinOp, ast.UnaryOp, ast.Compare, *signs))


def _is_tree(text: str) -> bool:
    """Whether a tree specification is of tuples, lists and dictionaries with plain keys."""
    if not text:
        return True
    try:
        protocol, tree = json.loads(text)
    except (TypeError, ValueError):
        return False
    return protocol == 1 and all(_is_node(node) for node in _nodes(tree))


def _nodes(tree: Any) -> Iterator[Any]:
    yield tree
    if isinstance(tree, dict):
        for child in tree.get("children_spec", []):
            yield from _nodes(child)


def _is_node(node: Any) -> bool:
    if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
        return False
    if node["type"] is None:
        return node["context"] is None
    try:
        context = json.loads(node["context"])
    except (TypeError, ValueError):
        return False
    plain = context is None or (
        isinstance(context, list) and all(isinstance(key, str) and _NAME.fullmatch(key) for key in context)
    )
    return node["type"] in _TREES and plain
