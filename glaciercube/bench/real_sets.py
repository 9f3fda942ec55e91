"""Openly published measurements as chips. None of them comes with the package: a folder is given that holds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glaciercube.bench.sets import BenchSet, grouped_by_distance
from glaciercube.cube.terrain import terrain_variables
from glaciercube.errors import ConfigError
from glaciercube.models.chips import Chip

__all__ = ["FOLDER", "REAL_SETS", "debris_hma", "real_folder", "spectra", "vinciguerra"]

#: Environment variable that names the folder.
FOLDER = "GLACIERCUBE_REAL_DATA"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
TERRAIN = ("slope", "aspect_sin", "aspect_cos", "curvature")
RELIEF = ("topographic_position",)
#: Side in pixels of the patch that a labelled pixel is shown as: the largest stride of the architectures.
PATCH = 32
# Tiles whose edges are nearer than this are left out together: one valley and its neighbour.
_APART = 2000.0
_BRIGHT = ("clean_ice", "seasonal_snow")


def real_folder(given: str | Path | None = None) -> Path:
    """The folder of the real sets.

    Parameters
    ----------
    given : str or Path, optional
        Instead of the environment variable ``GLACIERCUBE_REAL_DATA``.

    Raises
    ------
    ConfigError
        If none is named, or it is not there.
    """
    named = given or os.environ.get(FOLDER)
    if not named or not Path(named).is_dir():
        raise ConfigError(
            f"the real sets are not at {named}" if named else "no folder of the real sets is named",
            f"give --data FOLDER or set {FOLDER}; docs/benchmark.md says what it holds and where it is published",
        )
    return Path(named)


def vinciguerra(folder: Path) -> BenchSet:
    """Vinciguerra, Tierra del Fuego: Sentinel-2 L1C of three summers on the native 10 m grid, a label for each.

    Reflectance is read through the catalogue, so that its offset rules hold. There is no elevation, so no hillshade.
    """
    import rasterio
    from odc.geo.geobox import GeoBox

    from glaciercube.catalog import SensorOptions, find
    from glaciercube.cube import compose, load
    from glaciercube.region import Region

    found: dict[str, npt.NDArray[np.bool_]] = {}
    for path in sorted((folder / "reference").glob("vinciguerra_label_*.tif")):
        with rasterio.open(path) as source:
            found[path.stem[-4:]] = source.read(1) == 1
            grid = GeoBox(source.shape, source.transform, str(source.crs))
    _some(found, folder, "reference/vinciguerra_label_YEAR.tif")
    region = Region("vinciguerra", grid)
    wanted = {"sentinel-2": SensorOptions("sentinel-2-l1c")}
    cube = compose(load(find(folder / "catalog.json", region, "2019/2021", wanted), region))[list(BANDS)].compute()
    centre = grid.extent.to_crs("EPSG:4326").centroid.coords[0]
    chips = []
    for number, (year, label) in enumerate(found.items()):
        variables = {name: cube[name].to_numpy()[number][None] for name in BANDS}
        chips.append(
            Chip(
                variables,
                label[None].astype(np.uint8),
                {"other": ("other", "debris_covered_ice", "water"), "glacier": _BRIGHT},
                np.isfinite(variables["swir16"]).astype(np.float32),
                cube["time"].to_numpy()[number : number + 1].astype("datetime64[s]"),
                10.0,
                f"vinciguerra {year}",
                "vinciguerra",
                (float(centre[0]), float(centre[1])),
                label.astype(np.int32),
                {"reflectance": "toa"},
            )
        )
    return BenchSet(
        "vinciguerra",
        tuple(chips),
        tuple(found),
        ("glacier",),
        "its label holds snow patches and drops dirty ice: glacier = clean ice + seasonal snow; "
        "other = other, debris-covered ice, water",
        "one year left out: the place is the same, so this measures the year and not the place",
        ("top-of-atmosphere reflectance, one low-cloud mosaic a year; no elevation model",),
        modalities={"optical": BANDS},
    )


def debris_hma(folder: Path, *, step: int = 1) -> BenchSet:
    """Debris-covered ice in the western Himalaya: tiles of 500 pixels of 10 m, undated.

    Slope is given; aspect and curvature are taken of the elevation, which is in whole metres, after a Gaussian of two
    pixels (rounding alone makes a curvature of 0.013 / m at 10 m). Coherence is stored as 8-bit numbers from 132 up;
    (n - 128) / 127, from 0.03 to 0.87, is inferred, not documented. The thermal band is left out: no variable of a
    cube holds it.

    Parameters
    ----------
    folder : Path
        With ``imageN.tif`` and ``labelN.tif``.
    step : int
        Only so many-th part of each side, from the middle.
    """
    import rasterio
    from pyproj import Transformer

    chips, boxes = [], []
    for path in sorted(folder.glob("image*.tif")):
        with rasterio.open(path) as source, rasterio.open(folder / path.name.replace("image", "label")) as truth:
            boxes.append(tuple(source.bounds))
            layers, label = source.read().astype(np.float32), truth.read(1) == 1
            lonlat = Transformer.from_crs(source.crs, 4326, always_xy=True)
        left, bottom, right, top = boxes[-1]
        centre = lonlat.transform((left + right) / 2, (bottom + top) / 2)
        chips.append(_tile(layers, label, path.stem.removeprefix("image"), centre, step))
    _some(chips, folder, "imageN.tif")
    numbers = grouped_by_distance(boxes, _APART)
    names = ["+".join(c.place for c, n in zip(chips, numbers, strict=True) if n == group) for group in numbers]
    return BenchSet(
        "debris_hma",
        tuple(chips),
        tuple(names),
        ("debris",),
        "its label is debris-covered ice alone: debris = debris-covered ice; other = all else, clean ice among it",
        f"tiles nearer than {_APART / 1000:g} km to each other are left out together (113 and 114 lie 193 m apart)",
        (
            "undated (2017-01-01 stands for it), coherence by an inferred scale, thermal band not used",
            "aspect and curvature are taken of the elevation, smoothed against its rounding to metres",
            "no swir22: shipped models, tuned or not, are given swir16 twice; the others get five bands",
        ),
        stand_ins={"swir22": "swir16"},  # training showed the shipped models some images so
        modalities={"optical": BANDS[:5], "coherence": ("coherence",), "terrain": TERRAIN, "relief": RELIEF},
    )


def _tile(
    layers: npt.NDArray[np.float32],
    label: npt.NDArray[np.bool_],
    number: str,
    centre: tuple[float, float],
    step: int,
) -> Chip:
    from scipy.ndimage import gaussian_filter

    # Numbers of 0 in an optical band are missing; there are none in what was published.
    bands = np.where(layers[:5] > 0, layers[:5] / 10_000, np.nan).astype(np.float32)
    terrain = terrain_variables(gaussian_filter(layers[8].astype(np.float64), 2.0, mode="nearest"), 10.0)
    variables: dict[str, npt.NDArray[np.floating]] = dict(zip(BANDS[:5], bands[:, None], strict=True))
    variables["coherence"] = ((layers[6] - 128) / 127)[None]
    variables |= terrain | {"slope": layers[7], "elevation": layers[8]}
    side = label.shape[0] // step
    first = (label.shape[0] - side) // 2
    cut = (slice(first, first + side),) * 2
    variables = {name: np.ascontiguousarray(values[(..., *cut)]) for name, values in variables.items()}
    return Chip(
        variables,
        label[cut][None].astype(np.uint8),
        {"other": ("other", "clean_ice", "seasonal_snow", "water"), "debris": ("debris_covered_ice",)},
        np.isfinite(variables["swir16"]).astype(np.float32),
        np.array(["2017-01-01"], "datetime64[s]"),
        10.0,
        f"debris_hma {number}",
        number,
        centre,
        attributes={"reflectance": "toa", "dated": False},
    )


#: Labels of the pixels, in the table's order from 1.
SPECTRA: Mapping[str, tuple[str, ...]] = {
    "snow": _BRIGHT,
    "shadowed_snow": _BRIGHT,
    "ice": ("clean_ice",),
    "rock_debris": ("other", "debris_covered_ice"),
    "water": ("water",),
}


def spectra(folder: Path, *, most: int = 25) -> BenchSet:
    """Labelled pixels of four North American glaciers, each shown as a patch that is the same everywhere.

    Wolverine 2021-06-15 is left out: its snow rows repeat Gulkana's spectra and its shadowed snow and ice are rock. In
    the table of top-of-atmosphere values the column ``B11`` is the cirrus band (median 0.001 on rock, at most 0.073)
    and ``B12`` is B11 (it correlates at 0.76 with B11 of the surface table on rock, 0.71 with B12): it is read as
    swir16, and swir22 is missing there.

    Parameters
    ----------
    folder : Path
        With ``sentinel2_sr_pixels.csv`` and ``sentinel2_toa_pixels.csv``.
    most : int
        Pixels of each class and scene, evenly spaced in the table.
    """
    surface, sites = _pixels(folder / "sentinel2_sr_pixels.csv", BANDS, most)
    top, _ = _pixels(folder / "sentinel2_toa_pixels.csv", BANDS[:5], most)
    return BenchSet(
        "spectra",
        surface,
        sites,
        ("snow", "shadowed_snow", "ice"),
        "snow and ice = clean ice + seasonal snow, against rock or debris (other, debris-covered ice) and water",
        "one glacier left out",
        (
            (
                f"labelled pixels, at most {most} of each class and scene, each shown as a patch of {PATCH} pixels "
                "that is the same everywhere; the middle pixel is scored"
            ),
            (
                "Wolverine 2021-06-15 is faulty and left out; surface reflectance, top of the atmosphere for rules "
                "that want it (there the columns B11 and B12 are B10 and B11)"
            ),
        ),
        modalities={"optical": BANDS},
        top=top,
    )


def _pixels(path: Path, bands: tuple[str, ...], most: int) -> tuple[tuple[Chip, ...], tuple[str, ...]]:
    """Patches of a table, and the glacier of each; where there are five bands the shortwave infrared is ``B12``."""
    import pandas as pd

    if not path.is_file():
        _some((), path.parent, path.name)
    top = len(bands) < len(BANDS)
    names = ("B2", "B3", "B4", "B8", "B12") if top else ("B2", "B3", "B4", "B8", "B11", "B12")
    columns = dict(zip(names, bands, strict=True))
    table = pd.read_csv(path)
    faulty = (table["site_name"] == "Wolverine") & (table["image_date"] == 20210615)
    table = table[~faulty].dropna(subset=["B2", "B3", "B4", "B8", "B11"]).rename(columns=columns)
    chips: list[Chip] = []
    sites: list[str] = []
    for (site, date, number), rows in table.groupby(["site_name", "image_date", "class"], sort=True):
        spread = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
        for row in spread:
            values = {name: float(rows[name].iloc[row]) for name in bands}
            kind = "toa" if top else "surface"
            chips.append(_patch(values, int(str(number)) - 1, f"{site} {date} {number}-{row}", str(date), kind))
            sites.append(str(site))
    return tuple(chips), tuple(sites)


def _patch(values: Mapping[str, float], label: int, name: str, date: str, reflectance: str) -> Chip:
    shape = (1, PATCH, PATCH)
    weight = np.ones(shape, np.float32)
    return Chip(
        # Views of one number: a thousand patches take no memory.
        {key: np.broadcast_to(np.float32(value), shape) for key, value in values.items()},
        np.broadcast_to(np.uint8(label), shape),
        SPECTRA,
        weight,
        np.array([f"{date[:4]}-{date[4:6]}-{date[6:]}"], "datetime64[s]"),
        10.0,
        name,
        name,
        attributes={"reflectance": reflectance, "middle": True},
    )


def _some(found: object, folder: Path, wanted: str) -> None:
    if not found:
        raise ConfigError(f"{folder} holds no {wanted}", "give the folder as it was published; see docs/benchmark.md")


#: Each set, read from the folder that holds all of them; small ones for a quick look.
REAL_SETS: Mapping[str, Callable[..., BenchSet]] = {
    "vinciguerra": lambda folder, small=False: vinciguerra(folder / "vinciguerra"),  # noqa: ARG005 - it is small
    "debris_hma": lambda folder, small=False: debris_hma(folder / "debris_hma", step=5 if small else 1),
    "spectra": lambda folder, small=False: spectra(folder / "spectra", most=4 if small else 25),
}
