"""Finding scenes: STAC APIs and static catalogues, frozen into `Scenes`."""

from __future__ import annotations

from glaciercube.catalog.find import SensorOptions, find
from glaciercube.catalog.interval import hull, parse_interval
from glaciercube.catalog.profile_file import load_profile
from glaciercube.catalog.profiles import PROFILES, Profile, signer
from glaciercube.catalog.scenes import Scenes
from glaciercube.catalog.unsigned import without_secrets

__all__ = [
    "PROFILES",
    "Profile",
    "Scenes",
    "SensorOptions",
    "find",
    "hull",
    "load_profile",
    "parse_interval",
    "signer",
    "without_secrets",
]
