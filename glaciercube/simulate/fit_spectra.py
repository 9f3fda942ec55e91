"""Compute the class statistics of `spectra.json` from tables of labelled Sentinel-2 pixels.

Run as ``python -m glaciercube.simulate.fit_spectra FOLDER [OUT]``; FOLDER holds ``sentinel2_sr_pixels.csv`` and
``sentinel2_toa_pixels.csv``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from glaciercube.errors import ReadError

__all__ = ["BANDS", "CLASSES", "fit", "main", "read_tables"]

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
CLASSES = {1: "snow", 2: "shadowed_snow", 3: "ice", 4: "rock", 5: "water"}
FLOOR = 1e-3  # reflectance; below it Sentinel-2's noise rules and a logarithm would only magnify it
PRIOR_SCENES = 6  # weight of the pooled covariance, in scenes: one for each band
SR_COLUMNS = ["B2", "B3", "B4", "B8", "B11", "B12"]
TOA_COLUMNS = ["B2", "B3", "B4", "B8", "B12"]
SCENE = ["site_name", "image_date"]

Array: TypeAlias = npt.NDArray[np.float64]
JsonDict: TypeAlias = dict[str, Any]

_METHOD = (
    "Statistics of natural-log reflectance, clipped at the floor first. means: means of the scenes, by name. "
    "mean: mean of these. between: "
    "covariance of the scenes' means, shrunk towards the covariance pooled over the classes, "
    "((n - 1) S + 6 P) / (n - 1 + 6), and multiplied by 1 + 1/n for the uncertainty of the mean itself. within: mean "
    "of the scenes' covariances. share_between: trace of the plain between-scene covariance over that trace plus the "
    "trace of within. Left out: the rows of Wolverine 2021-06-15 (its snow repeats Gulkana's spectra, its shadowed "
    "snow and ice are rock), spectra repeated within a scene and class, rows with a missing band. In the TOA table "
    "the column B11 holds the cirrus band B10, and B12 holds B11 (it correlates 0.98 with B11 of the SR table); TOA "
    "swir22 is therefore derived, pixel by pixel, as SR swir22 times TOA swir16 over SR swir16. atmosphere: for each "
    "scene and band, path and transmission of the least-squares line TOA = path + transmission * SR over its pixels "
    "out of shadow; diffuse: (TOA - path) of shadowed snow over that of snow, medians, for scenes that have both."
)


def read_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, JsonDict]:
    """Read both tables, put the bands in order and leave faulty and repeated rows out.

    Parameters
    ----------
    folder : Path
        Folder with the two CSV files, row by row the same pixels.

    Returns
    -------
    (boa, toa, counts)
        Tables with the columns `scene`, `class` and the six bands (reflectance), and the counts of rows.

    Raises
    ------
    ReadError
        If a file is missing or the tables do not describe the same pixels.
    """
    try:
        sr, toa = (pd.read_csv(folder / f"sentinel2_{level}_pixels.csv") for level in ("sr", "toa"))
    except OSError as error:
        problem = f"cannot read the spectra in {folder}: {error}"
        raise ReadError(problem, "give the folder of the two CSV files") from error
    same = [*SCENE, "class", "geometry"]
    if len(sr) != len(toa) or not (sr[same].to_numpy() == toa[same].to_numpy()).all():
        raise ReadError(f"the two tables in {folder} list different pixels", "use the tables as published")
    faulty = (sr["site_name"] == "Wolverine") & (sr["image_date"] == 20210615)
    repeated = sr.duplicated([*SCENE, "class", *SR_COLUMNS]) & ~faulty
    unfit = sr[SR_COLUMNS].isna().any(axis=1) & ~faulty & ~repeated
    keep = ~(faulty | repeated | unfit)
    counts = {
        "read": len(sr),
        "faulty_scene": int(faulty.sum()),
        "repeated": int(repeated.sum()),
        "incomplete": int(unfit.sum()),
        "kept": int(keep.sum()),
    }
    boa = sr.loc[keep, SR_COLUMNS].set_axis(list(BANDS), axis=1)
    top = toa.loc[keep, TOA_COLUMNS].set_axis(list(BANDS[:5]), axis=1)
    ratio = top["swir16"] / boa["swir16"].clip(lower=FLOOR)
    top["swir22"] = boa["swir22"] * ratio
    for table in (boa, top):
        table["class"] = sr.loc[keep, "class"].map(CLASSES)
        table["scene"] = sr.loc[keep, "site_name"] + " " + sr.loc[keep, "image_date"].astype(str)
    return boa, top, counts


def _scene_statistics(table: pd.DataFrame, name: str) -> tuple[Array, Array, int]:
    """Means (scene, band) and covariances (scene, band, band) of log reflectance of one class, and its pixels."""
    rows = table[table["class"] == name]
    logs = [np.log(part[list(BANDS)].clip(lower=FLOOR).to_numpy()) for _, part in rows.groupby("scene")]
    means = np.stack([part.mean(axis=0) for part in logs])
    covariances = np.stack([np.cov(part, rowvar=False) for part in logs])
    return means, covariances, len(rows)


def _class_statistics(table: pd.DataFrame) -> JsonDict:
    """Between- and within-scene statistics of every class of one level."""
    parts = {name: _scene_statistics(table, name) for name in CLASSES.values()}
    plain = {name: np.cov(means, rowvar=False) for name, (means, _, _) in parts.items()}
    freedom = {name: len(means) - 1 for name, (means, _, _) in parts.items()}
    pooled = sum(freedom[name] * plain[name] for name in parts) / sum(freedom.values())
    out: JsonDict = {}
    for name, (means, covariances, pixels) in parts.items():
        n = freedom[name] + 1
        shrunk = (freedom[name] * plain[name] + PRIOR_SCENES * pooled) / (freedom[name] + PRIOR_SCENES)
        within = covariances.mean(axis=0)
        share = np.trace(plain[name]) / (np.trace(plain[name]) + np.trace(within))
        out[name] = {
            "scenes": n,
            "pixels": pixels,
            "share_between": round(float(share), 3),
            "mean": np.round(means.mean(axis=0), 4).tolist(),
            "between": np.round(shrunk * (1 + 1 / n), 6).tolist(),
            "within": np.round(within, 6).tolist(),
            "means": np.round(means, 4).tolist(),
        }
    return out


def _atmosphere(boa: pd.DataFrame, toa: pd.DataFrame) -> JsonDict:
    """Path reflectance, transmission and diffuse share of each scene, (scene, band)."""
    out: JsonDict = {"scenes": [], "path": [], "transmission": [], "diffuse_scenes": [], "diffuse": []}
    for scene, surface in boa.groupby("scene"):
        top = toa.loc[surface.index]
        sunny = surface["class"] != "shadowed_snow"
        lines = [np.polyfit(surface.loc[sunny, band], top.loc[sunny, band], 1) for band in BANDS]
        path = np.clip([line[1] for line in lines], 0.0005, None)
        out["scenes"].append(str(scene))
        out["path"].append(np.round(path, 4).tolist())
        out["transmission"].append(np.round([min(line[0], 1.0) for line in lines], 4).tolist())
        if sunny.all():
            continue
        shadow, snow = (top.loc[top["class"] == name, list(BANDS)].median() for name in ("shadowed_snow", "snow"))
        share = ((shadow - path) / (snow - path)).clip(lower=0.02)
        out["diffuse_scenes"].append(str(scene))
        out["diffuse"].append(np.round(share.to_numpy(), 4).tolist())
    return out


def fit(folder: Path) -> JsonDict:
    """Compute everything that `spectra.json` holds.

    Parameters
    ----------
    folder : Path
        Folder with the two CSV files.

    Returns
    -------
    dict
        Source, method, counts, and per level (`boa`, `toa`) and class the statistics of log reflectance.

    Raises
    ------
    ReadError
        If a file is missing or the tables do not describe the same pixels.
    """
    boa, toa, counts = read_tables(folder)
    return {
        "source": "11.7k labelled Sentinel-2 pixels of Gulkana, Wolverine, South Cascade and Sperry glaciers, summer "
        "2021, surface and top-of-atmosphere reflectance; MIT licence; contains modified Copernicus Sentinel data 2021",
        "made_by": "python -m glaciercube.simulate.fit_spectra FOLDER",
        "method": _METHOD,
        "floor": FLOOR,
        "rows": counts,
        "bands": list(BANDS),
        "boa": _class_statistics(boa),
        "toa": _class_statistics(toa),
        "atmosphere": _atmosphere(boa, toa),
    }


def _compact(document: JsonDict) -> str:
    """JSON with one line for each class or entry: readable, and small in a diff."""
    lines = []
    for key, value in document.items():
        if key in ("boa", "toa", "atmosphere"):
            inner = ",\n".join(f'    "{name}": {json.dumps(entry)}' for name, entry in value.items())
            lines.append(f'  "{key}": {{\n{inner}\n  }}')
        else:
            lines.append(f'  "{key}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(arguments: list[str]) -> int:
    """Write the statistics beside this module, or to the second argument.

    Parameters
    ----------
    arguments : list of str
        Folder of the CSV files, and where to write (default: `spectra.json` in this package).

    Returns
    -------
    int
        0.

    Raises
    ------
    ReadError
        If no folder is given or it cannot be read.
    """
    if not arguments:
        raise ReadError("no folder was given", "run python -m glaciercube.simulate.fit_spectra FOLDER")
    out = Path(arguments[1]) if len(arguments) > 1 else Path(__file__).with_name("spectra.json")
    out.write_text(_compact(fit(Path(arguments[0]))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
