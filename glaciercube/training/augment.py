"""Augmentation of samples: turns and mirrors, light and noise, and missing sensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glaciercube.models.contract import Contract
from glaciercube.training.samples import SUBSETS, FloatArray, Sample

__all__ = ["Jitter", "choose_subset", "crop", "dihedral", "photometric"]


@dataclass(frozen=True)
class Jitter:
    """How far photometric augmentation goes; standard deviations.

    Attributes
    ----------
    gain, band_gain : float
        Of the natural logarithm of reflectance, common to all bands and band by band: calibration, atmosphere,
        and the spread of sun angles beyond those of the simulated world.
    offset : float
        Reflectance added band by band (haze).
    gamma : float
        Of the logarithm of the exponent on reflectance.
    noise : float
        Reflectance, pixel by pixel.
    decibel : float
        Of backscatter, common and by polarisation: sigma nought, gamma nought and calibration.
    unflattened : float
        Share of samples, 0 to 1, whose backscatter is given the slopes' brightness back, as in products that are
        not corrected for terrain (GRD).
    """

    gain: float = 0.12
    band_gain: float = 0.06
    offset: float = 0.005
    gamma: float = 0.06
    noise: float = 0.003
    decibel: float = 1.2
    unflattened: float = 0.33


#: How often training shows each subset of sensors.
SUBSET_SHARES: Mapping[str, float] = {
    "S2": 0.30,
    "S2+DEM": 0.16,
    "S1": 0.06,
    "S1+DEM": 0.10,
    "S2+S1": 0.12,
    "S2+S1+DEM": 0.22,
    "DEM": 0.04,
}


def crop(sample: Sample, size: int, rng: np.random.Generator) -> Sample:
    """Cut a square of `size` pixels at a random place, in full precision; samples smaller than that are kept whole."""
    height, width = sample.label.shape
    top = int(rng.integers(0, max(1, height - size + 1)))
    left = int(rng.integers(0, max(1, width - size + 1)))
    rows, columns = slice(top, top + size), slice(left, left + size)
    inputs = {name: values[:, rows, columns].astype(np.float32) for name, values in sample.inputs.items()}
    return Sample(inputs, sample.label[rows, columns], sample.weight[rows, columns], sample.seed)


def dihedral(sample: Sample, contract: Contract, *, turns: int, mirror: bool) -> Sample:
    """Turn a sample by quarter turns, counter-clockwise on the map, and mirror it east to west before.

    Parameters
    ----------
    sample : Sample
        North up.
    contract : Contract
        Says which channels are ``aspect_sin`` and ``aspect_cos``, which turn as the vector that they are.
    turns : int
        Quarter turns, 0 to 3.
    mirror : bool
        Whether to mirror.
    """

    def moved(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        flipped = values[..., ::-1] if mirror else values
        return np.rot90(flipped, turns, axes=(-2, -1))

    inputs: dict[str, FloatArray] = {}
    for name, values in sample.inputs.items():
        turned = np.ascontiguousarray(moved(values)).astype(np.float32, copy=False)
        inputs[name] = _turn_aspect(turned, contract.modality(name).variables, turns=turns, mirror=mirror)
    label = np.ascontiguousarray(moved(sample.label)).astype(bool)
    weight = np.ascontiguousarray(moved(sample.weight)).astype(np.float32)
    return Sample(inputs, label, weight, sample.seed)


def photometric(sample: Sample, contract: Contract, jitter: Jitter, rng: np.random.Generator) -> Sample:
    """Change the light of the optical bands and the level of the radar, scene by scene and band by band."""
    inputs = dict(sample.inputs)
    if "optical" in inputs:
        bands = len(contract.modality("optical").variables)
        gain = np.exp(rng.normal(0.0, jitter.gain) + rng.normal(0.0, jitter.band_gain, (bands, 1, 1)))
        exponent = np.exp(rng.normal(0.0, jitter.gamma))
        offset = rng.normal(0.0, jitter.offset, (bands, 1, 1))
        noise = rng.normal(0.0, jitter.noise * rng.random(), inputs["optical"].shape)
        # About 0.4, so that the exponent changes contrast and not brightness.
        lit = 0.4 * (np.maximum(inputs["optical"], 1e-4) / 0.4) ** exponent
        inputs["optical"] = (gain * lit + offset + noise).astype(np.float32)
    if "radar" in inputs:
        polarisations = inputs["radar"].shape[0]
        shift = rng.normal(0.0, jitter.decibel) + rng.normal(0.0, jitter.decibel / 2, (polarisations, 1, 1))
        inputs["radar"] = (inputs["radar"] + shift).astype(np.float32)
        if "terrain" in inputs and rng.random() < jitter.unflattened:
            inputs["radar"] += _foreshortening(inputs["terrain"], contract, rng)
    return Sample(inputs, sample.label, sample.weight, sample.seed)


def _foreshortening(
    terrain: npt.NDArray[np.floating], contract: Contract, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Brightness (y, x) in dB that slopes towards a radar gain: their area in the range pixel.

    First order of Small (2011), doi:10.1109/TGRS.2011.2120616: 1 / (1 - tan(slope) cos(facing) / tan(incidence)), with
    the incidence of Sentinel-1's interferometric wide swath, 30 to 46 degrees.
    """
    channel = dict(zip(contract.modality("terrain").variables, terrain, strict=True))
    look, incidence = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(30, 46))
    facing = np.sin(look) * channel["aspect_sin"] + np.cos(look) * channel["aspect_cos"]
    tilt = np.tan(np.radians(np.minimum(channel["slope"], 80.0))) * facing / np.tan(incidence)
    gain: npt.NDArray[np.float32] = (-10.0 * np.log10(np.clip(1.0 - tilt, 0.15, 4.0))).astype(np.float32)
    return gain


def choose_subset(contract: Contract, rng: np.random.Generator) -> Sequence[str]:
    """Draw which modalities a sample shows; the hillshade is left out of every third image that could have it."""
    names = list(SUBSET_SHARES)
    shares = np.array([SUBSET_SHARES[name] for name in names])
    chosen = SUBSETS[names[int(rng.choice(len(names), p=shares / shares.sum()))]]
    if rng.random() < 1 / 3:
        chosen = tuple(name for name in chosen if name != "illumination")
    known = {modality.name for modality in contract.modalities}
    return tuple(name for name in chosen if name in known)


def _turn_aspect(values: FloatArray, variables: Sequence[str], *, turns: int, mirror: bool) -> FloatArray:
    if "aspect_sin" not in variables:
        return values
    index = {name: i for i, name in enumerate(variables)}
    east, north = values[index["aspect_sin"]].copy(), values[index["aspect_cos"]].copy()
    if mirror:
        east = -east
    for _ in range(turns % 4):
        east, north = -north, east
    turned = values.copy()
    turned[index["aspect_sin"]], turned[index["aspect_cos"]] = east, north
    return turned
