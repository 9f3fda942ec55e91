"""What a store keeps of how its scenes were taken, and what a later run takes from it."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from glaciercube.campaign.plan import Plan
from glaciercube.catalog import Scenes
from glaciercube.cube import LoadOptions, settle_offsets
from glaciercube.cube.offset_record import offset_records, with_records
from glaciercube.cube.radar import with_corrections
from glaciercube.reading.retry import ReadOptions
from glaciercube.region import Region
from glaciercube.store import PLANNED, UNFINISHED, StoreOptions, open_reader, open_store, provenance_of

if TYPE_CHECKING:
    from glaciercube.campaign.left import Left

__all__ = ["attributes", "decisions", "per_row", "provenance", "settled", "standing"]


def decisions(scenes: Scenes, load: LoadOptions) -> dict[str, Any]:
    """What was decided of scenes before their pixels were read, as plain values.

    Parameters
    ----------
    scenes : Scenes
        Of a plan.
    load : LoadOptions
        Its reading options.

    Returns
    -------
    dict
        ``reflectance_offsets``: Sentinel-2 scene -> ``offset`` and what each says (`offset_records`); ``radar_passes``:
        Sentinel-1 scene -> ``platform``, ``orbit_state``, ``relative_orbit`` and ``correction_db``, the correction
        that was applied; ``left_out``: sensor -> reason -> how many scenes were found and not used.
    """
    radar = with_corrections(scenes.of("sentinel-1"), load.radar).table
    names = ("platform", "orbit_state", "relative_orbit")
    passes = {}
    for scene, offset, text in zip(radar["id"], radar["offset"], radar["notes"], strict=True):
        notes = json.loads(text)
        passes[str(scene)] = {**{name: notes.get(name) for name in names}, "correction_db": float(offset)}
    return {"reflectance_offsets": offset_records(scenes), "radar_passes": passes, "left_out": _left_out(scenes)}


def settled(
    scenes: Scenes, region: Region, store: StoreOptions, *, progress: bool = False, read: ReadOptions | None = None
) -> Scenes:
    """Settle offsets by what the store remembers of earlier looks, and look at the other scenes.

    The store's own provenance is where looks are kept: it goes where the store goes, on disk, in a bucket or in
    Icechunk, and a look that fails today cannot change the key, and the pixels, of a date that was made with
    yesterday's.

    Parameters
    ----------
    scenes, region, progress, read
        As of `glaciercube.cube.settle_offsets`.
    store : StoreOptions
        Where the result goes; there may be nothing yet.

    Raises
    ------
    GridMismatchError
        If a store of another grid is there.
    StoreError
        If something else is there, or it cannot be read.
    """
    if "sentinel-2" in scenes.sensors and open_reader(store, region.geobox) is not None:
        made = provenance_of(open_store(store.path, endpoint=store.endpoint))
        scenes = with_records(scenes, made.get("reflectance_offsets"))
    return settle_offsets(scenes, region, progress=progress, read=read)


def _left_out(scenes: Scenes) -> dict[str, dict[str, int]]:
    """Counts by reason; reasons that differ by a number or a name alone are told by the first of them."""
    lost = scenes.left_out
    kinds = lost["reason"].astype(str).str.replace(r"\S*\d\S*", "#", regex=True)
    counts: dict[str, dict[str, int]] = {}
    for (sensor, _), group in lost.groupby([lost["sensor"], kinds], sort=True):
        counts.setdefault(str(sensor), {})[str(group["reason"].iloc[0])] = len(group)
    return counts


def per_row(cube: xr.Dataset) -> xr.Dataset:
    """Variables and bounds along time alone, such as the companions' age."""
    names = [name for name, variable in cube.variables.items() if variable.dims[:1] == ("time",) and name != "time"]
    # Numbers and bounds: text (the pass of a radar scene) has no stable spelling in Zarr, and the scenes are recorded.
    keep = [name for name in names if set(cube[name].dims) <= {"time", "bnds"} and cube[name].dtype.kind in "fM"]
    return xr.Dataset({name: cube[name].variable for name in keep}).set_coords(
        [name for name in keep if name in cube.coords]
    )


def attributes(plan: Plan) -> dict[str, Any]:
    """Global attributes of a plan's store."""
    return {
        "title": f"Glacier probability of {plan.region.name}",
        "source": f"glaciercube {importlib.metadata.version('glaciercube')}, model {plan.model.contract.name}",
        "region": plan.region.name,
    }


def provenance(plan: Plan, cube: xr.Dataset, config: Mapping[str, Any]) -> dict[str, Any]:
    """How a plan's store is made, as plain values: scenes of every date, what was decided of them, model, versions."""
    modalities = plan.model.contract.select([str(name) for name in cube.data_vars])
    packages = ("glaciercube", "numpy", "xarray", "zarr", "odc-stac", "rasterio", "torch")
    return {
        "catalog": plan.scenes.source,
        "scenes_fingerprint": plan.scenes.fingerprint,
        "scenes": {label: list(ids) for label, ids in zip(plan.labels, plan.scene_ids, strict=True)},
        **decisions(plan.scenes, plan.load),
        "model": plan.model.contract.name,
        "model_version": plan.model.contract.version,
        "model_hash": plan.model.hash,
        "sensors": list(plan.scenes.sensors),
        "compose": plan.compose.every,
        "config": dict(config),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "modalities": sorted(m.name for m in modalities),
        "variables": sorted({name for m in modalities for name in m.variables}),
        "reflectance": str(cube.attrs.get("reflectance", "")),
        **{name: cube.attrs[name] for name in ("mask",) if name in cube.attrs},
    }


def standing(plan: Plan, left: Left, said: Mapping[str, Any]) -> dict[str, Any]:
    """What a store says of itself as long as it holds shards that its plan would make in another way.

    Parameters
    ----------
    plan : Plan
        What is run.
    left : Left
        What is left of it.
    said : mapping
        What this gave before: it holds until everything is done, since a shard that a killed run was about to write
        anew is not marked any more, and has its old pixels.

    Returns
    -------
    dict
        ``scenes`` of every date; of those with shards of earlier scenes these, and the new ones as ``scenes_planned``.
        ``unfinished``, a sentence, while there are shards that another model or other options made.
    """
    stored, waiting = said.get("scenes", {}), said.get(PLANNED, {})
    scenes, planned = {}, {}
    for row, (label, ids) in enumerate(zip(plan.labels, map(list, plan.scene_ids), strict=True)):
        older = label in left.before or (label in waiting and not left.finished[:, row].all())
        scenes[label] = list(stored.get(label, ids)) if older else ids
        if scenes[label] != ids:
            planned[label] = ids
    found: dict[str, Any] = {"scenes": scenes}
    if planned:
        found[PLANNED] = planned
    open_ = int((~left.finished).sum())
    if left.otherwise or (open_ and UNFINISHED in said):
        why = "; ".join(f"{count} {what}" for what, count in left.otherwise.items())
        found[UNFINISHED] = (
            f"{open_} of {left.finished.size} shards may still be as they were made before a change"
            f"{f' ({why})' if why else ''}, and are being made anew"
        )
    return found
