"""Augmentation of samples: turns and mirrors, light and noise, and missing sensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from glaciercube.models.contract import Contract, Modality
from glaciercube.training.options import Jitter, Sensors

__all__ = ["FloatArray", "Light", "Turn", "choose_shown", "draw_light", "foreshortening", "relight"]

FloatArray = npt.NDArray[np.float32]

#: Variables that are reflectance; backscatter is what ends in ``_db``.
REFLECTANCE = frozenset({"blue", "green", "red", "nir", "swir16", "swir22"})
_SLOPE = ("slope", "aspect_sin", "aspect_cos")
_NOISE_LENGTH = 2**20


@dataclass(frozen=True)
class Turn:
    """A mirroring of the map from east to west, then quarter turns counter-clockwise.

    Attributes
    ----------
    turns : int
        0 to 3.
    mirror : bool
        Whether to mirror.
    """

    turns: int = 0
    mirror: bool = False

    def moved(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """View of (…, y, x), turned."""
        flipped = values[..., ::-1] if self.mirror else values
        return np.rot90(flipped, self.turns, axes=(-2, -1)) if self.turns else flipped

    def redirect(self, values: FloatArray, variables: Sequence[str]) -> None:
        """Turn ``aspect_sin`` and ``aspect_cos`` among (channel, y, x) as the vector that they are, in place.

        All else is a number at its place. So is the hillshade, since the sun is turned with the ground.
        """
        if not (self.turns or self.mirror) or "aspect_sin" not in variables or "aspect_cos" not in variables:
            return
        east, north = (values[variables.index(name)].copy() for name in ("aspect_sin", "aspect_cos"))
        if self.mirror:
            east = -east
        for _ in range(self.turns % 4):
            east, north = -north, east
        values[variables.index("aspect_sin")], values[variables.index("aspect_cos")] = east, north


@dataclass(frozen=True)
class Light:
    """How one image is changed.

    Attributes
    ----------
    exponent : float
        On reflectance.
    gain, offset : dict of str to float
        On reflectance and to it, by variable; what is added to backscatter in dB is its offset.
    noise, start : float, int
        Standard deviation of noise in reflectance, and where in the bank of noise it begins.
    look, incidence : float or None
        Where the radar looks from, in radians from north by east, and its incidence angle: slopes that it sees get
        their brightness back. None leaves them.
    one_swir : bool
        Whether `swir22` becomes a copy of `swir16`.
    """

    exponent: float
    gain: Mapping[str, float]
    offset: Mapping[str, float]
    noise: float
    start: int
    look: float | None
    incidence: float | None
    one_swir: bool = False


def draw_light(variables: Collection[str], jitter: Jitter, rng: np.random.Generator) -> Light:
    """Draw the change of one image, of which these are the variables."""
    bands = sorted(REFLECTANCE.intersection(variables))
    gains = np.exp(rng.normal(0.0, jitter.gain) + rng.normal(0.0, jitter.band_gain, len(bands)))
    offsets = rng.normal(0.0, jitter.offset, len(bands))
    exponent = float(np.exp(rng.normal(0.0, jitter.gamma)))
    noise, start = float(jitter.noise * rng.random()), int(rng.integers(_NOISE_LENGTH))
    backscatter = sorted(name for name in variables if name.endswith("_db"))
    shifts = rng.normal(0.0, jitter.decibel) + rng.normal(0.0, jitter.decibel / 2, len(backscatter))
    bright = rng.random() < jitter.unflattened
    # With the incidence of Sentinel-1's interferometric wide swath, 30 to 46 degrees.
    look, incidence = float(rng.uniform(0, 2 * np.pi)), float(np.radians(rng.uniform(30, 46)))
    return Light(
        exponent,
        dict(zip(bands, gains.tolist(), strict=True)),
        dict(zip([*bands, *backscatter], [*offsets.tolist(), *shifts.tolist()], strict=True)),
        noise,
        start,
        look if bright else None,
        incidence if bright else None,
        jitter.one_swir > 0 and rng.random() < jitter.one_swir,
    )


def relight(values: FloatArray, variables: Sequence[str], light: Light) -> None:
    """Change the light of (channel, y, x), in place: reflectance and backscatter, and nothing else."""
    if light.one_swir and "swir16" in variables and "swir22" in variables:
        values[variables.index("swir22")] = values[variables.index("swir16")]
    lit = [i for i, name in enumerate(variables) if name in light.gain]
    if len(lit) == len(variables):
        # In one go: half of the time of going band by band.
        gain, offset = (
            np.array([each[name] for name in variables], np.float32)[:, None, None]
            for each in (light.gain, light.offset)
        )
        _relit(values, gain, offset, light)
        return
    for i, name in enumerate(variables):
        if i in lit:
            _relit(values[i], np.float32(light.gain[name]), np.float32(light.offset[name]), light)
        elif name in light.offset:
            values[i] += np.float32(light.offset[name])


def _relit(values: FloatArray, gain: FloatArray | np.float32, offset: FloatArray | np.float32, light: Light) -> None:
    if light.exponent != 1.0:
        # About 0.4, so that the exponent changes contrast and not brightness.
        np.maximum(values, np.float32(1e-4), out=values)
        np.log(values, out=values)
        values *= np.float32(light.exponent)
        values += np.float32((1.0 - light.exponent) * np.log(0.4))
        np.exp(values, out=values)
    values *= gain
    values += offset
    if light.noise:
        values += np.float32(light.noise) * _noise(light.start, values.size).reshape(values.shape)


def _noise(start: int, count: int) -> FloatArray:
    """White noise of deviation 1 from a bank: drawing it anew took a third of the time of a batch."""
    bank = _bank()
    if start + count <= len(bank):
        return bank[start : start + count]
    return np.take(bank, np.arange(start, start + count), mode="wrap")


@cache
def _bank() -> FloatArray:
    return np.random.default_rng(0).standard_normal(_NOISE_LENGTH, dtype=np.float32)


def foreshortening(slopes: Mapping[str, npt.NDArray[np.floating]], light: Light) -> FloatArray:
    """Brightness (y, x) in dB that slopes towards a radar gain: their area in the range pixel; 0 where not known.

    First order of Small (2011), doi:10.1109/TGRS.2011.2120616: 1 / (1 - tan(slope) cos(facing) / tan(incidence)).

    Parameters
    ----------
    slopes : mapping of str to (y, x) floating
        ``slope`` in degrees, ``aspect_sin``, ``aspect_cos``.
    light : Light
        With ``look`` and ``incidence``.
    """
    look, incidence = light.look or 0.0, light.incidence or 1.0
    slope, east, north = (slopes[name] for name in _SLOPE)
    facing = np.sin(look) * east + np.cos(look) * north
    tilt = np.tan(np.radians(np.minimum(slope, 80.0))) * facing / np.tan(incidence)
    gain: FloatArray = (-10.0 * np.log10(np.clip(1.0 - tilt, 0.15, 4.0))).astype(np.float32)
    return np.nan_to_num(gain, copy=False)


def choose_shown(
    available: Sequence[Modality], contract: Contract, sensors: Sensors, rng: np.random.Generator
) -> tuple[str, ...]:
    """Draw which of the modalities at hand a sample shows: never none that could define a pixel."""
    names = tuple(modality.name for modality in available)
    if rng.random() < sensors.whole or len(names) == 1:
        return names
    for _ in range(20):
        draws = rng.random(len(names))
        kept = tuple(
            modality.name
            for modality, draw in zip(available, draws, strict=True)
            if modality.required or draw < sensors.kept.get(modality.name, sensors.others)
        )
        if any(contract.modality(name).evidence for name in kept):
            return kept
    return names
