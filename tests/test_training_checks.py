"""What only the end of a training would stumble over is refused before its first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_chips import made_chip
from small_models import small_contract
from test_samples import SMALL, Tally, drawn, inventory, make_cube
from test_training_command import NETWORK, run

from glaciercube.errors import ConfigError, ModelError
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.training.checks import check_calibration, check_folder, check_test
from glaciercube.training.exchange import read_set, write_set
from glaciercube.training.kept import KeptChips
from glaciercube.training.sampling import SampleOptions, sample_chips

CONTRACT = small_contract("fusion-unet")


def placed(count: int) -> list[Chip]:
    made = [made_chip(CONTRACT, number, size=24, dates=1) for number in range(count)]
    return [replace(chip, place=f"p{i // 2}", centre=(5.0 + 3 * (i // 2), 46.0)) for i, chip in enumerate(made)]


def unknown(chip: Chip) -> Chip:
    return replace(chip, label=np.full_like(chip.label, UNKNOWN))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("checks")
    write_set(placed(8), place / "set")
    write_set([unknown(chip) for chip in placed(4)], place / "unknown")
    write_set([replace(chip, weight=np.full_like(chip.weight, 0.5)) for chip in placed(4)], place / "half")
    write_set([replace(chip, variables={"slope": chip.variables["slope"]}) for chip in placed(4)], place / "slope")
    write_set([replace(chip, labels={"ground": ("other",), "ice": ("front",)}) for chip in placed(4)], place / "front")
    (place / "a file").touch()
    return place


def refused(tmp_path: Path, folder: Path, **changed: Any) -> str:
    """What a training says that was never begun."""
    job = {
        "out": str(tmp_path / "model"),
        "network": NETWORK,
        "samples": {"sets": [str(folder / "set")]},
        "find": ["ice"],
        "fit": {"steps": 1, "batch": 2, "size": 16},
        "calibrate": None,
    }
    result = run(tmp_path, {**job, **changed})
    assert result.exit_code == 1, result.output
    assert not list(tmp_path.glob("**/fit.safetensors"))
    assert not list(tmp_path.glob("**/model.json"))
    return str(result.output)


def test_a_fold_with_one_place_to_calibrate_on_is_refused(tmp_path: Path, folder: Path) -> None:
    folds = {"kind": "places"}
    for fold in (1, "all"):
        said = refused(tmp_path, folder, folds=folds, fold=fold, calibrate={})
        assert "calibration has 1 place with known labels and needs 2" in said
        assert "calibrate: null" in said
    said = refused(tmp_path, folder, calibrate={"sets": [str(folder / "unknown")]})
    assert "calibration has 0 places" in said


@pytest.mark.parametrize("part", ["test", "calibrate"])
def test_labels_that_are_not_there_are_refused(tmp_path: Path, folder: Path, part: str) -> None:
    source = {"sets": [str(folder / "set")]}
    said = refused(tmp_path, folder, find=["glacier"], **{part: {"far": source} if part == "test" else source})
    assert "has no label glacier, which" in said
    assert "say which of its labels is to be found: ground, ice" in said


@pytest.mark.parametrize("name", ["unknown", "half"])
def test_a_test_without_pixels_that_count_is_refused(tmp_path: Path, folder: Path, name: str) -> None:
    said = refused(tmp_path, folder, test={"far": {"sets": [str(folder / name)]}})
    assert "the test 'far' has no pixel that counts" in said


def test_a_validation_that_knows_nothing_is_refused(tmp_path: Path, folder: Path) -> None:
    said = refused(tmp_path, folder, validation={"sets": [str(folder / "unknown")]})
    assert "validation has no pixel whose label is known" in said


def test_what_the_model_cannot_be_shown_is_refused(tmp_path: Path, folder: Path) -> None:
    source = {"sets": [str(folder / "set")]}
    assert "'radra'" in refused(tmp_path, folder, calibrate={**source, "without": [[], ["radra"]]})
    slope, front = ({"far": {"sets": [str(folder / name)]}} for name in ("slope", "front"))
    assert "none of the inputs" in refused(tmp_path, folder, test=slope)
    other = {**NETWORK, "classes": ["water", "clean_ice"]}
    assert "no class of model" in refused(tmp_path, folder, network=other, test=front, find=["ground"])


@pytest.mark.parametrize("key", ["out", "cache"])
def test_a_file_in_a_folders_place_is_refused(tmp_path: Path, folder: Path, key: str) -> None:
    for place in (folder / "a file", folder / "a file" / "model"):
        said = refused(tmp_path, folder, **{key: str(place)})
        assert f"{key} is '{place}', and '{folder / 'a file'}' is a file" in said
    check_folder(tmp_path / "not" / "there" / "yet", key)


def test_labels_and_places_are_looked_at_no_further_than_needed(folder: Path) -> None:
    tally = Tally()
    chips = sample_chips(make_cube(tally), inventory(), SampleOptions(windows=SMALL))
    with pytest.raises(ModelError, match="has no label debris, which"):
        check_test(chips, "far", ["debris"])
    assert not tally.blocks
    read: list[int] = []

    class Counted(list[Chip]):
        def __iter__(self) -> Any:
            for index in range(len(self)):
                read.append(index)
                yield self[index]

    check_calibration(KeptChips(read_set(folder / "set")), ["ice"])
    check_test(drawn(), "far", ())
    chip = placed(1)[0]
    many = Counted([chip, chip, replace(chip, place="elsewhere"), chip])
    check_calibration(many, ["ice"])
    assert read == [0, 1, 2, 3, 0, 1, 2]
    with pytest.raises(ConfigError, match="'far' has no chips"):
        check_test([], "far", ())


def test_what_can_be_used_is_used(tmp_path: Path, folder: Path) -> None:
    source = {"sets": [str(folder / "set")]}
    job = {
        "out": str(tmp_path / "model"),
        "network": NETWORK,
        "samples": source,
        "test": {"far": source},
        "find": ["ice"],
        "fit": {"steps": 1, "batch": 2, "size": 16},
        "calibrate": source,
    }
    result = run(tmp_path, job)
    assert result.exit_code == 0, result.output
