"""What only the end of a training would stumble over is looked at before its first step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from glaciercube.errors import ConfigError, ModelError, require
from glaciercube.evaluation.predict import ice_labels
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.classes import membership
from glaciercube.models.contract import Contract
from glaciercube.training.exchange import StoredChips
from glaciercube.training.kept import KeptChips
from glaciercube.training.sampling import SampledChips

__all__ = ["check_calibration", "check_contract", "check_folder", "check_test", "check_validation"]

# Places that a calibration needs at least: what is fitted on one is scored on another.
_PLACES = 2


def check_folder(folder: Path, key: str) -> None:
    """Refuse what can be no folder.

    Raises
    ------
    ConfigError
        If there is a file in the folder's place, or in that of one above it; it names the key.
    """
    there = next(each for each in (folder, *folder.parents) if each.exists())
    require(there.is_dir(), f"{key} is {str(folder)!r}, and {str(there)!r} is a file", "give another folder")


def check_test(chips: Sequence[Chip], name: str, find: Sequence[str]) -> None:
    """Refuse chips that no model can be scored on; they are read up to the first with a pixel that counts.

    Raises
    ------
    ConfigError
        If there are none, or no pixel counts: its label known and sure, and seen free of cloud.
    ModelError
        If one has no label that is to be found.
    """
    require(len(chips) > 0, f"the test {name!r} has no chips", "give a source that has some, or leave it out")
    _check_ice(chips, f"the test {name!r}", find)
    require(
        any(((chip.label != UNKNOWN) & chip.clear).any() for chip in chips),
        f"the test {name!r} has no pixel that counts: of a known and sure label, seen free of cloud",
        "give chips with such labels (outlines nearer to the images' years, clearer dates), or leave the test out",
    )


def check_validation(chips: Sequence[Chip]) -> None:
    """Refuse chips that could not tell when to stop; they are read up to the first with a known label.

    Raises
    ------
    ConfigError
        If there are some, and no label of them is known.
    """
    require(
        not len(chips) or any(map(_known, chips)),
        "validation has no pixel whose label is known and weighs more than 0",
        "give chips with known labels, or leave validation out",
    )


def check_calibration(chips: Sequence[Chip], find: Sequence[str]) -> None:
    """Refuse chips that no model can be calibrated on; they are read up to the second place with known labels.

    Raises
    ------
    ConfigError
        If labels are known at fewer than two places.
    ModelError
        If a chip has no label that is to be found.
    """
    _check_ice(chips, "calibration", find)
    places = set[str]()
    for chip in chips:
        if _known(chip):
            places.add(chip.place or chip.name)
        if len(places) >= _PLACES:
            return
    raise ConfigError(
        f"calibration has {len(places)} place{'' if len(places) == 1 else 's'} with known labels and needs {_PLACES}",
        "give calibrate samples of its own (sets, outlines or simulated), or folds with more places to validate on, or "
        "calibrate: null",
    )


def check_contract(
    contract: Contract, chips: Sequence[Chip], find: Sequence[str], without: Collection[Collection[str]] = ()
) -> None:
    """Refuse chips that a model could not be shown, by the first of them, and sensors that it does not know.

    Raises
    ------
    ModelError
        If the model has no such modality to be left out, the chip lacks what it requires, or no class of it stands for
        what is to be found.
    """
    for name in (name for names in without for name in names):
        contract.modality(name)
    chip = chips[0]
    contract.select(chip.variables)
    names = ice_labels(chip.labels, find, chip.name)
    wanted = tuple(dict.fromkeys(kind for name in names for kind in chip.labels[name]))
    if not membership({"wanted": wanted}, contract.classes).any():
        raise ModelError(
            f"no class of model {contract.name!r} ({', '.join(contract.classes)}) stands for {' or '.join(wanted)}",
            "choose another label to be found (find), or classes that tell it",
        )


def _known(chip: Chip) -> bool:
    return bool(((chip.label != UNKNOWN) & (chip.weight > 0)).any())


def _check_ice(chips: Sequence[Chip], what: str, find: Sequence[str]) -> None:
    for name, labels in _labels(chips):
        try:
            ice_labels(labels, find, name)
        except ModelError as error:
            raise ModelError(f"{error.problem}, which {what} needs", error.remedy) from None


def _labels(chips: Sequence[Chip]) -> Iterator[tuple[str, Mapping[str, tuple[str, ...]]]]:
    """Name and labels of every chip; nothing is read where the sequence knows them."""
    source = chips.source if isinstance(chips, KeptChips) else chips
    if isinstance(source, StoredChips):
        for index, (_, entry) in enumerate(source.entries):
            yield entry["name"], entry["labels"] if "labels" in entry else chips[index].labels
    elif isinstance(source, SampledChips):
        for site in source.sites[:1]:
            yield site.name, source.labels
    else:
        for chip in chips:
            yield chip.name, chip.labels
