"""Find, check, load and save models. Weights are safetensors or an exported program: nothing is ever unpickled."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from glaciercube.errors import ModelError
from glaciercube.models.builtin import ITEM, SHIPPED, builtin_contract, builtin_names, read_contract
from glaciercube.models.contract import Contract, Parameter
from glaciercube.models.mlm import item_hash

if TYPE_CHECKING:
    from torch import Tensor

    from glaciercube.models.base import GlacierModule, Model

__all__ = [
    "ARCHITECTURES",
    "PackedModel",
    "build_module",
    "keep_packed",
    "list_models",
    "load_again",
    "load_model",
    "own_models",
    "pack_model",
    "save_model",
    "unpack_model",
]

#: Where each architecture's class stands; imported when it is first needed.
ARCHITECTURES: Mapping[str, str] = {
    "band-ratio": "glaciercube.models.spectral:BandRatio",
    "ndsi": "glaciercube.models.spectral:SnowIndex",
    "identity": "glaciercube.models.spectral:Identity",
    "fusion-unet": "glaciercube.models.fusion_unet:FusionUNet",
    "fusion-unet-time": "glaciercube.models.architectures.fusion_unet_time:FusionUNetTime",
    "unet-resnet": "glaciercube.models.architectures.unet_resnet:UNetResNet",
    "glaciernet": "glaciercube.models.architectures.glaciernet:GlacierNet",
    "deeplab": "glaciercube.models.architectures.deeplab:DeepLab",
    "glavitu": "glaciercube.models.architectures.glavitu:GlaViTU",
    "icemapper": "glaciercube.models.architectures.icemapper:IceMapper",
    "segformer": "glaciercube.models.architectures.segformer:SegFormer",
    "hed-unet": "glaciercube.models.architectures.hed_unet:HEDUNet",
    "front-unet": "glaciercube.models.architectures.front_unet:FrontUNet",
    "hooknet": "glaciercube.models.architectures.hooknet:HookNet",
    "ensemble": "glaciercube.models.ensemble:Ensemble",
    "mc-dropout": "glaciercube.models.dropout:Dropout",
    "views": "glaciercube.models.views:Views",
}
WEIGHTS, PROGRAM, VECTOR, CARD = "weights.safetensors", "program.pt2", "test_vector.safetensors", "README.md"
#: Architecture of models that are an exported program, see `glaciercube.models.program`.
EXPORTED = "torch-export"
#: Largest difference of probability from the stored output that a load may show; convolutions sum in
#: different orders on different processors.
VECTOR_TOLERANCE = 2e-3
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".h5", ".joblib")

_LOADED: dict[str, Model] = {}
_LOCK = threading.Lock()
# Packed models that were sent to this process, by hash; loaded when they are first needed.
_SENT: dict[str, PackedModel] = {}
_UNPACKING = threading.Lock()


def list_models() -> list[Contract]:
    """Contracts of the models that come with the package, with their default parameters; loads no torch."""
    return [builtin_contract(name, {}) for name in builtin_names()]


def load_model(name: str | Path, **parameters: Parameter) -> Model:
    """Load a model: once per process, however often it is asked for.

    Parameters
    ----------
    name : str or Path
        ``band-ratio``, ``ndsi``, ``identity``, ``fusion-unet``, or the path of a model folder: ``model.json`` (the MLM
        item), ``test_vector.safetensors``, and either ``weights.safetensors`` of an architecture that this version has
        or ``program.pt2`` as `torch.export.save` writes it.
    **parameters
        Parameters of a rule, such as ``threshold=2.8, blue=0.15`` of ``band-ratio``.

    Returns
    -------
    Model
        On the CPU; see `Model.to`.

    Raises
    ------
    ModelError
        If the name or a parameter is unknown, the file is a pickle, or weights, hash or test vector do not agree.
    """
    folder = _folder_of(name)
    source = (str(name), tuple(sorted(parameters.items())))
    with _LOCK:
        if folder is not None:
            return _load_folder(folder, source)
        contract = builtin_contract(str(name), parameters)
        if contract.fingerprint not in _LOADED:
            from glaciercube.models.base import Model

            _LOADED[contract.fingerprint] = Model.from_module(contract, build_module(contract), source)
        return _LOADED[contract.fingerprint]


def load_again(name: str, parameters: tuple[tuple[str, Parameter], ...], content_hash: str) -> Model:
    """Load in another process what was loaded in this one: by its hash, where it was sent, or else by its name.

    Raises
    ------
    ModelError
        If what stands there now has another content hash.
    """
    sent = _SENT.get(content_hash)
    return _load_as(name, parameters, content_hash) if sent is None else unpack_model(sent)


def _load_as(name: str, parameters: tuple[tuple[str, Parameter], ...], content_hash: str) -> Model:
    model = load_model(name, **dict(parameters))
    if model.hash != content_hash:
        raise ModelError(
            f"model {name!r} has the content hash {model.hash[:12]} here and {content_hash[:12]} where it was sent",
            "use one version of glaciercube and of the model folder on all machines",
        )
    return model


@dataclass(frozen=True)
class PackedModel:
    """A model on its way to other processes: sent once to each, and known there by its hash.

    Attributes
    ----------
    hash : str
        Content hash.
    source : tuple or None
        Name and parameters of a model that comes with the package.
    files : mapping
        Name -> bytes of a model folder's files; empty for what comes with the package.
    """

    hash: str
    source: tuple[str, tuple[tuple[str, Any], ...]] | None
    files: Mapping[str, bytes] = field(repr=False)


def pack_model(model: Model) -> PackedModel:
    """Pack a model for `unpack_model` on a machine that need not have its folder."""
    if model.source is not None and model.source[0] in builtin_names():
        return PackedModel(model.hash, model.source, {})
    with TemporaryDirectory(prefix="glaciercube-") as folder:
        save_model(model, folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != CARD}
    return PackedModel(model.hash, None, files)


def unpack_model(packed: PackedModel) -> Model:
    """Load a packed model: once per process, whatever number of runs sends it.

    Raises
    ------
    ModelError
        If what was loaded has another content hash, or does not give its test vector.
    """
    # Many tasks may ask at once, and one loads.
    with _UNPACKING:
        if packed.hash in _LOADED:
            return _LOADED[packed.hash]
        if packed.source is not None:
            return _load_as(*packed.source, packed.hash)
        with TemporaryDirectory(prefix="glaciercube-") as folder:
            for name, data in packed.files.items():
                (Path(folder) / name).write_bytes(data)
            return _load_as(folder, (), packed.hash)


def keep_packed(packed: PackedModel) -> None:
    """Keep a model that was sent here for `load_again`."""
    _SENT[packed.hash] = packed


def own_models() -> list[Model]:
    """The models that this process loaded from folders of the user's."""
    with _LOCK:
        loaded = {model.hash: model for model in _LOADED.values()}
    return [model for model in loaded.values() if model.source is not None and model.source[0] not in builtin_names()]


def build_module(contract: Contract) -> GlacierModule:
    """Build the module that a contract names, with untrained weights.

    Raises
    ------
    ModelError
        If this version has no such architecture.
    """
    if contract.architecture not in ARCHITECTURES:
        raise ModelError(
            f"model {contract.name!r} has the architecture {contract.architecture!r}, which is unknown here",
            f"use a version of glaciercube that has it; this one has {', '.join(ARCHITECTURES)}",
        )
    module, _, attribute = ARCHITECTURES[contract.architecture].partition(":")
    built: GlacierModule = getattr(importlib.import_module(module), attribute)(contract)
    return built


def save_model(model: Model, folder: str | Path, *, card: str = "") -> Path:
    """Write a model folder: MLM item, weights, test vector and model card.

    Parameters
    ----------
    model : Model
        What to write.
    folder : str or Path
        Made if absent; files of the same names are replaced.
    card : str, optional
        Text of the model card in Markdown; by default the contract's description.

    Returns
    -------
    Path
        The folder.
    """
    from glaciercube.models.vector import make_vector

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if model.contract.architecture == EXPORTED:
        (target / PROGRAM).write_bytes(model.module.data)  # type: ignore[arg-type]
    else:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.module.state_dict().items()}
        _write_tensors(weights, target / WEIGHTS)
    _write_tensors(make_vector(model), target / VECTOR)
    count = model.module.parameter_count
    item = model.contract.to_mlm(content_hash=model.hash, total_parameters=count)
    (target / ITEM).write_text(json.dumps(item, indent=2) + "\n", encoding="utf-8")
    text = card or f"# {model.contract.name}\n\n{model.contract.description}\n"
    (target / CARD).write_text(text, encoding="utf-8")
    return target


def _write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save

    # Not save_file, whose files nobody but their owner may read: workers may be others.
    path.write_bytes(save(dict(tensors)))


def _folder_of(name: str | Path) -> Path | None:
    """Folder that a name stands for, or None for a rule."""
    text = str(name)
    if isinstance(name, str) and text in builtin_names():
        return SHIPPED.get(text)
    path = Path(name).expanduser()
    if path.suffix.lower() in _PICKLES:
        raise ModelError(
            f"{path} can hold a pickle, which runs code when it is opened",
            "build the module yourself, load the file there, and write a model folder with save_model (safetensors)",
        )
    if path.suffix == ".pt2" and path.name != PROGRAM:
        raise ModelError(
            f"{path} is a program without a contract",
            "say what it takes and gives with glaciercube.models.program.import_program, and write its folder with "
            "save_model",
        )
    if path.name in (WEIGHTS, ITEM, PROGRAM):
        path = path.parent
    if path.is_dir():
        return path
    if isinstance(name, Path) or "/" in text or "\\" in text:
        raise ModelError(f"there is no model folder {path}", "give the folder that holds model.json")
    return None


def _load_folder(folder: Path, source: tuple[str, tuple[tuple[str, Any], ...]]) -> Model:
    if source[1]:
        raise ModelError(
            f"the trained model in {folder} takes no parameter {source[1][0][0]!r}",
            "leave it out; thresholds are for rules such as band-ratio",
        )
    stamp = _stamp(folder)
    if stamp in _LOADED:
        return _LOADED[stamp]
    contract = read_contract(folder)
    stated = item_hash(json.loads((folder / ITEM).read_text(encoding="utf-8")))

    from glaciercube.models.base import Model
    from glaciercube.models.vector import check_vector

    _refuse_pickles(folder, contract)
    if contract.architecture == EXPORTED:
        from glaciercube.models.program import import_program

        module = import_program(folder / PROGRAM, contract).module
    else:
        module = build_module(contract)
        _fill(module, _read_tensors(folder / WEIGHTS), folder)
    model = Model.from_module(contract, module, source if folder in SHIPPED.values() else (str(folder.resolve()), ()))
    # An item that was not written here need not state it: then the test vector alone speaks for the weights.
    if stated is not None and model.hash != stated:
        raise ModelError(
            f"weights and contract in {folder} hash to {model.hash[:12]}, but the item states {str(stated)[:12]}",
            "one of the files was changed or is incomplete: get the folder again, or write it anew with save_model",
        )
    check_vector(model, _read_tensors(folder / VECTOR), VECTOR_TOLERANCE)
    # The same content in two folders is one model in memory.
    _LOADED[stamp] = _LOADED.setdefault(model.hash, model)
    return _LOADED[stamp]


def _stamp(folder: Path) -> str:
    """Say which files a model was loaded from: a folder written anew is read anew."""
    files = [folder / name for name in (ITEM, WEIGHTS, PROGRAM, VECTOR)]
    stats = [path.stat() for path in files if path.is_file()]
    return "|".join([str(folder.resolve()), *(f"{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}" for stat in stats)])


def _refuse_pickles(folder: Path, contract: Contract) -> None:
    """Say what is to be done where a folder holds pickled weights instead of those that are read."""
    wanted = PROGRAM if contract.architecture == EXPORTED else WEIGHTS
    if (folder / wanted).is_file():
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _PICKLES)
    if pickles:
        raise ModelError(
            f"{folder} holds {pickles[0]} and no {wanted}: it can hold a pickle, which runs code when it is opened",
            "load it where you trust it, with torch.load(..., weights_only=True), and write the tensors with "
            f"safetensors.torch.save_file as {wanted}",
        )
    raise ModelError(f"{folder} holds no {wanted}", "get the model folder again, or write it with save_model")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read as safetensors ({error})", "get the model folder again, or write it with save_model"
        ) from error
    return tensors


def _fill(module: GlacierModule, weights: Mapping[str, Tensor], folder: Path) -> None:
    try:
        module.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"the weights in {folder} do not fit their architecture ({str(error).splitlines()[0]})",
            "use the weights that belong to this model.json",
        ) from error
