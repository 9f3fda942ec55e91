"""Glacier-probability time series from open satellite archives.

    region = glaciercube.Region.from_bbox((86.78, 27.95, 86.85, 28.00), resolution=20, name="khumbu")
    scenes = glaciercube.find("planetary-computer", region, "2024", ["sentinel-2", "sentinel-1", "dem"])
    scenes = glaciercube.settle_offsets(scenes, region)
    cube = glaciercube.compose(glaciercube.load(scenes, region))
    prediction = glaciercube.predict(cube, glaciercube.load_model("fusion-unet"))

Nothing is computed before it is asked for, and nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glaciercube.campaign import Budget, PlanOptions, RunOptions, explain, failed_shards, make_plan, run, update
    from glaciercube.catalog import Scenes, SensorOptions, find
    from glaciercube.change import AreaOptions, area_change, area_series, regional_area, regional_change
    from glaciercube.cluster import ClusterOptions
    from glaciercube.config import Config, load_config
    from glaciercube.cube import ComposeOptions, MaskOptions, compose, load, settle_offsets
    from glaciercube.errors import GlaciercubeError
    from glaciercube.inference import on_gpus, predict
    from glaciercube.models import list_models, load_model
    from glaciercube.region import Region
    from glaciercube.sensors import LayerOptions
    from glaciercube.store import StoreOptions, missing_scenes, open_store
    from glaciercube.view import plot_calendar

__all__ = [
    "AreaOptions",
    "Budget",
    "ClusterOptions",
    "ComposeOptions",
    "Config",
    "GlaciercubeError",
    "LayerOptions",
    "MaskOptions",
    "PlanOptions",
    "Region",
    "RunOptions",
    "Scenes",
    "SensorOptions",
    "StoreOptions",
    "area_change",
    "area_series",
    "compose",
    "explain",
    "failed_shards",
    "find",
    "list_models",
    "load",
    "load_config",
    "load_model",
    "make_plan",
    "missing_scenes",
    "on_gpus",
    "open_store",
    "plot_calendar",
    "predict",
    "regional_area",
    "regional_change",
    "run",
    "settle_offsets",
    "update",
]

_ROOMS = {
    "campaign": ("Budget", "PlanOptions", "RunOptions", "explain", "failed_shards", "make_plan", "run", "update"),
    "catalog": ("Scenes", "SensorOptions", "find"),
    "change": ("AreaOptions", "area_change", "area_series", "regional_area", "regional_change"),
    "cluster": ("ClusterOptions",),
    "config": ("Config", "load_config"),
    "cube": ("ComposeOptions", "MaskOptions", "compose", "load", "settle_offsets"),
    "errors": ("GlaciercubeError",),
    "inference": ("on_gpus", "predict"),
    "models": ("list_models", "load_model"),
    "region": ("Region",),
    "sensors": ("LayerOptions",),
    "store": ("StoreOptions", "missing_scenes", "open_store"),
    "view": ("plot_calendar",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'glaciercube' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glaciercube.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
