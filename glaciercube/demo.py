"""The demonstration: a simulated world, mapped year by year, held against its truth."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from glaciercube.campaign import RunOptions, run
from glaciercube.change import AreaOptions, TerrainWarning, area_series, clear_maps, regional_area, terrain_use
from glaciercube.config import Config, ModelConfig, RegionConfig
from glaciercube.cube import compose, load
from glaciercube.errors import StoreError
from glaciercube.models import load_model
from glaciercube.simulate.stac import write_catalog
from glaciercube.simulate.world import World, WorldOptions, simulate_world
from glaciercube.store import StoreOptions, open_store

__all__ = ["DemoResult", "run_demo"]

STORE = "glacier_probability.zarr"
TABLE, PICTURE = "area.csv", "change.png"


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demonstration gives.

    Attributes
    ----------
    table : DataFrame
        Per year: ``year``, ``ice_km2``, ``true_km2``, ``low_km2``, ``high_km2`` (90 % interval), ``seen`` (share).
    store, picture, csv : Path
        The probability store, the figure, and the area of every glacier and year.
    """

    table: pd.DataFrame
    store: Path
    picture: Path
    csv: Path


def run_demo(
    folder: str | Path,
    options: WorldOptions | None = None,
    *,
    model: str = "fusion-unet",
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> DemoResult:
    """Simulate a world, run the main job on it, and compare with the truth.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there; a world of an earlier call is used again, or gives way to another.
    options : WorldOptions or None
        The world.
    model : str
        Which model.
    progress : bool
        Show progress bars.
    say : callable
        Told in a line what happens next.

    Raises
    ------
    StoreError
        If the folder holds files of these names that no demonstration wrote.
    GlaciercubeError
        As the rooms that it passes through raise them.
    """
    folder = Path(folder)
    load_model(model)  # a misspelt name should not wait for a world
    _check_ours(folder)
    say("simulating a glacierised world and writing it as COGs and STAC items")
    world = simulate_world(options or WorldOptions())
    catalog = _written(world, folder, progress=progress)
    config = _config(world, catalog, folder / STORE, model)
    say("searching, and planning the run")
    plan = config.plan()
    say(f"running {model} over {len(plan.rows)} dates of {len(plan.scenes)} scenes")
    run(plan, RunOptions(progress=progress), config.as_dict())
    say("reading areas from the store")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TerrainWarning)
        series = area_series(config.store.path, world.outlines, "year")
    caveat = terrain_use(open_store(config.store.path)).text
    if caveat:
        say(caveat)
    csv = folder / TABLE
    series.to_csv(csv, index=False, float_format="%.4f")
    truth = world.true_area().groupby("year")["area_km2"].sum().reset_index()
    return DemoResult(
        _table(series, truth), Path(config.store.path), _picture(config, world, series, truth, folder), csv
    )


def _stamp(folder: Path) -> Path:
    """The file by which a world is known to be of a demonstration."""
    return folder / "world" / "options.json"


def _check_ours(folder: Path) -> None:
    """Refuse a folder in which a user's own files would go."""
    theirs = [name for name in ("world", STORE, TABLE, PICTURE) if (folder / name).exists()]
    if theirs and not _stamp(folder).is_file():
        raise StoreError(
            f"there is something at {folder / theirs[0]} that no demonstration is known to have written",
            "choose another folder",
        )


def _written(world: World, folder: Path, *, progress: bool) -> Path:
    """The catalogue of this world, from an earlier call where there is one; another world's goes, with its store."""
    stamp, wanted = _stamp(folder), json.dumps(asdict(world.options), sort_keys=True)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return folder / "world" / "catalog.json"
    for old in ("world", STORE):
        shutil.rmtree(folder / old, ignore_errors=True)
    # From the beginning: what is left of a call that was stopped is ours too.
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text("unfinished", encoding="utf-8")
    path = write_catalog(world, folder / "world", progress=progress)
    stamp.write_text(wanted, encoding="utf-8")
    return path


def _config(world: World, catalog: Path, store: Path, model: str) -> Config:
    first, *_, last = (*world.options.years, world.options.years[-1])
    return Config(
        region=RegionConfig(
            resolution=world.region.resolution,
            name="simulated",
            bbox=world.region.bbox,
            crs=str(world.region.geobox.crs),
        ),
        catalog=str(catalog),
        time=f"{first}-01-01/{last}-12-31",
        store=StoreOptions(str(store), shard=256),
        model=ModelConfig(model),
    )


def _table(series: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    total = regional_area(series)
    return pd.DataFrame(
        {
            "year": total["time"].dt.year,
            "ice_km2": total["area_km2"],
            "true_km2": truth.set_index("year").loc[total["time"].dt.year, "area_km2"].to_numpy(),
            "low_km2": total["lower_km2"],
            "high_km2": total["upper_km2"],
            "seen": total["coverage"],
        }
    )


def _picture(config: Config, world: World, series: pd.DataFrame, truth: pd.DataFrame, folder: Path) -> Path:
    from glaciercube.view import plot_change

    cube = compose(load(config.find(world.region).of("sentinel-2"), world.region), "year")
    ends = [0, cube.sizes["time"] - 1]
    years = cube["time"].dt.year.to_numpy()[ends]
    images = [
        (f"{year}, median of the clear dates (SWIR / NIR / red)", cube[["swir16", "nir", "red"]].isel(time=i).compute())
        for i, year in zip(ends, years, strict=True)
    ]
    stored = open_store(config.store.path)
    clear = {time.year: found for time, found, _ in clear_maps(stored, AreaOptions(every="year"))}
    maps = [
        (f"{year}, glacier probability", stored["glacier_probability"][0].copy(data=clear[int(year)])) for year in years
    ]
    figure = plot_change(
        images,
        maps,
        regional_area(series),
        truth=truth.assign(time=pd.to_datetime(truth["year"].astype(str))),
        outlines=world.outlines,
        title=f"Simulated glaciers {years[0]}-{years[1]}; yellow: outlines of {years[0]}",
    )
    path = folder / PICTURE
    figure.savefig(path)
    return path
