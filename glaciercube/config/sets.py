"""Configurations of what needs a cube and writes no store: sets of chips, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glaciercube.catalog import SensorOptions, find
from glaciercube.config.job import RegionConfig
from glaciercube.cube import ComposeOptions, LoadOptions, compose, load, settle_offsets
from glaciercube.errors import ConfigError
from glaciercube.sensors import LayerOptions
from glaciercube.training.folds import FoldOptions, make_folds
from glaciercube.training.sampling import SampledChips, SamplesConfig

if TYPE_CHECKING:
    import xarray as xr

    from glaciercube.training.exchange import StoredChips

__all__ = ["CubeConfig", "SetConfig"]


@dataclass(frozen=True)
class CubeConfig:
    """Which cube to make; part of the configurations that need one and write no store.

    Attributes
    ----------
    region, catalog, time, sensors, layers, compose, load
        As in `Config`; not needed where no cube is.
    """

    region: RegionConfig | None = None
    catalog: str = ""
    time: str = ""
    sensors: dict[str, SensorOptions] = field(
        default_factory=lambda: {name: SensorOptions() for name in ("sentinel-2", "sentinel-1", "dem")}
    )
    layers: dict[str, LayerOptions] = field(default_factory=dict)
    compose: ComposeOptions = field(default_factory=ComposeOptions)
    load: LoadOptions = field(default_factory=LoadOptions)

    def cube(self) -> xr.Dataset:
        """Search, settle offsets, load and compose, lazily; see `glaciercube.compose`.

        Raises
        ------
        ConfigError
            If region, catalog or time are missing.
        """
        if self.region is None or not self.catalog or not self.time:
            raise ConfigError("there is no cube without region, catalog and time", "add those keys")
        region = self.region.region()
        scenes = find(self.catalog, region, self.time, {**self.sensors, **self.layers})
        return compose(load(settle_offsets(scenes, region), region, self.load), self.compose)


@dataclass(frozen=True)
class SetConfig(CubeConfig):
    """A set of chips, and how it is parted; a training's configuration has these keys too, and more choices.

    Attributes
    ----------
    samples : SamplesConfig
        Outlines and how chips are drawn from the cube, or sets that were exported.
    folds : FoldOptions or None
        Spatial cross-validation; None where sets bring their own splits, or nothing is parted.
    fold : int
        Which split of the folds, from 1.
    network, fit, out, validation, test, find, calibrate, note, cache : Any
        Of trainings, see `glaciercube.training.job.TrainJob`; not looked at.
    """

    samples: SamplesConfig = field(default_factory=SamplesConfig)
    folds: FoldOptions | None = None
    fold: int = 1
    network: Any = None
    fit: Any = None
    out: Any = None
    validation: Any = None
    test: Any = None
    find: Any = None
    calibrate: Any = None
    note: Any = None
    cache: Any = None

    def chips(self) -> SampledChips | StoredChips:
        """The chips, lazily."""
        return self.samples.chips(self.cube)

    def splits(self, chips: SampledChips | StoredChips) -> dict[str, tuple[int, ...]]:
        """Indices of the chips that train, stop the training (if any) and test; ``all`` where nothing parts them.

        Raises
        ------
        ConfigError
            If there is no such fold.
        ModelError
            If the chips cannot be parted so.
        """
        if self.folds is None:
            own = getattr(chips, "splits", {})
            return own if own and set(own) != {"all"} else {"all": tuple(range(len(chips)))}
        folds = make_folds(chips, self.folds)
        if not 1 <= self.fold <= len(folds):
            raise ConfigError(f"there is no fold {self.fold}", f"give 1 to {len(folds)}")
        split = folds[self.fold - 1]
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        return {name: indices for name, indices in parts.items() if indices}
