"""What several tests share: a small simulated world on disk, and the real data where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from glaciercube.simulate.stac import write_catalog
from glaciercube.simulate.world import World, WorldOptions, simulate_world

pytest_plugins = ["services.fixtures"]

ROOT = Path(__file__).parents[1]

# `make test-all` asks for every long check; elsewhere each has a quick form.
FULL = bool(os.environ.get("GLACIERCUBE_FULL"))

settings.register_profile("full", max_examples=1000, deadline=None)
if FULL:
    settings.load_profile("full")


@pytest.fixture(scope="session")
def world() -> World:
    return simulate_world(WorldOptions(seed=30, size=80, years=(2021, 2022), dates_per_year=2))


@pytest.fixture(scope="session")
def catalog(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(world, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data; named by GLACIERCUBE_REAL_DATA they must be there, else they may be missing."""
    named = os.environ.get("GLACIERCUBE_REAL_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if (folder / "khumbu" / "catalog.json").is_file() and (folder / "vinciguerra" / "catalog.json").is_file():
        return folder
    if named:
        pytest.fail(f"GLACIERCUBE_REAL_DATA names {named}, and the real data are not there")
    pytest.skip(f"the real data are not at {folder}; name their folder in GLACIERCUBE_REAL_DATA")
