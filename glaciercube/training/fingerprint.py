"""What a fit is told from others by: a checkpoint goes on with its own model, weights, chips and options alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from glaciercube.models.base import GlacierModule, content_hash
from glaciercube.models.chips import Chip
from glaciercube.models.contract import Contract
from glaciercube.training.options import FitOptions

__all__ = ["chip_hash", "chips_hash", "differences", "fit_identity"]

# They change when something is written, and not what.
_FREE = ("every", "workers", "tensorboard")


def fit_identity(
    module: GlacierModule,
    contract: Contract,
    options: FitOptions,
    chips: Sequence[Chip],
    validation: Sequence[Chip],
) -> dict[str, str]:
    """What two fits must have in common to be the same one.

    Parameters
    ----------
    module : GlacierModule
        With the weights that it begins with.
    contract, options, chips, validation
        As of `glaciercube.training.fit.fit`.

    Returns
    -------
    dict of str to str
        By what people call it. A fold is told by its chips: each has others.
    """
    found = {
        "model": contract.fingerprint,
        "starting weights": content_hash(contract, module),
        "training chips": chips_hash(chips),
        "validation chips": chips_hash(validation),
    }
    settled = {f"option {name}": value for name, value in asdict(options).items() if name not in _FREE}
    return found | {name: json.dumps(value, sort_keys=True) for name, value in settled.items()}


def differences(own: Mapping[str, str], other: Mapping[str, str]) -> tuple[str, ...]:
    """What of one's own another fit does not have, by name."""
    return tuple(name for name, value in own.items() if other.get(name) != value)


def chips_hash(chips: Sequence[Chip]) -> str:
    """Sha256 (hex) over chips in their order.

    Sequences that read their chips when they are asked for, and know what they would read, say so by an attribute
    ``fingerprint``; of others every chip is looked at, some 2 GB a second.
    """
    known: str | None = getattr(chips, "fingerprint", None)
    if known is not None:
        return known
    digest = hashlib.sha256()
    for chip in chips:
        digest.update(chip_hash(chip))
    return digest.hexdigest()


def chip_hash(chip: Chip) -> bytes:
    """Sha256 over all that a fit sees of a chip, to the last bit: names, labels, dates and pixels."""
    arrays = {**chip.variables, "the label": chip.label, "the weight": chip.weight, "the time": chip.time}
    plain = {name: np.ascontiguousarray(values) for name, values in sorted(arrays.items())}
    labels = [[name, list(classes)] for name, classes in chip.labels.items()]
    said = [[name, values.dtype.str, values.shape] for name, values in plain.items()]
    digest = hashlib.sha256(json.dumps([chip.name, labels, said]).encode())
    for values in plain.values():
        digest.update(values.view(np.uint8).data)
    return digest.digest()
