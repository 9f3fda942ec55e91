"""Models of others run after their test vector passes, and nothing in their files runs before."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import inputs_of, small_model
from torch import Tensor, nn

from glaciercube.errors import ModelError
from glaciercube.models import Contract, Modality, Output, Windows, load_model, save_model
from glaciercube.models.base import Model
from glaciercube.models.program import export_model, import_program
from glaciercube.models.pt2 import clean_archive
from glaciercube.models.registry import pack_model, unpack_model

OPTICAL = Modality("optical", ("red", "nir"), mean=(0.3, 0.3), std=(0.2, 0.2))
TERRAIN = Modality("terrain", ("slope",), static=True, mean=(20.0,), std=(10.0,))


def contract_of(*modalities: Modality, **other: Any) -> Contract:
    parameters = {"gives": "logit", **other.pop("parameters", {})}
    fields: dict[str, Any] = {"receptive_field": 1, **other}
    return Contract("mine", "1", "torch-export", modalities or (OPTICAL,), parameters=parameters, **fields)


class Net(nn.Module):
    """What somebody else might have trained: one stack in, logits out."""

    def __init__(self, channels: int = 2, heads: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, heads, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.conv(image)
        return found


def saved(path: Path, net: nn.Module, *sample: Tensor, **shapes: Any) -> Path:
    torch.export.save(torch.export.export(net.eval(), sample, **shapes), path)
    return path


def free() -> dict[str, Any]:
    from torch.export import Dim

    return {"dynamic_shapes": ({0: Dim("time"), 2: Dim("y"), 3: Dim("x")},)}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an attack leaves behind, MARK, is left here."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return saved(tmp_path / "mine.pt2", Net(), torch.zeros(2, 2, 8, 8), **free())


def test_a_program_of_others_runs_from_its_folder(program: Path, tmp_path: Path) -> None:
    model = import_program(program, contract_of())
    folder = save_model(model, tmp_path / "folder")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "model.json",
        "program.pt2",
        "test_vector.safetensors",
    ]
    loaded = load_model(folder)
    assert loaded.hash == model.hash
    assert pickle.loads(pickle.dumps(loaded)) is loaded  # noqa: S301
    assert unpack_model(pack_model(loaded)).hash == loaded.hash
    dynamic, _ = inputs_of(loaded.contract, 3, (19, 21))
    image = ((dynamic["optical"] - 0.3) / 0.2).nan_to_num()
    image = torch.where(dynamic["optical"].isfinite().all(dim=1, keepdim=True), image, torch.zeros(()))
    expected = torch.sigmoid(Net()(image)[:, 0]).detach()
    seen = dynamic["optical"].isfinite().all(dim=1)
    found = loaded.predict(dynamic, {})
    torch.testing.assert_close(found[seen], expected[seen])
    assert torch.equal(found.isfinite(), seen)
    item = json.loads((folder / "model.json").read_text())
    assert item["assets"]["weights"]["href"] == "program.pt2"
    assert item["properties"]["mlm:total_parameters"] == sum(p.numel() for p in Net().parameters())


def test_a_program_moves_to_a_device(program: Path) -> None:
    model = import_program(program, contract_of())
    moved = dataclasses.replace(model, module=model.module.placed(torch.device("cpu")))
    dynamic, _ = inputs_of(model.contract, 2, (9, 10))
    assert torch.equal(moved.predict(dynamic, {}).nan_to_num(), model.predict(dynamic, {}).nan_to_num())
    if torch.cuda.is_available():
        on_device = model.to("cuda").predict({"optical": dynamic["optical"].cuda()}, {}).cpu()
        torch.testing.assert_close(on_device, model.predict(dynamic, {}), rtol=0, atol=1e-4, equal_nan=True)


def test_terrain_is_stacked_for_every_date_and_masks_are_handed_on(tmp_path: Path) -> None:
    class Both(nn.Module):
        def forward(self, stack: Tensor, valid: Tensor) -> Tensor:
            return stack.sum(dim=1) * valid[:, 0]

    from torch.export import Dim

    space = {0: Dim("time"), 2: Dim("y"), 3: Dim("x")}
    path = saved(
        tmp_path / "both.pt2",
        Both(),
        torch.zeros(2, 3, 8, 8),
        torch.ones(2, 1, 8, 8, dtype=torch.bool),
        dynamic_shapes=(space, space),
    )
    contract = contract_of(OPTICAL, TERRAIN, parameters={"arguments": "optical+terrain, optical.valid"})
    model = import_program(path, contract)
    dynamic, static = inputs_of(contract, 3, (9, 10), missing=0.0)
    expected = torch.sigmoid(((dynamic["optical"] - 0.3) / 0.2).sum(dim=1) + (static["terrain"] - 20.0)[0] / 10.0)
    torch.testing.assert_close(model.predict(dynamic, static), expected)
    alone = torch.sigmoid(((dynamic["optical"] - 0.3) / 0.2).sum(dim=1))
    torch.testing.assert_close(model.predict(dynamic, {}), alone)


def test_a_program_of_a_fixed_size_and_batch_runs_in_windows(tmp_path: Path) -> None:
    path = saved(tmp_path / "fixed.pt2", Net(heads=3), torch.zeros(2, 2, 16, 16))
    zones: dict[str, Any] = {"classes": ("ocean", "land", "glacier"), "outputs": (Output(),)}
    with pytest.raises(ModelError, match=r"takes images of \(16, 16\) pixels"):
        import_program(path, contract_of(**zones))
    windows = {"receptive_field": "global", "windows": Windows(16, 8)}
    model = import_program(path, contract_of(**zones, **windows))
    dynamic, _ = inputs_of(model.contract, 5, (21, 30), missing=0.0)
    found = model.predict_classes(dynamic, {})
    assert found.shape == (5, 3, 21, 30)
    one = model.predict_classes({"optical": dynamic["optical"][4:]}, {})
    torch.testing.assert_close(found[4:], one, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"parameters": {"gives": "likes"}}, "does not say what its program returns"),
        ({"parameters": {"arguments": "optical, radar"}}, "hands its program 'radar'"),
        ({"parameters": {"arguments": "optical, optical.valid"}}, "takes 1 arguments and its contract gives 2"),
    ],
)
def test_a_contract_that_does_not_fit_is_refused(program: Path, other: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        import_program(program, contract_of(**other))


def test_an_output_that_does_not_fit_is_refused(program: Path) -> None:
    model = import_program(program, contract_of(classes=("ocean", "land", "glacier")))
    with pytest.raises(ModelError, match="returns shape"):
        model.predict({"optical": torch.zeros(1, 2, 8, 8)}, {})


def test_a_program_without_a_contract_is_refused(program: Path) -> None:
    with pytest.raises(ModelError, match=r"import_program.*save_model"):
        load_model(program)


def test_a_test_vector_that_fails_is_refused(program: Path, tmp_path: Path) -> None:
    folder = save_model(import_program(program, contract_of()), tmp_path / "folder")
    other = save_model(small_model("deeplab"), tmp_path / "other")
    (folder / "test_vector.safetensors").write_bytes((other / "test_vector.safetensors").read_bytes())
    with pytest.raises(ModelError):
        load_model(folder)


def test_weights_with_an_item_by_hand_need_no_hash_but_the_test_vector(tmp_path: Path) -> None:
    folder = save_model(small_model("deeplab"), tmp_path / "folder")
    item = json.loads((folder / "model.json").read_text())
    del item["properties"]["glaciercube:hash"]
    (folder / "model.json").write_text(json.dumps(item))
    assert load_model(folder).contract.architecture == "deeplab"
    (folder / "test_vector.safetensors").unlink()
    with pytest.raises(ModelError, match=r"test_vector\.safetensors cannot be read"):
        load_model(folder)


def test_a_folder_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    folder = save_model(small_model("deeplab"), tmp_path / "folder")
    (folder / "weights.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / "weights.pt")
    with pytest.raises(ModelError, match=r"holds weights\.pt .*safetensors\.torch\.save_file"):
        load_model(folder)
    (folder / "weights.pt").rename(folder / "weights.safetensors")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        load_model(folder)


class Bomb:
    """Says so when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """An archive with some of its files changed."""
    with zipfile.ZipFile(path) as archive:
        files = {key.partition("/")[2]: archive.read(key) for key in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for key, data in files.items():
            archive.writestr(f"a/{key}", data)
    return path


def edited(path: Path, key: str, change: Callable[[Any], None]) -> Path:
    def edit(files: dict[str, bytes]) -> None:
        content = json.loads(files[key])
        change(content)
        files[key] = json.dumps(content).encode()

    return rewritten(path, edit)


GRAPH, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def test_sample_inputs_are_never_opened(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    stream = io.BytesIO()
    torch.save(Bomb(mark), stream)
    rewritten(program, lambda files: files.__setitem__("data/sample_inputs/model.pt", stream.getvalue()))
    import_program(program, contract_of())
    assert not mark.exists()
    # It would have run: torch's own way of loading opens it.
    with pytest.raises(Exception, match=r"."):
        torch.export.load(program)
    assert mark.exists()


def test_pickled_weights_are_refused(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    def plant(files: dict[str, bytes]) -> None:
        config = json.loads(files[WEIGHTS])
        config["config"]["conv.weight"]["use_pickle"] = True
        files[WEIGHTS] = json.dumps(config).encode()
        stream = io.BytesIO()
        torch.save(Bomb(mark), stream)
        files["data/weights/weight_0"] = stream.getvalue()

    with pytest.raises(ModelError, match=r"keeps 'conv.weight' pickled.*save_model"):
        import_program(rewritten(program, plant), contract_of())
    assert not mark.exists()


def _graph(content: Any) -> Any:
    return content["graph_module"]["graph"]


def _shape(content: Any, text: str) -> None:
    _graph(content)["tensor_values"]["image"]["sizes"][0]["as_expr"]["expr_str"] = text


def _tree(content: Any, node: Any) -> None:
    signature = content["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = json.dumps([1, node])


IMPORTING = {"type": "collections.defaultdict", "context": json.dumps({}), "children_spec": []}
ENUM = {
    "type": "builtins.dict",
    "context": json.dumps([{"__enum__": True, "fqn": "os:x", "name": "y"}]),
    "children_spec": [],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: _shape(c, "__import__('pathlib').Path('MARK').touch()"), "expr_str"),
        (lambda c: _shape(c, "Symbol('s0').__class__"), "expr_str"),
        (lambda c: _shape(c, "9**9**9"), "expr_str"),
        (lambda c: _graph(c)["nodes"][0].update(name="x\n    import os"), "for 'name'"),
        (lambda c: _graph(c)["nodes"][0].update(target="torch.hub.load"), "torch.hub.load"),
        (lambda c: _graph(c)["nodes"][0].update(target="torch.ops.aten.from_file.default"), "from_file"),
        (lambda c: _graph(c)["nodes"][0].update(target="torch.ops.aten.save.default"), "save"),
        (lambda c: _graph(c)["nodes"][0].update(target="_operator.attrgetter"), "attrgetter"),
        (lambda c: _graph(c)["nodes"][0]["inputs"][0]["arg"].update(as_graph={"name": "x"}), "as_graph"),
        (lambda c: _tree(c, IMPORTING), "in_spec"),
        (lambda c: _tree(c, ENUM), "in_spec"),
    ],
)
def test_a_graph_that_could_run_code_is_refused(program: Path, change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(ModelError, match=f"{message}.*nothing is opened here that could run code"):
        import_program(edited(program, GRAPH, change), contract_of())
    assert not Path("MARK").exists()


def test_guards_and_metadata_do_not_reach_torch(program: Path) -> None:
    def plant(content: Any) -> None:
        content["guards_code"] = ["__import__('pathlib').Path('MARK').touch()"]
        for node in _graph(content)["nodes"]:
            node["metadata"] = {"stack_trace": "x", "custom": "{}", "torch_fn": "a;b"}

    image = torch.zeros(1, 2, 8, 8)
    import_program(edited(program, GRAPH, plant), contract_of()).predict({"optical": image}, {})
    assert not Path("MARK").exists()
    # They would have run.
    with contextlib.suppress(Exception):
        torch.export.load(program).module()(image)
    assert Path("MARK").exists()
    with zipfile.ZipFile(io.BytesIO(clean_archive(program)[0])) as archive:
        cleaned = json.loads(archive.read(f"program/{GRAPH}"))
    assert cleaned["guards_code"] == []
    assert all(node["metadata"] == {} for node in _graph(cleaned)["nodes"])


@pytest.mark.parametrize("name", ["data/aotinductor/model/model.so", "data/constants/custom_obj_0", "code/__init__.py"])
def test_what_is_neither_graph_nor_tensor_is_refused(program: Path, name: str) -> None:
    with pytest.raises(ModelError, match="neither graph nor tensor"):
        import_program(rewritten(program, lambda files: files.__setitem__(name, b"x")), contract_of())


def test_a_pickled_model_by_that_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.pt2"
    torch.save(Bomb(tmp_path / "ran"), path)
    with pytest.raises(ModelError, match="is a pickled torch file"):
        import_program(path, contract_of())
    path.write_bytes(base64.b64decode("gASVAAAA"))
    with pytest.raises(ModelError, match="cannot be read as an exported program"):
        import_program(path, contract_of())
    assert not (tmp_path / "ran").exists()


def test_an_exported_model_is_a_model_folder_like_any_other(tmp_path: Path) -> None:
    model = small_model("deeplab")
    program = export_model(model, tmp_path / "deeplab.pt2")
    loaded = load_model(save_model(program, tmp_path / "folder"))
    dynamic, static = inputs_of(model.contract, 2, (30, 20))
    torch.testing.assert_close(
        loaded.predict(dynamic, static), model.predict(dynamic, static), rtol=0, atol=1e-6, equal_nan=True
    )
    assert isinstance(loaded, Model)


def test_the_same_program_has_the_same_hash(program: Path, tmp_path: Path) -> None:
    again = saved(tmp_path / "again.pt2", Net(), torch.zeros(2, 2, 8, 8), **free())
    assert import_program(program, contract_of()).hash == import_program(again, contract_of()).hash
    edited(again, GRAPH, lambda c: c["schema_version"].update(minor=c["schema_version"]["minor"]))
    net = Net()
    with torch.no_grad():
        net.conv.weight.add_(1.0)
    other = saved(tmp_path / "other.pt2", net, torch.zeros(2, 2, 8, 8), **free())
    assert import_program(program, contract_of()).hash != import_program(other, contract_of()).hash
