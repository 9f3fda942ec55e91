"""Every architecture: any height and width, one date or many, exported and back, and as many weights as published."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_models import SMALL, days_of, inputs_of, masked_inputs, small_contract, small_model
from torch import Tensor, nn
from torch import library as operators

from glaciercube.errors import ModelError
from glaciercube.inference import predict
from glaciercube.models import Contract, Modality, Output, Windows, load_model
from glaciercube.models.architectures.contracts import architecture_contract, architecture_names
from glaciercube.models.architectures.resnet import ResNet
from glaciercube.models.architectures.segmenter import Segmenter
from glaciercube.models.base import GlacierModule, Masked
from glaciercube.models.classes import GROUND, ZONES
from glaciercube.models.program import export_model
from glaciercube.models.registry import ARCHITECTURES, build_module

# Rules, and what is made of other models.
OTHERS = {"band-ratio", "ndsi", "identity", "ensemble", "mc-dropout", "views"}
NAMES = tuple(SMALL)
RGB = (Modality("optical", ("red", "green", "blue")),)
MILLION = 1e6


def test_every_architecture_is_here() -> None:
    assert set(NAMES) == set(architecture_names()) == set(ARCHITECTURES) - OTHERS


def classes_of(count: int) -> dict[str, Any]:
    return {"classes": tuple(f"c{i}" for i in range(count)), "outputs": (Output("any", ("c0",)),)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def built(architecture: str, **other: Any) -> nn.Module:
    with torch.device("meta"):
        return build_module(architecture_contract(architecture, **other))


B1 = {"widths": (64, 128, 320, 512), "depths": (2, 2, 2, 2), "decoder": (256,)}
B2 = {"widths": (64, 128, 320, 512), "depths": (3, 4, 6, 3), "decoder": (768,)}
B5 = {"widths": (64, 128, 320, 512), "depths": (3, 6, 40, 3), "decoder": (768,)}


@pytest.mark.parametrize(
    ("architecture", "other", "millions", "places"),
    [
        # Xie et al. (2021), Table 1a: SegFormer with 150 classes, without the encoder's classifier.
        pytest.param("segformer", {"modalities": RGB, **classes_of(150)}, 3.8, 1, id="SegFormer-B0"),
        pytest.param("segformer", {"modalities": RGB, **classes_of(150), **B1}, 13.7, 1, id="SegFormer-B1"),
        pytest.param("segformer", {"modalities": RGB, **classes_of(150), **B2}, 27.5, 1, id="SegFormer-B2"),
        pytest.param("segformer", {"modalities": RGB, **classes_of(150), **B5}, 84.7, 1, id="SegFormer-B5"),
        # Counted from the layers of the published code, not stated by the authors: GlaViTU with optical and elevation,
        # ICEmapper with weighted pooling and with maxima, HED-UNet.
        pytest.param("glavitu", {}, 10.02, 2, id="GlaViTU"),
        pytest.param("icemapper", {}, 4.68, 2, id="ICEmapper v2"),
        pytest.param("icemapper", {"pooling": "maximum"}, 4.36, 2, id="ICEmapper v1"),
        pytest.param("hed-unet", {}, 8.13, 2, id="HED-UNet"),
        # segmentation-models-pytorch's Unet("resnet34"), 3 channels and 1 class.
        pytest.param(
            "unet-resnet", {"modalities": RGB, "indices": False, "norm": True}, 24.436369, 6, id="U-Net ResNet-34"
        ),
    ],
)
def test_there_are_as_many_weights_as_published(
    architecture: str, other: dict[str, Any], millions: float, places: int
) -> None:
    assert round(count(built(architecture, **other)) / MILLION, places) == millions


def test_the_docs_state_the_weights_and_fields_that_there_are() -> None:
    text = (Path(__file__).parents[1] / "docs" / "architectures.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    stated = {row[0].strip("`"): (int(row[2].replace(",", "")), row[4]) for row in rows}
    assert set(stated) == set(NAMES)
    for name, (weights, sees) in stated.items():
        contract = architecture_contract(name)
        assert (name, count(built(name))) == (name, weights)
        field = contract.receptive_field
        size = contract.windows.size if contract.windows is not None else 0
        assert sees.startswith(f"{field} pixels" if isinstance(field, int) else f"windows of {size}"), name
    for name in ("fusion-unet", "fusion-unet-time"):
        shipped = load_model(name)
        assert shipped.contract.modalities == architecture_contract(name).modalities, name
        assert f"{shipped.module.parameter_count:,}" in text, name


@pytest.mark.parametrize(
    ("name", "deep", "published"),
    # As torchvision's documentation states them, with a classifier of 1000 classes.
    [("resnet18", 512, 11_689_512), ("resnet34", 512, 21_797_672), ("resnet50", 2048, 25_557_032)],
)
def test_encoders_have_as_many_weights_as_published(name: str, deep: int, published: int) -> None:
    with torch.device("meta"):
        assert count(ResNet(name, 3)) + 1000 * deep + 1000 == published


def test_the_encoder_of_glaciernet_has_as_many_weights_as_that_of_segnet() -> None:
    # Badrinarayanan et al. (2017) state 14.7 M for the encoder's convolutions.
    module = built("glaciernet", modalities=RGB)
    convolutions = [layer for layer in module.encoder.modules() if isinstance(layer, nn.Conv2d)]  # type: ignore[union-attr]
    assert round(sum(map(count, convolutions)) / MILLION, 1) == 14.7


def test_all_that_dl4gam_takes_can_be_given() -> None:
    contract = architecture_contract("unet-resnet")
    optical, terrain, change = contract.modalities
    more = ("profile_curvature", "ruggedness")
    whole = dataclasses.replace(
        terrain, variables=(*terrain.variables, *more), mean=(*terrain.mean, 0.0, 0.0), std=(*terrain.std, 0.004, 10.0)
    )
    module: Any = built("unet-resnet", modalities=(optical, whole, change))
    assert module.encoder.conv1.weight.shape[1] == 16


@pytest.mark.parametrize("name", NAMES)
def test_any_height_and_width_is_taken(name: str) -> None:
    model = small_model(name)
    for dates, size in ((2, (37, 70)), (1, (1, 1)), (1, (64, 5))):
        dynamic, static = inputs_of(model.contract, dates, size)
        found = model.predict(dynamic, static, **days_of(model.contract, dates))
        assert found.shape == (dates, *size)
        seen = torch.zeros(dates, *size, dtype=torch.bool)
        for modality in model.contract.modalities:
            if modality.evidence and not modality.static:
                seen |= dynamic[modality.name].isfinite().all(dim=1)
        assert torch.equal(found.isfinite(), seen)
        assert ((found >= 0) & (found <= 1))[seen].all()


@pytest.mark.parametrize("name", NAMES)
def test_a_date_does_not_depend_on_its_batch(name: str) -> None:
    model = small_model(name)
    dynamic, static = inputs_of(model.contract, 3, (40, 33))
    days = days_of(model.contract, 3)
    whole = model.predict(dynamic, static, **days)
    assert float(whole[whole.isfinite()].std()) > 1e-5
    features = model.encode_static(static)
    parts = [model.predict(dynamic, features, **days, targets=[i]) for i in range(3)]
    # Convolutions sum in another order for another batch; what another date lends would be far more.
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_exported_gives_the_same(name: str, tmp_path: Path) -> None:
    # Tracing sizes that may vary costs tens of milliseconds for each layer: two of the sensors have all kinds of them.
    usual = small_contract(name).modalities
    some = {"fusion-unet": ("optical", "terrain"), "fusion-unet-time": ("radar", "terrain")}.get(name)
    model = small_model(name, modalities=tuple(m for m in usual if some is None or m.name in some))
    program = export_model(model, tmp_path / "model.pt2")
    assert program.contract.architecture == "torch-export"
    # Other sizes and other numbers of dates than those that it was exported with.
    for dates, size in ((1, (20, 33)), (4, (45, 64))):
        dynamic, static = inputs_of(model.contract, dates, size)
        days = days_of(model.contract, dates)
        expected = model.predict(dynamic, static, **days)
        got = program.predict(dynamic, static, **days)
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name: str) -> None:
    model = small_model(name)
    module = model.module.train().requires_grad_(requires_grad=True)
    assert isinstance(module, Segmenter)
    side = 64 if model.contract.windows is None else model.contract.windows.size
    dynamic, static = masked_inputs(model.contract, 2, (side, side))
    features = module.encode_static({name: Masked(*(v[:1] for v in entry)) for name, entry in static.items()})
    if model.contract.time_context is None:
        found = module.supervised(dynamic, features)
        assert found[0].logit.shape[-2:] == (side, side)
        loss = sum((each.weight * each.logit.square().mean() for each in found), torch.zeros(()))
    else:
        from glaciercube.models.neighbours import find_neighbours

        near = find_neighbours(model.contract.time_context, [0.0, 10.0], [0, 1], torch.device("cpu"))
        loss = module.series(dynamic, features, near).square().mean()  # type: ignore[operator]
    loss.backward()  # type: ignore[no-untyped-call]
    still = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("name", ["glaciernet", "hed-unet", "front-unet", "fusion-unet-time"])
def test_nothing_beyond_the_receptive_field_is_seen_and_all_within(name: str) -> None:
    model = small_model(name)
    module, field, stride = model.module.double(), model.contract.receptive_field, model.contract.stride
    assert isinstance(field, int)
    middle = -(-field // stride) * stride + stride
    reached = 0
    for place in range(stride):
        x = middle + place
        dynamic, static = masked_inputs(model.contract, 2, (2 * stride, 2 * middle + stride))
        near, far = (centre(module, dynamic, static, x, spared) for spared in (field - 1, field))
        plain = centre(module, dynamic, static, x, None)
        assert torch.equal(far, plain)
        reached += int(not torch.equal(near, plain))
    assert reached > 0


def centre(
    module: GlacierModule, dynamic: dict[str, Masked], static: dict[str, Masked], x: int, spared: int | None
) -> Tensor:
    """Column x of the map, when all columns farther from it than `spared` are changed."""

    def changed(entry: Masked) -> Masked:
        values = entry.values.double()
        if spared is not None:
            away = (torch.arange(values.shape[-1]) - x).abs() > spared
            values = torch.where(away, 3.0 - values, values)
        return Masked(values, entry.valid)

    with torch.inference_mode():
        features = module.encode_static({key: changed(Masked(*(v[:1] for v in e))) for key, e in static.items()})
        found = module({key: changed(entry) for key, entry in dynamic.items()}, features)
    column: Tensor = found[..., x]
    return column


@pytest.mark.parametrize("name", ["glavitu", "hooknet", "glaciernet", "hed-unet"])
def test_a_cube_has_no_seams(name: str) -> None:
    model = small_model(name)
    dynamic, static = inputs_of(model.contract, 2, (90, 75))
    layers: dict[str, tuple[tuple[str, ...], Any]] = {}
    for modality in model.contract.modalities:
        values = (static if modality.static else dynamic)[modality.name]
        for variable, layer in zip(modality.variables, values.unbind(dim=-3), strict=True):
            layers[variable] = (("time", "y", "x")[-layer.ndim :], layer.numpy())
    coords = {"time": [0, 1], "y": -10.0 * np.arange(90), "x": 10.0 * np.arange(75)}
    cube = xr.Dataset(layers, coords=coords)
    whole, *cut = (
        predict(cube, model, block=block)["glacier_probability"].compute(scheduler="synchronous").to_numpy()
        for block in (128, 32, 50)
    )
    assert np.nanstd(whole) > 1e-3
    for found in cut:
        np.testing.assert_allclose(found, whole, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_a_matter_of_names(name: str) -> None:
    glacier = Output("glacier_probability", ("clean_ice", "debris_covered_ice"))
    snow = Output("snow_probability", ("seasonal_snow",))
    model = small_model(name, classes=GROUND, outputs=(glacier, snow))
    assert Contract.from_mlm(model.contract.to_mlm()) == model.contract
    dynamic, static = inputs_of(model.contract, 2, (20, 25), missing=0.0)
    days = days_of(model.contract, 2)
    each = model.predict_classes(dynamic, static, **days)
    assert each.shape == (2, len(GROUND), 20, 25)
    torch.testing.assert_close(each.sum(dim=1), torch.ones(2, 20, 25))
    expected = each[:, [GROUND.index(n) for n in glacier.classes]].sum(dim=1)
    torch.testing.assert_close(model.predict(dynamic, static, **days), expected)


def test_rock_glaciers_and_zones_need_no_other_code() -> None:
    rock = Output("rock_glacier_probability", ("rock_glacier",))
    contract = small_contract("deeplab", classes=("other", "rock_glacier"), outputs=(rock,))
    assert build_module(contract).heads == 1
    with pytest.raises(ModelError, match=r"give outputs, for example Output\('rock_glacier_probability'"):
        small_contract("deeplab", classes=("other", "rock_glacier"))
    assert architecture_contract("hed-unet").classes == ZONES
    assert architecture_contract("hed-unet").outputs == (Output(classes=("glacier",)),)


def test_classes_that_do_not_fit_are_refused() -> None:
    for other, message in (
        ({"classes": ("ice", "ice")}, "each once"),
        ({"classes": ("Ice", "other")}, "lower case"),
        ({"outputs": (Output(classes=("snow",)),)}, "choose among its classes other, glacier"),
        ({"outputs": ()}, "one or more"),
    ):
        with pytest.raises(ModelError, match=message):
            dataclasses.replace(architecture_contract("deeplab"), **other)


def test_what_an_architecture_cannot_take_is_refused() -> None:
    with pytest.raises(ModelError, match="did you mean 'glavitu'"):
        architecture_contract("glavit")
    with pytest.raises(ModelError, match="did you mean 'widths'"):
        architecture_contract("glavitu", width=(1, 2))
    with pytest.raises(ModelError, match="its receptive field is finite"):
        architecture_contract("hed-unet", windows=Windows(64, 32))
    with pytest.raises(ModelError, match="multiple of 16"):
        build_module(dataclasses.replace(small_contract("glavitu"), stride=1, windows=Windows(40, 20)))


def test_calibration_moves_only_the_classes_of_the_first_output() -> None:
    plain = small_model("deeplab", classes=GROUND)
    raised = small_model("deeplab", classes=GROUND, shift=1.0)
    dynamic, static = inputs_of(plain.contract, 1, (20, 20), missing=0.0)
    a, b = (model.predict_classes(dynamic, static) for model in (plain, raised))
    assert (b[:, 1:3] > a[:, 1:3]).all()
    torch.testing.assert_close(a[:, 0] / a[:, 4], b[:, 0] / b[:, 4], rtol=1e-3, atol=0)


@pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None, reason="segmentation-models-pytorch is not here"
)
@pytest.mark.parametrize("norm", [True, False])
def test_the_u_net_is_that_of_segmentation_models_pytorch(norm: bool) -> None:
    if not hasattr(torch.ops.torchvision, "nms"):
        # torchvision's build for CUDA registers its operators in a library that does not load beside torch for CPUs.
        library: Any = operators.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import segmentation_models_pytorch as smp  # type: ignore[import-not-found]

    ours: Any = build_module(architecture_contract("unet-resnet", modalities=RGB, indices=False, norm=norm)).eval()
    kind = "batchnorm" if norm else False
    theirs = smp.Unet("resnet34", encoder_weights=None, in_channels=3, classes=1, decoder_use_norm=kind).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = ours.logits({"optical": Masked(image, image[:, :1] > -9)}, {})
        assert torch.equal(found, theirs(image)[:, 0])
