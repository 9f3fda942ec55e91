"""The simulated set: trained on one family of generators, tested on glaciers of another, with seeds held out."""

from __future__ import annotations

from pathlib import Path

from glaciercube.bench.sets import BenchSet
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.simulated import simulated_chips

__all__ = ["TEST_SEED", "TRAIN_SEED", "simulated"]

#: First seeds; no weights that come with the package were trained, stopped or calibrated on any from here on.
TRAIN_SEED, TEST_SEED = 6_000_000, 7_000_000
_MODALITIES = {
    "optical": ("blue", "green", "red", "nir", "swir16", "swir22"),
    "illumination": ("hillshade",),
    "radar": ("vv_db", "vh_db"),
    "coherence": ("coherence",),
    "terrain": ("slope", "aspect_sin", "aspect_cos", "curvature"),
    "relief": ("topographic_position",),
    "elevation_change": ("elevation_change",),
    "velocity": ("velocity",),
}


def simulated(folder: Path, *, small: bool = False) -> BenchSet:
    """Chips of family a to train on and of family b to test on, drawn or read from a folder."""
    size, train, test = (64, 2, 2) if small else (128, 60, 30)
    chips = {
        "family a": simulated_chips(
            range(TRAIN_SEED, TRAIN_SEED + train),
            SequenceOptions(size=size, dates=(1, 4), years=(2021, 2021)),
            folder=folder,
            progress=not small,
        ),
        "family b": simulated_chips(
            range(TEST_SEED, TEST_SEED + test),
            SequenceOptions(size=size, dates=3, years=(2021, 2021), family="b"),
            folder=folder,
            progress=not small,
        ),
    }
    return BenchSet(
        "simulated",
        tuple(chip for group in chips.values() for chip in group),
        tuple(name for name, group in chips.items() for _ in group),
        ("clean_ice", "debris_covered_ice"),
        "every class of the simulator is a class of the models: glacier = clean ice + debris-covered ice",
        "trained on 60 scenes of family a, tested on 30 of family b, whose relief, snow, light, clouds and backscatter "
        "are made by other generators",
        (
            (
                "made up: 128 pixels of 10 to 30 m, three dates of one year in each test scene, each date scored where "
                "it is clear"
            ),
            f"seeds from {TRAIN_SEED} and from {TEST_SEED}; the shipped models were trained on other seeds of family a",
        ),
        real=False,
        modalities=_MODALITIES,
        kept=("family a",),
    )
