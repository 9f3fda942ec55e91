"""The configuration of a job: where, from what, with what and where to."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from glaciercube.campaign import Budget, Plan, PlanOptions, RunOptions, explain
from glaciercube.campaign.memory import Memory, remembered
from glaciercube.campaign.provenance import settled
from glaciercube.campaign.update import Companions, merged, patience, replan
from glaciercube.catalog import Scenes, SensorOptions, find, hull, without_secrets
from glaciercube.cluster import ClusterOptions
from glaciercube.cube import ComposeOptions, LoadOptions
from glaciercube.errors import ConfigError
from glaciercube.models import load_model
from glaciercube.region import Region
from glaciercube.sensors import LayerOptions
from glaciercube.store import StoreOptions

if TYPE_CHECKING:
    from glaciercube.models.base import Model

__all__ = ["Config", "ModelConfig", "RegionConfig"]

_log = logging.getLogger(__name__)


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
