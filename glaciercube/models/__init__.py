"""Models: what they take and give (the contract), how they are loaded, and the architectures."""

from glaciercube.models.contract import GLACIER_PROBABILITY, VARIABLES, Contract, Modality
from glaciercube.models.registry import list_models, load_model, save_model

__all__ = ["GLACIER_PROBABILITY", "VARIABLES", "Contract", "Modality", "list_models", "load_model", "save_model"]
