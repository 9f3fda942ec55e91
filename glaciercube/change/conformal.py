"""Area intervals by split-conformal calibration: what simulated glaciers of known area say of the error.

Pixels are never taken as independent. The unit is the glacier: on each of many simulated glaciers, one per simulated
place, the error of the area is measured, and its empirical quantiles, corrected for their finite number
(Vovk et al. 2005; Lei et al. 2018, JASA 113:1094), are the interval of a new glacier, if it is exchangeable with
those: real glaciers are so only as far as the simulation resembles them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glaciercube.errors import ModelError, require

__all__ = ["Calibration", "error_scale", "find_calibration", "read_calibrations", "write_calibrations"]

SHIPPED = "calibrations.json"

# Glaciers are compared with those of which a like share of the outline was called ice, below, between and above these
# (Mondrian conformal prediction; Vovk et al. 2005, chapter 4.5): half-missed glaciers say nothing of nearly full ones.
SHARE_EDGES = (0.5, 0.8)

# Share of the clear area that counts as doubtful whatever the model says: a model that is sure may still be wrong.
LEAST_DOUBT = 0.02


def error_scale(doubt: Any, clear: Any) -> Any:
    """What errors of area are measured in: the area that the model itself is in doubt about.

    A glacier with dirty edges or debris then gets a wider interval than a clean one of the same size (normalised
    non-conformity scores; Papadopoulos et al. 2002, ECML, LNCS 2430).

    Parameters
    ----------
    doubt : number or array
        Sum over clear pixels of the smaller of p and 1 - p, as area.
    clear : number or array
        Area of the clear pixels, in the same unit.

    Returns
    -------
    number or array
        In that unit, above zero wherever ``clear`` is.
    """
    return doubt + LEAST_DOUBT * clear


@dataclass(frozen=True)
class Calibration:
    """Errors of area on calibration glaciers.

    Attributes
    ----------
    model, model_hash : str
        Which model; the hash decides.
    modalities : tuple of str
        What it was given, sorted.
    every : str
        ``"observation"`` or ``"year"``: which areas.
    scores : tuple of float
        One per glacier: (true - estimated area) / `error_scale`, dimensionless.
    shares : tuple of float
        One per glacier: share of the outline's clear area that was called ice.
    source : str
        How they came about.
    reflectance : str
        Level of the optical data: ``"surface"`` or ``"toa"``.
    resolution : (float, float)
        Pixel sizes, in metres, of the calibration places.
    """

    model: str
    model_hash: str
    modalities: tuple[str, ...]
    every: str
    scores: tuple[float, ...]
    shares: tuple[float, ...]
    source: str = ""
    reflectance: str = "surface"
    resolution: tuple[float, float] = (10.0, 30.0)

    def __post_init__(self) -> None:
        require(
            len(self.scores) == len(self.shares),
            f"{len(self.scores)} scores and {len(self.shares)} shares",
            "give one of each per glacier",
        )

    def quantiles(self, level: float, share: float) -> tuple[float, float]:
        """Lower and upper score of an interval that holds with probability ``level`` or more.

        Parameters
        ----------
        level : float
            Coverage, such as 0.9; each tail gets half of the rest.
        share : float
            Share of the clear area that was called ice; glaciers of a like share are compared with.

        Raises
        ------
        ModelError
            If there are too few such glaciers for that level.
        """
        alike = np.digitize(self.shares, SHARE_EDGES) == np.digitize(share, SHARE_EDGES)
        ordered = np.sort(np.asarray(self.scores)[alike])
        n = ordered.size
        # Rounded, since 1 - 0.9 is not quite 0.1.
        rank = math.ceil(round((n + 1) * (1 + level) / 2, 9))
        if rank > n:
            raise ModelError(
                f"{n} calibration glaciers do not carry a {level:.0%} interval",
                f"calibrate on at least {math.ceil(round(2 / (1 - level), 9)) - 1}, or ask for a lower level",
            )
        return float(ordered[n - rank]), float(ordered[rank - 1])

    def interval(self, series: pd.DataFrame, level: float = 0.9) -> pd.DataFrame:
        """Add ``lower_km2`` and ``upper_km2`` to an area series.

        Ground of the grid that no clear pixel shows may hold no ice or be all ice: the bounds allow for both.

        Parameters
        ----------
        series : DataFrame
            From `area_series`.
        level : float
            Coverage.

        Raises
        ------
        ModelError
            If there are too few calibration glaciers for that level.
        """
        clear = series["coverage"] * series["outline_area_km2"]
        hidden = (series["outline_area_km2"] * series["in_grid"] - clear).clip(lower=0)
        share = (series["area_km2"] / clear).fillna(0.0)
        low, high = np.array([self.quantiles(level, one) for one in share]).T
        scale = error_scale(series["doubt_km2"], clear)
        lower = (series["area_km2"] + low * scale).clip(lower=0)
        upper = np.minimum(series["area_km2"] + high * scale, clear) + hidden
        # The estimate itself stays inside, also where the calibration glaciers all erred to one side.
        return series.assign(
            lower_km2=np.minimum(lower, series["area_km2"]), upper_km2=np.maximum(upper, series["area_km2"])
        )


def read_calibrations(path: str | Path | None = None) -> list[Calibration]:
    """Read calibrations from a file, or those that come with the package.

    Raises
    ------
    ModelError
        If the file cannot be read.
    """
    if path is None:
        return list(_shipped())
    try:
        return _parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is not a file of calibrations ({error})", "write it with write_calibrations"
        ) from error


def write_calibrations(calibrations: Iterable[Calibration], path: str | Path) -> Path:
    """Write calibrations as JSON."""
    content = [
        {**asdict(one), **{name: [round(value, 5) for value in getattr(one, name)] for name in ("scores", "shares")}}
        for one in calibrations
    ]
    path = Path(path)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def find_calibration(
    model_hash: str, modalities: Iterable[str], every: str, *, path: str | Path | None = None
) -> Calibration | None:
    """The calibration made for a model, its inputs and kind of area; None if there is none."""
    wanted = (model_hash, tuple(sorted(modalities)), every)
    return next((one for one in read_calibrations(path) if (one.model_hash, one.modalities, one.every) == wanted), None)


@cache
def _shipped() -> tuple[Calibration, ...]:
    file = resources.files("glaciercube.change") / SHIPPED
    return tuple(_parse(file.read_text(encoding="utf-8"))) if file.is_file() else ()


def _parse(text: str) -> list[Calibration]:
    def tuples(one: dict[str, Any]) -> Any:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in one.items()}

    return [Calibration(**tuples(one)) for one in json.loads(text)]
