"""The contract as a STAC item with the machine-learning-model extension (MLM 1.6), and back.

What the extension has a field for stands in that field; the rest stands beside it under ``glaciercube:``.
Specification: https://github.com/stac-extensions/mlm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from glaciercube.errors import ModelError
from glaciercube.models.classes import CLASSES, PRESENCE, Output
from glaciercube.models.contract import Contract, Modality
from glaciercube.models.reach import time_context_of, windows_of

__all__ = ["MLM_SCHEMA", "contract_from_item", "contract_to_item", "item_hash"]

MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.6.0/schema.json"
_PLAIN = ("receptive_field", "stride", "reflectance")
_REMEDY = "write model folders with glaciercube.models.registry.save_model"


def contract_to_item(
    contract: Contract, *, content_hash: str | None = None, total_parameters: int | None = None
) -> dict[str, Any]:
    """Write a contract as a STAC item.

    Parameters
    ----------
    contract : Contract
        What to write.
    content_hash : str, optional
        Sha256 over weights and contract, checked when the model is loaded.
    total_parameters : int, optional
        Number of trained weights.

    Returns
    -------
    dict
        JSON-ready. The geometry is null: a model has no place of its own.
    """
    properties: dict[str, Any] = {
        "title": contract.name,
        "description": contract.description,
        "license": contract.licence,
        "version": contract.version,
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "mlm:name": contract.name,
        "mlm:architecture": contract.architecture,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "pytorch",
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:pretrained": total_parameters is not None and total_parameters > 0,
        "mlm:total_parameters": total_parameters or 0,
        "mlm:hyperparameters": {"model": _listed(contract.parameters)},
        "mlm:input": [_input(modality) for modality in contract.modalities],
        "mlm:output": [_output(output, contract.classes) for output in contract.outputs],
        "glaciercube:resolution": list(contract.resolution),
        "glaciercube:references": list(contract.references),
    }
    properties |= {f"glaciercube:{name}": getattr(contract, name) for name in _PLAIN}
    for name, reach in (("windows", contract.windows), ("time_context", contract.time_context)):
        if reach is not None:
            properties[f"glaciercube:{name}"] = asdict(reach)
    if content_hash is not None:
        properties["glaciercube:hash"] = content_hash
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA],
        "id": f"{contract.name}-{contract.version}",
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": _assets(contract),
    }


def contract_from_item(item: Mapping[str, Any]) -> Contract:
    """Read the contract from a STAC item written by `contract_to_item`, or by hand to the same fields.

    Raises
    ------
    ModelError
        If a field that is needed to run the model is missing or malformed.
    """
    if not isinstance(item, Mapping):
        raise ModelError(f"the MLM item is no mapping but a {type(item).__name__}", _REMEDY)
    try:
        found = item["properties"]
        plain = {name: found[f"glaciercube:{name}"] for name in _PLAIN}
        return Contract(
            name=found["mlm:name"],
            version=found["version"],
            architecture=found["mlm:architecture"],
            modalities=tuple(_modality(entry) for entry in found["mlm:input"]),
            parameters=_tupled(found["mlm:hyperparameters"]["model"]),
            resolution=(float(found["glaciercube:resolution"][0]), float(found["glaciercube:resolution"][1])),
            windows=windows_of(found.get("glaciercube:windows")),
            time_context=time_context_of(found.get("glaciercube:time_context")),
            classes=_classes(found["mlm:output"][0]),
            outputs=tuple(
                Output(entry["name"], tuple(entry.get("glaciercube:classes", PRESENCE[1:])))
                for entry in found["mlm:output"]
            ),
            description=found.get("description", ""),
            references=tuple(found.get("glaciercube:references", ())),
            licence=found.get("license", "other"),
            **plain,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ModelError(
            f"the MLM item {item.get('id', '?')!r} lacks or misstates a field ({error})", _REMEDY
        ) from error


def item_hash(item: Mapping[str, Any]) -> str | None:
    """Content hash that the item states, or None."""
    value = item.get("properties", {}).get("glaciercube:hash")
    return None if value is None else str(value)


def _input(modality: Modality) -> dict[str, Any]:
    dims = ["channel", "height", "width"] if modality.static else ["time", "channel", "height", "width"]
    shape = [len(modality.variables) if dim == "channel" else -1 for dim in dims]
    return {
        "name": modality.name,
        "bands": [],
        "variables": list(modality.variables),
        "input": {"shape": shape, "dim_order": dims, "data_type": "float32"},
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": std}
            for mean, std in zip(modality.mean, modality.std, strict=True)
        ],
        "pre_processing_function": None,
        "glaciercube:required": modality.required,
        "glaciercube:static": modality.static,
        "glaciercube:clip": None if modality.clip is None else list(modality.clip),
        "glaciercube:evidence": modality.evidence,
    }


def _modality(entry: Mapping[str, Any]) -> Modality:
    clip = entry["glaciercube:clip"]
    return Modality(
        name=entry["name"],
        variables=tuple(entry["variables"]),
        required=bool(entry["glaciercube:required"]),
        static=bool(entry["glaciercube:static"]),
        mean=tuple(scaling["mean"] for scaling in entry["value_scaling"]),
        std=tuple(scaling["stddev"] for scaling in entry["value_scaling"]),
        clip=None if clip is None else (float(clip[0]), float(clip[1])),
        evidence=bool(entry["glaciercube:evidence"]),
    )


def _output(output: Output, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": output.name,
        "bands": [],
        "variables": [output.name],
        "tasks": ["semantic-segmentation"],
        "result": {"shape": [-1, -1, -1], "dim_order": ["time", "height", "width"], "data_type": "float32"},
        "classification:classes": [
            {"value": value, "name": name, "description": CLASSES.get(name, name.replace("_", " "))}
            for value, name in enumerate(classes)
        ],
        "post_processing_function": None,
        "glaciercube:classes": list(output.classes),
    }


def _classes(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes, in the model's order."""
    found = sorted(entry["classification:classes"], key=lambda each: int(each["value"]))
    return tuple(str(each["name"]) for each in found)


def _assets(contract: Contract) -> dict[str, Any]:
    weights = {
        "href": "weights.safetensors",
        "title": "Weights",
        "type": "application/octet-stream; framework=safetensors",
        "roles": ["mlm:model", "mlm:weights", "data"],
        "mlm:artifact_type": "safetensors.torch.save_file",
    }
    program = {
        "href": "program.pt2",
        "title": "Exported program",
        "type": "application/zip; application=pytorch",
        "roles": ["mlm:model", "mlm:weights", "data"],
        "mlm:artifact_type": "torch.export.save",
    }
    return {
        "weights": program if contract.architecture == "torch-export" else weights,
        "test_vector": {
            "href": "test_vector.safetensors",
            "title": "Inputs and the outputs that they must give",
            "type": "application/octet-stream; framework=safetensors",
            "roles": ["metadata"],
        },
        "card": {"href": "README.md", "title": "Model card", "type": "text/markdown", "roles": ["metadata"]},
    }


def _listed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}


def _tupled(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
