"""What several tests share: a small simulated world on disk, and the real data where they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from glaciercube.simulate.stac import write_catalog
from glaciercube.simulate.world import World, WorldOptions, simulate_world

pytest_plugins = ["services.fixtures"]

ROOT = Path(__file__).parents[1]

# `make test-all` asks for every long check; elsewhere each has a quick form.
FULL = bool(os.environ.get("GLACIERCUBE_FULL"))

# The quick form tries the same examples everywhere, however slow the machine; the full form tries new ones each time.
settings.register_profile("quick", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=1000, deadline=None)
settings.load_profile("full" if FULL else "quick")


# What long checks counted, printed at the end; processes that share the tests hand it to the first.
_SAID = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SAID] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["said"] = session.config.stash[_SAID]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_SAID] += getattr(node, "workeroutput", {}).get("said", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[_SAID]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Print a line at the end of all tests."""
    return pytestconfig.stash[_SAID].append


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
