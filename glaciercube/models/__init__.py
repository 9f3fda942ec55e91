"""Models: what they take and give (the contract), how they are loaded, and the architectures."""

from glaciercube.models.classes import CLASSES, Output
from glaciercube.models.contract import GLACIER_PROBABILITY, VARIABLES, Contract, Modality
from glaciercube.models.reach import TimeContext, Windows
from glaciercube.models.registry import list_models, load_model, save_model

__all__ = [
    "CLASSES",
    "GLACIER_PROBABILITY",
    "VARIABLES",
    "Contract",
    "Modality",
    "Output",
    "TimeContext",
    "Windows",
    "list_models",
    "load_model",
    "save_model",
]
