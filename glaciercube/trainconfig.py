"""The configuration of a training, in YAML: a cube, if samples are of one, and what to do with them."""

from __future__ import annotations

from dataclasses import dataclass

from glaciercube.config import CubeConfig
from glaciercube.training.job import TrainJob

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig(CubeConfig, TrainJob):
    """A training, as the user writes it: `glaciercube.config.CubeConfig` and `glaciercube.training.job.TrainJob`."""
