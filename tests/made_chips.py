"""Chips that are quickly made and quickly learned."""

from __future__ import annotations

import numpy as np

from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.models.contract import Contract


def made_chip(contract: Contract, number: int, *, size: int = 40, dates: int = 3) -> Chip:
    """A round glacier that every variable shows, with noise, at several dates."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:size, 0:size]
    ice = np.hypot(y - rng.uniform(0, size), x - rng.uniform(0, size)) < size / 2
    variables: dict[str, np.ndarray] = {}
    for modality in contract.modalities:
        for name, mean, std in zip(modality.variables, modality.mean, modality.std, strict=True):
            shape = (size, size) if modality.static else (dates, size, size)
            shown = mean + std * np.where(ice, 1.0, -1.0) * (0.2 if modality.name == "optical" else 1.0)
            variables[name] = (shown + 0.1 * std * rng.standard_normal(shape)).astype(np.float32)
    label = np.broadcast_to(ice.astype(np.uint8), (dates, size, size)).copy()
    label[:, :2] = UNKNOWN
    ground, glacier = contract.classes[:2]
    if "land" in contract.classes or "other" in contract.classes:
        ground, glacier = ("land", "glacier") if "land" in contract.classes else ("other", "clean_ice")
    return Chip(
        variables,
        label,
        {"ground": (ground,), "ice": (glacier,)},
        np.ones(label.shape, np.float32),
        np.datetime64("2020-07-01", "s") + np.arange(dates) * np.timedelta64(10 * 86400, "s"),
        10.0,
        f"made {number}",
        place=f"place {number}",
        centre=(10.0 + number, 46.0),
    )
