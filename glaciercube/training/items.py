"""What a set says of itself: STAC items with the label extension, the collection that lists them, and a page to read.

Specification: https://github.com/stac-extensions/label (1.0.1) and scientific (1.0.0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely

from glaciercube.models.chips import Chip
from glaciercube.models.contract import VARIABLES
from glaciercube.region import geographic_footprint
from glaciercube.training.dataset import grid_of

__all__ = ["LABEL_SCHEMA", "collection_of", "item_of", "readme_of"]

LABEL_SCHEMA = "https://stac-extensions.github.io/label/v1.0.1/schema.json"
_SCIENTIFIC_SCHEMA = "https://stac-extensions.github.io/scientific/v1.0.0/schema.json"
_STAC = "1.1.0"
_ZARR = "application/vnd.zarr; version=3"
_ID = "glacier-samples"


def item_of(chip: Chip, entry: Mapping[str, Any], description: str) -> dict[str, Any]:
    """STAC item of a chip, for the folder ``items/SPLIT``.

    Parameters
    ----------
    chip : Chip
        What it is of.
    entry : mapping
        Its line in the set's list.
    description : str
        Of the labels.
    """
    shape = _shape(chip, entry)
    times = [f"{date}Z" for date in chip.time.astype("datetime64[s]").astype(str)]
    span = {"datetime": times[0]} if len(times) == 1 else {"start_datetime": times[0], "end_datetime": times[-1]}
    names = list(chip.labels)
    counts = np.bincount(chip.label.ravel(), minlength=256)
    properties = {
        "datetime": None,
        **span,
        "gsd": chip.resolution,
        "label:type": "raster",
        "label:properties": None,
        "label:description": description,
        "label:classes": [{"name": None, "classes": names}],
        "label:tasks": ["segmentation"],
        "label:overviews": [
            {
                "property_key": "label",
                "counts": [{"name": name, "count": int(counts[index])} for index, name in enumerate(names)],
            }
        ],
        "glaciercube:split": entry["split"],
        "glaciercube:place": entry["place"],
        "glaciercube:labels": entry["labels"],
        "glaciercube:glacier_km2": entry["glacier_km2"],
        "glaciercube:sha256": entry["sha256"],
        "glaciercube:attributes": dict(chip.attributes),
    }
    pixels = {"href": f"../../chips.zarr/{entry['key']}", "type": _ZARR}
    found = {
        "type": "Feature",
        "stac_version": _STAC,
        "stac_extensions": [LABEL_SCHEMA],
        "id": entry["key"],
        "collection": _ID,
        "geometry": None if shape is None else shapely.geometry.mapping(shape),
        "properties": properties,
        "links": [
            {"rel": rel, "href": "../../collection.json", "type": "application/json"}
            for rel in ("root", "parent", "collection")
        ],
        "assets": {
            "labels": pixels | {"title": "label, weight and glaciers", "roles": ["labels", "labels-raster"]},
            "data": pixels | {"title": ", ".join(entry["variables"]), "roles": ["data"]},
        },
    }
    return found if shape is None else found | {"bbox": _bbox(shape)}


def collection_of(
    entries: Sequence[Mapping[str, Any]], info: Mapping[str, str], fingerprint: str, said: Mapping[str, Any]
) -> dict[str, Any]:
    """STAC collection of a set.

    Parameters
    ----------
    entries : sequence of mapping
        The set's list of chips.
    info : mapping
        Fields of `glaciercube.training.exchange.SetInfo`.
    fingerprint : str
        Of the content.
    said : mapping
        How the chips were drawn.
    """
    rings = [np.asarray(entry["footprint"], float) for entry in entries if entry["footprint"]]
    box = [-180.0, -90.0, 180.0, 90.0]
    if rings and len(rings) == len(entries):
        points = np.concatenate(rings)
        if np.abs(points[:, 0]).max() <= 180 and np.ptp(points[:, 0]) < 180:
            box = [float(v) for v in (*points.min(axis=0), *points.max(axis=0))]
    dates = sorted(date for entry in entries for date in entry["dates"])
    splits = dict(Counter(entry["split"] for entry in entries))
    cited = {"sci:citation": info["citation"]} if info["citation"] else {}
    return {
        "type": "Collection",
        "stac_version": _STAC,
        "stac_extensions": [LABEL_SCHEMA, *([_SCIENTIFIC_SCHEMA] if cited else [])],
        "id": _ID,
        "title": info["title"],
        "description": info["description"],
        "license": info["licence"],
        **cited,
        "extent": {
            "spatial": {"bbox": [box]},
            "temporal": {"interval": [[f"{dates[0]}T00:00:00Z", f"{dates[-1]}T23:59:59Z"]]},
        },
        "summaries": {"glaciercube:split": list(splits)},
        "item_assets": {"labels": {"type": _ZARR, "roles": ["labels"]}, "data": {"type": _ZARR, "roles": ["data"]}},
        "glaciercube:fingerprint": fingerprint,
        "glaciercube:splits": splits,
        "glaciercube:sampling": dict(said),
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *(
                {"rel": "item", "href": f"./items/{e['split']}/{e['key']}.json", "type": "application/geo+json"}
                for e in entries
            ),
        ],
    }


def readme_of(
    entries: Sequence[Mapping[str, Any]], info: Mapping[str, str], fingerprint: str, said: Mapping[str, Any]
) -> str:
    """A page about a set, in Markdown."""
    splits = Counter(entry["split"] for entry in entries)
    places = {split: len({e["place"] for e in entries if e["split"] == split}) for split in splits}
    labels = {name: classes for entry in entries for name, classes in entry["labels"].items()}
    names = dict.fromkeys(name for entry in entries for name in entry["variables"])
    units = ", ".join(f"{name} [{VARIABLES.get(name, 'unit unknown')}]" for name in names)
    dates = sorted(date for entry in entries for date in entry["dates"])
    lines = [
        f"# {info['title']}",
        "",
        info["description"],
        "",
        f"{len(entries)} chips, {dates[0]} to {dates[-1]}. Licence: {info['licence']}.",
        *([f"Cite: {info['citation']}"] if info["citation"] else []),
        f"Fingerprint (sha256 over the content of all chips and their splits): `{fingerprint}`.",
        "",
        "| split | chips | places |",
        "|---|---|---|",
        *(f"| {split} | {count} | {places[split]} |" for split, count in splits.items()),
        "",
        "| label | what it may be |",
        "|---|---|",
        *(f"| {name} | {', '.join(classes)} |" for name, classes in labels.items()),
        "",
        f"Variables: {units}; NaN where missing.",
        "`label` 255 is unknown; `weight` is how far a label is trusted against its image, 0 where cloud hides the",
        "ground or the outline is too old; `glaciers` numbers glaciers, the chip's attribute `glaciers` names them.",
        "",
        "`collection.json` lists a STAC item per chip (label extension), and `chips.zarr/NAME` is a Zarr v3 group:",
        '`xarray.open_zarr("chips.zarr", group=NAME, consolidated=False)`. In glaciercube:',
        '`glaciercube.training.exchange.read_set(folder, "train")`, or `samples: {sets: [folder]}` in a training\'s',
        "configuration.",
        "",
        *([f"- {message}" for message in said.get("messages", [])]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _shape(chip: Chip, entry: Mapping[str, Any]) -> Any:
    """Footprint as GeoJSON wants it, to a tenth of a metre; None where it is not known."""
    grid = grid_of(chip)
    if grid is not None:
        return shapely.set_precision(geographic_footprint(grid).simplify(1e-6), 1e-6)
    if not entry["footprint"]:
        return None
    ring = np.asarray(entry["footprint"], float)
    ring[:, 0] = np.unwrap(ring[:, 0], period=360.0)
    parts = [
        shapely.affinity.translate(
            shapely.Polygon(ring).intersection(shapely.box(turn - 180.0, -90.0, turn + 180.0, 90.0)), -turn
        )
        for turn in (-360.0, 0.0, 360.0)
    ]
    return shapely.union_all([part for part in parts if part.area > 0])


def _bbox(shape: Any) -> list[float]:
    """West, south, east, north; west > east across the antimeridian (RFC 7946, section 5.2)."""
    west, south, east, north = (float(value) for value in shape.bounds)
    parts = shapely.get_parts(shape)
    if len(parts) == 2 and (west, east) == (-180.0, 180.0):
        first, second = (part.bounds for part in parts)
        after, before = (first, second) if first[0] == -180.0 else (second, first)
        west, east = float(before[0]), float(after[2])
    return [west, south, east, north]
