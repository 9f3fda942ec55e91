"""One YAML configuration, composed of each room's own options, with errors that name the line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import logging
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import yaml

from glaciercube.campaign import Budget, Plan, PlanOptions, RunOptions, explain
from glaciercube.campaign.memory import Memory, remembered
from glaciercube.campaign.provenance import settled
from glaciercube.campaign.update import Companions, merged, patience, replan
from glaciercube.catalog import Scenes, SensorOptions, find, hull, without_secrets
from glaciercube.cluster import ClusterOptions
from glaciercube.cube import ComposeOptions, LoadOptions, compose, load, settle_offsets
from glaciercube.errors import ConfigError
from glaciercube.models import load_model
from glaciercube.region import Region
from glaciercube.sensors import Layer, LayerOptions, get_sensor
from glaciercube.store import StoreOptions
from glaciercube.training.folds import FoldOptions, make_folds
from glaciercube.training.sampling import SampledChips, SamplesConfig

if TYPE_CHECKING:
    import xarray as xr

    from glaciercube.models.base import Model
    from glaciercube.training.exchange import StoredChips

__all__ = ["Config", "CubeConfig", "ModelConfig", "RegionConfig", "SetConfig", "load_config", "parse_config"]

_log = logging.getLogger(__name__)

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class RegionConfig:
    """Where: a ``bbox``, or ``outlines`` and perhaps one ``glacier`` of them.

    Attributes
    ----------
    resolution : float
        Pixel size in metres.
    name : str or None
        Name of the place.
    bbox : (west, south, east, north) or None
        Degrees.
    outlines : str or None
        Path of glacier outlines (GeoJSON, GeoPackage, RGI).
    glacier : str or None
        Id of one glacier in the outlines.
    buffer : float or None
        Metres around; by default 0 around a bbox and 200 around outlines.
    crs : str or None
        A metric CRS; chosen from the place by default.
    """

    resolution: float
    name: str | None = None
    bbox: tuple[float, float, float, float] | None = None
    outlines: str | None = None
    glacier: str | None = None
    buffer: float | None = None
    crs: str | None = None

    def region(self) -> Region:
        """Make the region.

        Raises
        ------
        RegionError
            If place, resolution or CRS cannot be used.
        ConfigError
            If there is neither a bbox nor outlines.
        """
        if self.bbox is not None:
            return Region.from_bbox(
                self.bbox,
                resolution=self.resolution,
                name=self.name or "region",
                buffer=self.buffer or 0.0,
                crs=self.crs,
            )
        if self.outlines is None:
            raise ConfigError("the region has neither bbox nor outlines", "give one of them")
        return Region.from_outlines(
            self.outlines,
            resolution=self.resolution,
            name=self.name,
            glacier=self.glacier,
            buffer=200.0 if self.buffer is None else self.buffer,
            crs=self.crs,
        )


@dataclass(frozen=True)
class ModelConfig:
    """With what.

    Attributes
    ----------
    name : str
        A model's name, or the path of a model folder.
    parameters : dict
        Parameters of a rule, such as ``threshold``.
    """

    name: str = "fusion-unet"
    parameters: dict[str, bool | int | float | str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """A job, as the user writes it. Relative paths start at the working directory.

    Attributes
    ----------
    region, catalog, time, store
        Where, from what (a provider's name, a STAC API's URL, the path of a catalogue or of a profile), when, and where
        to.
    sensors : dict
        Sensor -> options; a list of names in YAML.
    layers : dict
        Layers of your own: name -> `glaciercube.sensors.LayerOptions`.
    compose : ComposeOptions
        A word (``observation``, ``month``, ``season``, ``year``) in YAML stands for ``every``.
    model : ModelConfig
        A name in YAML stands for it without parameters.
    load, run
        Options of those rooms.
    cluster : ClusterOptions
        Where it runs; a word (``threads``, ``local``, ``gateway``, ``slurm``, ``kubernetes``) or a scheduler's address
        in YAML stands for ``kind``.
    planning : PlanOptions
        Which shards are computed.
    budget : Budget
        What a run may take; it is refused before it begins if it would take more.
    """

    region: RegionConfig
    catalog: str
    time: str
    store: StoreOptions
    sensors: dict[str, SensorOptions] = field(
        default_factory=lambda: {name: SensorOptions() for name in ("sentinel-2", "sentinel-1", "dem")}
    )
    layers: dict[str, LayerOptions] = field(default_factory=dict)
    compose: ComposeOptions = field(default_factory=ComposeOptions)
    model: ModelConfig = field(default_factory=ModelConfig)
    load: LoadOptions = field(default_factory=LoadOptions)
    run: RunOptions = field(default_factory=RunOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    planning: PlanOptions = field(default_factory=PlanOptions)
    budget: Budget = field(default_factory=Budget)

    def find(self, region: Region | None = None, time: str | None = None) -> Scenes:
        """Search the catalogue, by default over the configuration's time; see `glaciercube.catalog.find`."""
        return find(self.catalog, region or self.region.region(), time or self.time, {**self.sensors, **self.layers})

    def load_model(self) -> Model:
        """Load the model; see `glaciercube.models.load_model`."""
        return load_model(self.model.name, **self.model.parameters)

    def plan(
        self,
        *,
        check: bool = True,
        progress: bool | None = None,
        again: bool = False,
        time: str | None = None,
        until: str | None = None,
        companions: Companions = "keep",
    ) -> Plan:
        """Decide the job, with offsets held against pixels; see `glaciercube.campaign.make_plan`, `settle_offsets`.

        A store remembers the scenes of its last plan: while the configuration asks for the same search, they are taken
        from there, and no catalogue is asked.

        Parameters
        ----------
        check : bool
            Refuse a plan that is over budget.
        progress : bool or None
            Show a progress bar of the scenes that are looked at; by default as ``run`` says.
        again : bool
            Search anew, and add what is found to what the store remembers.
        time : str or None
            Search there instead of ``time``, and keep what the store remembers from outside of it; later runs and
            updates of this configuration search both.
        until : str or None
            The same, from where the store's search began (or ``time`` does) up to this date.
        companions : {"keep", "renew"}
            Of dates that the store has; see `glaciercube.campaign.update_plan`.

        Raises
        ------
        PlanError
            If it is over budget.
        """
        # The model first: a misspelt name should not wait for a search.
        model, region = self.load_model(), self.region.region()
        shown = self.run.progress if progress is None else progress
        memory = remembered(self.store, region.geobox)
        fresh = again or bool(time or until)
        request = self._request(memory, fresh=fresh, time=time, until=until)
        search = str(request.pop("search"))
        if memory is not None and memory.scenes is not None and memory.answers(request) and not fresh:
            scenes = memory.scenes
            asked = (memory.request or {}).get("asked", "before")
            request["asked"] = asked
            _log.info("scenes as they were found %s; `glaciercube update` searches again", asked)
        else:
            found = self.find(region, search)
            if memory is not None and memory.scenes is not None and memory.goes_on(request, found):
                beyond = bool(time or until) or (fresh and memory.request is None)
                found = merged(memory.scenes, found, renew=companions == "renew", beyond=beyond)
            scenes = settled(found, region, self.store, progress=shown, read=patience(self.load))
        plan = replan(
            region,
            scenes,
            model,
            self.store,
            memory,
            companions=companions,
            load=self.load,
            compose=self.compose,
            options=self.planning,
            request=request,
        )
        if check and self.budget.is_limited:
            explain(plan, self.run, self.budget, cluster=self.cluster)
        return plan

    def _request(self, memory: Memory | None, *, fresh: bool, time: str | None, until: str | None) -> dict[str, Any]:
        """What is searched for: now (``search``), and in all (``searched``), which is longer after updates."""
        content = self.as_dict()
        request = {name: content[name] for name in ("catalog", "sensors", "layers", "time")}
        before, usual = "", self.time
        if memory is not None and memory.request is not None and memory.continues(request):
            before = str(memory.request["searched"])
            usual = before if memory.answers(request) else self.time
        elif fresh and memory is not None and memory.scenes is not None and memory.request is None:
            # A program made the store.
            before = memory.scenes.interval
            usual = hull(before, self.time) or self.time
        if until:
            time = f"{(before or self.time).partition('/')[0].strip()}/{until}"
        search = time or usual
        searched = hull(before, search) if time and before else search
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return {**request, "search": search, "searched": searched, "asked": now}

    def as_dict(self) -> dict[str, Any]:
        """Plain values without credentials, for provenance."""
        layers = {
            name: {**dataclasses.asdict(layer), "catalog": layer.catalog and without_secrets(layer.catalog)}
            for name, layer in self.layers.items()
        }
        # Where it runs decides no pixel, and a way to a cluster may have a password in it.
        found = {name: value for name, value in dataclasses.asdict(self).items() if name != "cluster"}
        store = {**found["store"], "endpoint": without_secrets(self.store.endpoint)}
        return {**found, "catalog": without_secrets(self.catalog), "layers": layers, "store": store}


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
    """A set of chips, and how it is parted; a training's configuration has these keys too.

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


@overload
def load_config(path: str | Path) -> Config: ...


@overload
def load_config(path: str | Path, kind: type[Kind]) -> Kind: ...


def load_config(path: str | Path, kind: Any = Config) -> Any:
    """Read a configuration file.

    Parameters
    ----------
    path : path
        YAML.
    kind : type
        Dataclass that it describes; `Config` by default.

    Raises
    ------
    ConfigError
        If it cannot be read or understood; the message names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path} ({error.strerror})", "check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration {path} is not text in UTF-8", "save it as UTF-8") from error
    return parse_config(text, str(path), kind)


@overload
def parse_config(text: str, name: str = ...) -> Config: ...


@overload
def parse_config(text: str, name: str, kind: type[Kind]) -> Kind: ...


def parse_config(text: str, name: str = "configuration", kind: Any = Config) -> Any:
    """Read a configuration from YAML text.

    Parameters
    ----------
    text : str
        YAML.
    name : str
        What to call it in errors.
    kind : type
        Dataclass that it describes; `Config` by default.

    Raises
    ------
    ConfigError
        If it cannot be understood; the message names the line.
    """
    import pydantic

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name} line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigError(f"{where}: {problem}", "mend the YAML there") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is not a mapping", "write keys such as region, catalog and time")
    content = _expanded(content)
    _check_keys(kind, content, (), node, name)
    layers = content.get("layers")
    for layer, options in layers.items() if isinstance(layers, dict) else ():
        # What is not even of the right kind is told below.
        with _at_line(name, node, ("layers", layer)), contextlib.suppress(pydantic.ValidationError):
            Layer(layer, pydantic.TypeAdapter(LayerOptions).validate_python(options))
    try:
        config = pydantic.TypeAdapter(kind).validate_python(content)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error.problem}", error.remedy) from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = tuple(first["loc"])
        raise ConfigError(
            f"{name} line {_line(node, path)}: {'.'.join(map(str, path))}: {first['msg']}", _remedy(first["type"])
        ) from error
    for sensor in getattr(config, "sensors", ()):
        with _at_line(name, node, ("sensors", sensor)):
            get_sensor(sensor)
    return config


@contextlib.contextmanager
def _at_line(name: str, node: Any, path: tuple[Any, ...]) -> Iterator[None]:
    """Errors of rooms that know no files, with the line of what they are about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{name} line {_line(node, path)}: {error.problem}", error.remedy) from None


def _expanded(content: dict[str, Any]) -> dict[str, Any]:
    """Short spellings into long ones."""
    out = dict(content)
    sensors = out.get("sensors")
    if isinstance(sensors, list):
        out["sensors"] = {str(sensor): {} for sensor in sensors}
    elif isinstance(sensors, dict):
        out["sensors"] = {sensor: options or {} for sensor, options in sensors.items()}
    layers = out.get("layers")
    if isinstance(layers, dict):
        out["layers"] = {str(layer): _layer(options or {}) for layer, options in layers.items()}
    for key, first in (("compose", "every"), ("store", "path"), ("model", "name"), ("cluster", "kind")):
        if isinstance(out.get(key), str):
            out[key] = {first: out[key]}
    catalog = out.get("catalog")
    if isinstance(catalog, dict) and set(catalog) == {"profile"}:
        out["catalog"] = catalog["profile"]
    model = out.get("model")
    if isinstance(model, dict) and "parameters" not in model:
        rest = {key: value for key, value in model.items() if key != "name"}
        out["model"] = {**{key: model[key] for key in ("name",) if key in model}, "parameters": rest}
    if "time" in out and not isinstance(out["time"], str):
        # YAML reads 2024 as a number and 2024-07-01 as a date.
        out["time"] = str(out["time"])
    return out


def _layer(options: Any) -> Any:
    if isinstance(options, dict) and isinstance(options.get("unit"), int | float):
        # The unit of a share is 1, and YAML reads a number.
        return {**options, "unit": f"{options['unit']:g}"}
    return options


def _check_keys(kind: Any, content: Any, path: tuple[Any, ...], node: Any, name: str) -> None:
    """Refuse keys that nothing would read, with the nearest that would be."""
    if not isinstance(content, Mapping):
        return
    if not dataclasses.is_dataclass(kind):
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) is dict and dataclasses.is_dataclass(arguments[1]):
            for key, value in content.items():
                _check_keys(arguments[1], value, (*path, key), node, name)
        return
    hints = typing.get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            raise ConfigError(
                f"{name} line {_line(node, (*path, key))}: unknown key {'.'.join(map(str, (*path, key)))!r}",
                f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(hints)}",
            )
        _check_keys(_inner(hints[key]), value, (*path, key), node, name)


def _inner(kind: Any) -> Any:
    """The type within ``X | None``."""
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def _line(node: Any, path: tuple[Any, ...]) -> int:
    """Line of the deepest part of a path that the YAML spells out."""
    line = node.start_mark.line + 1
    for step in path:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(step)]
            if not found:
                break
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            items = {item.value: item for item in node.value if isinstance(item, yaml.ScalarNode)}
            position = step if isinstance(step, int) and step < len(node.value) else None
            chosen = node.value[position] if position is not None else items.get(str(step))
            if chosen is None:
                break
            node = chosen
            line = node.start_mark.line + 1
        else:
            break
    return int(line)


def _remedy(kind: str) -> str:
    if kind == "missing":
        return "add it"
    if kind.startswith("literal"):
        return "choose one of those"
    return "write a value of that kind"
