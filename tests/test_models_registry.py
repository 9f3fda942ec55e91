"""A model folder is read whole or refused, and its MLM item carries all that is needed to run it."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stac_model.schema import MLModelProperties

from glaciercube.errors import ModelError
from glaciercube.models import Contract, Modality, list_models, load_model, save_model
from glaciercube.models.base import Model
from glaciercube.models.fusion_unet import fusion_contract
from glaciercube.models.registry import build_module

CONTRACTS = [*list_models(), fusion_contract()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with random weights."""
    torch.manual_seed(7)
    contract = fusion_contract(widths=(8, 8))
    return save_model(Model.from_module(contract, build_module(contract)), tmp_path / "model")


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: c.name)
def test_contract_survives_the_mlm_item(contract: Contract) -> None:
    item = json.loads(json.dumps(contract.to_mlm(content_hash="ab" * 32)))
    assert Contract.from_mlm(item) == contract
    assert MLModelProperties(**item["properties"]).name == contract.name
    assert item["geometry"] is None
    assert "bbox" not in item


def test_every_field_of_the_contract_changes_its_fingerprint() -> None:
    contract = fusion_contract()
    changed = [
        dataclasses.replace(contract, receptive_field=1),
        dataclasses.replace(contract, parameters={**contract.parameters, "temperature": 2.0}),
        dataclasses.replace(contract, modalities=contract.modalities[:-1]),
        dataclasses.replace(contract, reflectance="toa"),
    ]
    assert len({c.fingerprint for c in [contract, *changed]}) == 5


def test_band_ratio_wants_top_of_atmosphere() -> None:
    assert load_model("band-ratio").contract.reflectance == "toa"


def test_select_names_what_is_missing_and_the_remedy() -> None:
    with pytest.raises(ModelError, match=r"needs swir16 .*load the sensor") as caught:
        load_model("band-ratio").contract.select(["blue", "red"])
    assert caught.value.kind == "model"
    with pytest.raises(ModelError, match="none of the inputs"):
        fusion_contract().select(["hillshade", "blue", "vv_db"])


def test_select_takes_whole_modalities_only() -> None:
    have = ["vv_db", "vh_db", "slope", "aspect_sin", "aspect_cos", "curvature", "hillshade", "blue", "red"]
    assert [m.name for m in fusion_contract().select(have)] == ["illumination", "radar", "terrain"]


def test_listing_models_loads_no_torch() -> None:
    code = "import sys; from glaciercube.models import list_models; list_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_saved_folder_gives_the_same_model_once_per_process(folder: Path) -> None:
    model = load_model(folder)
    assert load_model(str(folder)) is model
    assert pickle.loads(pickle.dumps(model)) is model  # noqa: S301
    assert len(pickle.dumps(model)) < 500
    block = {"radar": torch.linspace(-20, 0, 2 * 2 * 16 * 16).reshape(2, 2, 16, 16)}
    assert model.predict(block, {}).shape == (2, 16, 16)


def test_a_model_of_this_process_alone_is_not_sent_elsewhere() -> None:
    contract = fusion_contract(widths=(8, 8))
    with pytest.raises(ModelError, match="save_model"):
        pickle.dumps(Model.from_module(contract, build_module(contract)))


def test_changed_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    weights["head.bias"] = weights["head.bias"] + 1e-3
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(ModelError, match="hash"):
        load_model(folder)


def test_a_test_vector_that_fails_is_refused(folder: Path) -> None:
    vector = load_file(folder / "test_vector.safetensors")
    vector["radar/output"] = vector["radar/output"] + 0.01
    save_file(vector, folder / "test_vector.safetensors")
    with pytest.raises(ModelError, match="test case 'radar'"):
        load_model(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(folder)


@pytest.mark.parametrize("content", ["[]", "5", '{"properties": []}', '{"properties": null}'])
def test_an_item_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "model.json").write_text(content)
    with pytest.raises(ModelError, match=r"the MLM item .*: write model folders with"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("band-ration", {}, "did you mean 'band-ratio'"),
        ("band-ratio", {"treshold": 2.0}, "did you mean 'threshold'"),
        ("band-ratio", {"threshold": "high"}, "give a number"),
        ("ndsi", {"softness": 0}, "above zero"),
        ("identity", {"variable": "albedo"}, "cannot return 'albedo'"),
        ("model.pt", {}, r"pickle.*safetensors"),
        ("no/such/folder", {}, "no model folder"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(name, **parameters)


def test_a_trained_model_takes_no_parameters(folder: Path) -> None:
    with pytest.raises(ModelError, match="takes no parameter 'threshold'"):
        load_model(folder, threshold=2.8)


def test_a_normalisation_that_cannot_be_applied_is_refused() -> None:
    with pytest.raises(ModelError, match="one mean and one standard deviation"):
        Modality("radar", ("vv_db", "vh_db"), mean=(0.0,))
    with pytest.raises(ModelError, match="above zero"):
        Modality("radar", ("vv_db",), mean=(0.0,), std=(0.0,))


def test_a_written_model_is_readable_by_workers_of_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        folder = save_model(load_model("fusion-unet"), tmp_path / "mine")
    finally:
        os.umask(before)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
