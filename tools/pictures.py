"""Draw the pictures of the documentation from a simulated world: python tools/pictures.py."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import matplotlib as mpl

import glaciercube as gc
from glaciercube.simulate.stac import write_catalog
from glaciercube.simulate.world import WorldOptions, simulate_world
from glaciercube.view import plot_calendar, plot_companions

DOCS = Path(__file__).parents[1] / "docs"


def main() -> None:
    """Write docs/calendar.png and docs/companions.png."""
    mpl.use("Agg")
    logging.getLogger("odc.loader").setLevel(logging.CRITICAL)
    # Two fifths of the bright ice is called cloud in every scene, as real classifications do.
    world = simulate_world(WorldOptions(size=160, years=(2021, 2022), dates_per_year=4, false_cloud=0.4))
    with tempfile.TemporaryDirectory() as folder:
        scenes = gc.find(write_catalog(world, Path(folder) / "simulated"), world.region, "2021/2022")
        cube = gc.compose(gc.load(scenes, world.region))
        for name, figure in (
            ("calendar", plot_calendar(scenes, world.region)),
            ("companions", plot_companions(cube)),
        ):
            figure.savefig(DOCS / f"{name}.png", dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
