"""A model that sees images in several sizes and mirrored is a model like any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import inputs_of, small_model

from glaciercube.errors import GlaciercubeError, ModelError
from glaciercube.models.base import Model
from glaciercube.models.ensemble import ensemble, members_of
from glaciercube.models.registry import load_model, save_model
from glaciercube.models.views import with_views


def said(model: Model) -> torch.Tensor:
    dynamic, _ = inputs_of(model.contract, 1, (64, 64), 3)
    return model.predict_classes(dynamic, {})


def test_views_are_averaged_and_folders_keep_them(tmp_path: Path) -> None:
    both = ensemble([small_model("front-unet", seed) for seed in range(2)])
    model = with_views(both)
    parts = [said(part) for part in members_of(model)]
    assert len(parts) == 6
    assert float(torch.nan_to_num(torch.stack(parts).std(0)).max()) > 1e-3  # they do differ
    torch.testing.assert_close(said(model), torch.stack(parts).mean(0), atol=1e-5, rtol=0, equal_nan=True)
    again = load_model(save_model(model, tmp_path / "model"))
    assert again.hash == model.hash
    assert torch.equal(torch.nan_to_num(said(again)), torch.nan_to_num(said(model)))


def test_a_single_view_is_the_model_itself_and_a_mirrored_one_its_mirror() -> None:
    model = small_model("front-unet")
    assert torch.equal(said(with_views(model, quarters=(4,), mirrored=False)).nan_to_num(), said(model).nan_to_num())
    dynamic, _ = inputs_of(model.contract, 1, (64, 64), 3)
    turned = {name: values.flip(-1) for name, values in dynamic.items()}
    view = with_views(model, quarters=(4,))
    torch.testing.assert_close(
        view.predict_classes(turned, {}).flip(-1), view.predict_classes(dynamic, {}), atol=1e-5, rtol=0, equal_nan=True
    )


def test_what_is_seen_keeps_its_place() -> None:
    """Cut where blocks are cut, pixels away from the cut stay the same in every size."""
    model = with_views(small_model("front-unet"), quarters=(3, 5), mirrored=False)
    assert model.contract.stride == 32
    field = int(model.contract.receptive_field)
    dynamic, _ = inputs_of(model.contract, 1, (32, 640), 3)
    whole = model.predict_classes(dynamic, {})

    def apart(cut: int) -> float:
        part = model.predict_classes({name: values[..., cut:] for name, values in dynamic.items()}, {})
        return float((part[..., field:] - whole[..., cut + field :]).nan_to_num().abs().max())

    assert field < 500
    assert apart(64) < 1e-3  # sums in another order
    assert apart(40) > 1e-2


def test_what_cannot_be_shown_in_other_sizes_is_refused() -> None:
    with pytest.raises(ModelError, match="other sizes"):
        with_views(small_model("hooknet"))
    with pytest.raises(GlaciercubeError, match="quarters"):
        with_views(small_model("front-unet"), quarters=())
