"""The commands. Every failure ends in one sentence and an exit code that is not 0."""

from __future__ import annotations

from glaciercube.cli.base import main
from glaciercube.cli.campaigns import explain, failed, run, update
from glaciercube.cli.change import change
from glaciercube.cli.evaluate import evaluate
from glaciercube.cli.keep import tidy
from glaciercube.cli.look import area, demo, find, models
from glaciercube.cli.samples import samples
from glaciercube.cli.train import train

__all__ = [
    "area",
    "change",
    "demo",
    "evaluate",
    "explain",
    "failed",
    "find",
    "main",
    "models",
    "run",
    "samples",
    "tidy",
    "train",
    "update",
]
