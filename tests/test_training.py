"""Models that are shipped know glaciers of a world that they were not trained on, and do with fewer sensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from glaciercube.evaluation.predict import PredictOptions, cases_of
from glaciercube.evaluation.reliability import pixels_of, reliability
from glaciercube.evaluation.segmentation import segmentation
from glaciercube.models import load_model
from glaciercube.models.chips import Chip
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

UNSEEN = range(9_000_000, 9_000_006)
RECIPES = Path(__file__).parents[1] / "glaciercube" / "training" / "recipes"
SHIPPED = ("fusion-unet", "fusion-unet-time")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny convolutions lose more to threads that wait for each other than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> list[Chip]:
    options = SequenceOptions(size=96, dates=2, family="b", level="boa")
    return simulated_chips(UNSEEN, options, folder=tmp_path_factory.mktemp("chips"), progress=False)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_know_glaciers_of_another_world(name: str, chips: list[Chip]) -> None:
    model = load_model(name)
    rule = segmentation(cases_of(load_model("band-ratio"), chips), 0.5).pooled
    still = ("terrain", "relief", "elevation_change", "velocity")
    whole = segmentation(cases_of(model, chips), 0.5).pooled
    optical = segmentation(cases_of(model, chips, PredictOptions(without=("radar", "coherence", *still))), 0.5).pooled
    assert min(whole.iou, optical.iou) > rule.iou
    for modality in model.contract.modalities:
        less = segmentation(cases_of(model, chips, PredictOptions(without=(modality.name,))), 0.5).pooled
        # Without images there is little left to go by.
        assert less.iou > (0.1 if modality.name == "optical" else whole.iou - 0.15), modality.name
    # The cards give 0.06 on 300 places of this family, and a few places scatter.
    assert reliability(*pixels_of(cases_of(model, chips))).ece < 0.15


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_those_of_their_recipe(name: str) -> None:
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text("utf-8"))
    contract = load_model(name).contract
    assert (contract.name, contract.version) == (recipe["network"]["name"], recipe["network"]["version"])
    # No scene that is trained on is one that is tested or calibrated on.
    ranges = [range(*recipe["samples"]["simulated"]["seeds"]), range(*recipe["calibrate"]["simulated"]["seeds"])]
    ranges += [range(*source["simulated"]["seeds"]) for source in recipe["test"].values()]
    drawn = [set(seeds) for seeds in ranges[:2]]
    assert not drawn[0] & drawn[1]
    assert all(not seeds & set(test) for seeds in drawn for test in ranges[2:])
