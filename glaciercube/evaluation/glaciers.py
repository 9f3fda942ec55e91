"""Scores of each glacier, and of glaciers of like size or debris cover."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from glaciercube.evaluation.cases import Case
from glaciercube.evaluation.segmentation import confusion

__all__ = [
    "COLUMNS",
    "DEBRIS_EDGES",
    "MARGIN",
    "SIZE_EDGES",
    "Glacier",
    "Group",
    "by_debris",
    "by_size",
    "each_glacier",
    "glacier_table",
    "glacier_zones",
    "hidden_glaciers",
]

#: Limits of size classes in km2.
SIZE_EDGES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
#: Limits of classes of debris-covered share of a glacier's ice.
DEBRIS_EDGES = (0.01, 0.1, 0.5)
#: Metres around a glacier that still count as its own.
MARGIN = 100.0
#: Smallest glacier, km2: that of the RGI (Pfeffer et al. 2014, doi:10.3189/2014JoG13J176).
LEAST = 0.01
# Share of a glacier's zone that must be seen to say how large the glacier is.
_LEAST_SEEN = 0.5
_SCORES = ("area_km2", "iou", "f1", "precision", "recall", "error", "bias", "mapped_bias", "debris_share")

COLUMNS = (
    "name",
    "glacier",
    "time",
    "area_km2",
    "seen",
    "true_km2",
    "expected_km2",
    "mapped_km2",
    "iou",
    "f1",
    "precision",
    "recall",
    "debris_share",
    "cut",
)


@dataclass(frozen=True)
class Glacier:
    """Scores of one glacier: means over its images.

    Attributes
    ----------
    name : str
        Chip or store.
    glacier : str
        Its name or number there.
    images : int
        Images of it.
    area_km2 : float
        Its true area.
    iou, f1, precision, recall, error, bias, mapped_bias : float
        As in `Group`.
    debris_share : float
        Of its ice; NaN where not known.
    cut : bool
        Whether the image's edge cuts it.
    """

    name: str
    glacier: str
    images: int
    area_km2: float
    iou: float
    f1: float
    precision: float
    recall: float
    error: float
    bias: float
    mapped_bias: float
    debris_share: float
    cut: bool


@dataclass(frozen=True)
class Group:
    """Glaciers of one kind. Each glacier counts once: its images are averaged first. NaN without glaciers.

    Attributes
    ----------
    name : str
        Of the kind, such as ``"0.1-0.2 km2"``.
    glaciers, images : int
        Glaciers, and images of them.
    cut : int
        Glaciers that the image's edge cuts; they stand in the size class of the part that is seen.
    area_km2 : float
        Sum of their true areas.
    iou, f1, precision, recall : float
        Means over glaciers.
    error, median_error : float
        Mean and median over glaciers of abs(sum p - A) / A: expected against true area.
    bias : float
        Mean over glaciers of (sum p - A) / A.
    mapped_bias : float
        The same of the area above the threshold.
    """

    name: str
    glaciers: int
    images: int
    cut: int
    area_km2: float
    iou: float
    f1: float
    precision: float
    recall: float
    error: float
    median_error: float
    bias: float
    mapped_bias: float


def glacier_zones(case: Case, margin: float = MARGIN) -> npt.NDArray[np.int32]:
    """The ground that counts for each glacier: its own, and what is nearest to it within a margin.

    What is mapped outside an outline then counts against the nearest glacier. Without numbers of glaciers each patch of
    ice that touches by edges or corners is one.

    Parameters
    ----------
    case : Case
        With numbers of glaciers or without.
    margin : float
        In metres.

    Returns
    -------
    (y, x) int32
        Number of the glacier, 0 for none.
    """
    if case.glaciers is None:
        numbers = np.asarray(ndimage.label(case.truth & case.known, np.ones((3, 3)))[0], np.int32)
    else:
        numbers = case.glaciers
    if not numbers.any():
        return np.zeros(case.truth.shape, np.int32)
    distance, index = ndimage.distance_transform_edt(numbers == 0, sampling=case.resolution, return_indices=True)
    zones: npt.NDArray[np.int32] = np.where(distance <= margin, numbers[tuple(index)], 0).astype(np.int32)
    return zones


def glacier_table(cases: Iterable[Case], *, threshold: float = 0.5, margin: float = MARGIN) -> pd.DataFrame:
    """Score each glacier in each image.

    Parameters
    ----------
    cases : iterable of Case
        Images.
    threshold : float
        Probability above which a pixel is said to be ice.
    margin : float
        Metres around a glacier that count as its own, see `glacier_zones`.

    Returns
    -------
    DataFrame
        A row per glacier of 0.01 km2 or more, and image: ``area_km2``, all of its true ice; ``seen``, share of its
        zone that counts and has a probability; ``true_km2``, ``expected_km2`` (sum of probability) and ``mapped_km2``
        (above the threshold), of the seen part; ``iou``, ``f1``, ``precision``, ``recall``; ``debris_share`` of its
        ice, NaN where debris is not known; ``cut``, whether the image's edge cuts it.
    """
    rows = [row for case in cases for row in _rows(case, threshold, margin)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def each_glacier(table: pd.DataFrame) -> tuple[Glacier, ...]:
    """The glaciers of `glacier_table`, the largest first."""
    rows = _per_glacier(table).sort_values("area_km2", ascending=False).reset_index()
    found = []
    for row in rows.to_dict("records"):
        name, number, images = str(row["name"]), str(row["glacier"]), int(row["images"])
        scores: dict[str, Any] = {key: float(row[key]) for key in _SCORES}
        found.append(Glacier(name, number, images, cut=bool(row["cut"]), **scores))
    return tuple(found)


def by_size(table: pd.DataFrame) -> tuple[Group, ...]:
    """Group the glaciers of `glacier_table` by their mean true area; all of them first."""
    names = _names(SIZE_EDGES, " km2")
    return _groups(table, "area_km2", SIZE_EDGES, names)


def by_debris(table: pd.DataFrame) -> tuple[Group, ...]:
    """Group the glaciers of `glacier_table` by the debris-covered share of their ice."""
    names = _names([100 * edge for edge in DEBRIS_EDGES], " % debris")
    return (*_groups(table, "debris_share", DEBRIS_EDGES, names)[1:], _unknown_debris(table))


def hidden_glaciers(table: pd.DataFrame) -> int:
    """Rows of `glacier_table` that are in no group, since less than half of the glacier's zone is seen."""
    return int((table["seen"] < _LEAST_SEEN).sum())


def _rows(case: Case, threshold: float, margin: float) -> Iterator[dict[str, Any]]:
    zones = glacier_zones(case, margin)
    own = np.where(case.truth | (False if case.glaciers is None else case.glaciers > 0), zones, 0)
    pixel = case.resolution**2 / 1e6
    said = case.probability > threshold
    seen = case.seen
    for number, window in enumerate(ndimage.find_objects(zones), start=1):
        if window is None:
            continue  # type: ignore[unreachable]
        here = zones[window] == number
        ice = case.truth[window] & case.known[window] & here
        area = float(ice.sum() * pixel)
        if area < LEAST:
            continue
        shown = seen[window] & here
        found = confusion(said[window], case.truth[window], shown)
        yield {
            "name": case.name,
            "glacier": case.names.get(number, str(number)),
            "time": case.time,
            "area_km2": area,
            "seen": float(shown.sum() / here.sum()),
            "true_km2": float((ice & shown).sum() * pixel),
            "expected_km2": float(case.probability[window][shown].sum(dtype=np.float64) * pixel),
            "mapped_km2": float((said[window] & shown).sum() * pixel),
            "iou": found.iou,
            "f1": found.f1,
            "precision": found.precision,
            "recall": found.recall,
            "debris_share": math.nan if case.debris is None else float((case.debris[window] & ice).sum() / ice.sum()),
            "cut": _touches_edge(own, number),
        }


def _touches_edge(own: npt.NDArray[np.int32], number: int) -> bool:
    return any((edge == number).any() for edge in (own[0], own[-1], own[:, 0], own[:, -1]))


def _per_glacier(table: pd.DataFrame) -> pd.DataFrame:
    shown = table[(table["seen"] >= _LEAST_SEEN) & (table["true_km2"] > 0)]
    shown = shown.assign(
        bias=shown["expected_km2"] / shown["true_km2"] - 1.0,
        mapped_bias=shown["mapped_km2"] / shown["true_km2"] - 1.0,
        images=1,
    )
    shown = shown.assign(error=shown["bias"].abs())
    grouped = shown.groupby(["name", "glacier"])
    return grouped[[*_SCORES, "cut"]].mean().assign(images=grouped["images"].sum())


def _groups(table: pd.DataFrame, column: str, edges: Sequence[float], names: Sequence[str]) -> tuple[Group, ...]:
    glaciers = _per_glacier(table)
    known = glaciers[glaciers[column].notna()]
    place = np.digitize(known[column], edges)
    return (_group("all", glaciers), *(_group(name, known[place == i]) for i, name in enumerate(names)))


def _unknown_debris(table: pd.DataFrame) -> Group:
    glaciers = _per_glacier(table)
    return _group("debris not known", glaciers[glaciers["debris_share"].isna()])


def _group(name: str, glaciers: pd.DataFrame) -> Group:
    means = {key: float(glaciers[key].mean()) for key in ("iou", "f1", "precision", "recall", "error", "bias")}
    return Group(
        name=name,
        glaciers=len(glaciers),
        images=int(glaciers["images"].sum()),
        cut=int((glaciers["cut"] > 0).sum()),
        area_km2=float(glaciers["area_km2"].sum()) if len(glaciers) else math.nan,
        median_error=float(glaciers["error"].median()),
        mapped_bias=float(glaciers["mapped_bias"].mean()),
        **means,
    )


def _names(edges: Sequence[float], unit: str) -> list[str]:
    between = [f"{low:g}-{high:g}{unit}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}{unit}", *between, f"{edges[-1]:g}{unit} and more"]
