"""What a training is told: which network, which samples, how they are parted, fitted, calibrated and scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from glaciercube.errors import require
from glaciercube.models.chips import Chip
from glaciercube.models.reach import TimeContext, Windows
from glaciercube.simulate.sequence import SequenceOptions
from glaciercube.training.calibrate import NEAR_SHARE
from glaciercube.training.folds import FoldOptions
from glaciercube.training.options import FitOptions
from glaciercube.training.sampling import SamplesConfig

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CalibrateOptions", "NetworkOptions", "SimulatedOptions", "SourceOptions", "TrainJob"]


@dataclass(frozen=True)
class NetworkOptions:
    """What is trained.

    Attributes
    ----------
    architecture : str or None
        Name as in `glaciercube.models.architectures.contracts.architecture_names`; by default that of `weights`, or
        ``fusion-unet``.
    weights : str or None
        A model folder, or a shipped model's name, whose weights it begins with: the same architecture, which is then
        tuned, or another that shares layers with it. Inputs, classes and outputs are by default that model's.
    name, version, description : str or None
        Of the model that comes out.
    classes : tuple of str
        What to tell apart; the architecture's own by default.
    outputs : dict of str to tuple of str
        Name of each variable that it gives -> the classes whose probabilities are summed.
    modalities : tuple of str
        Of the architecture's usual inputs, those to be used; all by default.
    windows : Windows or None
        Other windows than the published ones.
    time_context : TimeContext or None
        Another than the usual one.
    parameters : dict
        Widths, depths and the like.
    normalise : bool or None
        Whether inputs are normalised by the samples' own statistics; by default unless weights are taken over, which
        belong to their statistics.
    """

    architecture: str | None = None
    weights: str | None = None
    name: str | None = None
    version: str | None = None
    description: str | None = None
    classes: tuple[str, ...] = ()
    outputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    windows: Windows | None = None
    time_context: TimeContext | None = None
    parameters: dict[str, bool | int | float | str | tuple[int, ...] | None] = field(default_factory=dict)
    normalise: bool | None = None


@dataclass(frozen=True)
class SimulatedOptions(SequenceOptions):
    """Chips of the simulated world.

    Attributes
    ----------
    seeds : (int, int)
        The first, and the one after the last: one chip each.
    workers : int
        Processes that draw them.
    """

    seeds: tuple[int, int] = (0, 0)
    workers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.seeds[0] < self.seeds[1],
            f"seeds {self.seeds[0]} to {self.seeds[1]} are none",
            "give the first one and the one after the last",
        )

    @property
    def sequence(self) -> SequenceOptions:
        """What each is drawn by."""
        return SequenceOptions(**{f.name: getattr(self, f.name) for f in dataclasses.fields(SequenceOptions)})


@dataclass(frozen=True)
class SourceOptions(SamplesConfig):
    """Where chips come from: outlines on the configuration's cube, exported sets, or the simulated world.

    Attributes
    ----------
    split : {"train", "validation", "test"} or None
        Part of the sets; all of them by default.
    simulated : SimulatedOptions or None
        Chips that are drawn.
    """

    split: Literal["train", "validation", "test"] | None = None
    simulated: SimulatedOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [bool(self.outlines), bool(self.sets), self.simulated is not None]
        require(sum(given) <= 1, "samples have more than one source", "give outlines, or sets, or simulated")

    @property
    def given(self) -> bool:
        """Whether there is any source."""
        return bool(self.outlines or self.sets or self.simulated)

    def gather(self, cube: Callable[[], xr.Dataset], cache: Path, *, progress: bool = True) -> Sequence[Chip]:
        """The chips; those of a cube and of sets are read when they are asked for.

        Parameters
        ----------
        cube : callable
            Makes the cube, where one is needed.
        cache : Path
            Folder that keeps drawn chips.
        progress : bool
            Show a progress bar while drawing.
        """
        if self.simulated is not None:
            from glaciercube.training.simulated import simulated_chips

            return simulated_chips(
                range(*self.simulated.seeds),
                self.simulated.sequence,
                folder=cache,
                workers=self.simulated.workers,
                progress=progress,
            )
        if self.sets:
            from glaciercube.training.exchange import read_sets

            return read_sets(self.sets, split=self.split)
        require(bool(self.outlines), "samples have no source", "give outlines, sets or simulated")
        return self.chips(cube)

    def said(self) -> str:
        """In words, for the model card."""
        if self.simulated is not None:
            made = self.simulated
            return f"simulated world, family {made.family!r}, seeds {made.seeds[0]} to {made.seeds[1] - 1}"
        if self.sets:
            part = f", part {self.split}" if self.split else ""
            return f"{', '.join(Path(each).name for each in self.sets)}{part}"
        return f"cube with the outlines {Path(self.outlines or '').name}"


@dataclass(frozen=True)
class CalibrateOptions(SourceOptions):
    """What temperature and shift are fitted on; by default the validation chips.

    Attributes
    ----------
    without : tuple of tuple of str
        Modalities that are kept from the model, once for each; by default each chip is shown whole.
    near_share : float
        Share of a place's weight that its pixels within 50 m of outlines have.
    pixels : int
        Per chip, date and entry of `without`.
    """

    without: tuple[tuple[str, ...], ...] = ((),)
    near_share: float = NEAR_SHARE
    pixels: int = 1500


@dataclass(frozen=True)
class TrainJob:
    """A training, as the user writes it.

    Attributes
    ----------
    out : str
        Model folder to write.
    network : NetworkOptions
        What is trained.
    samples : SourceOptions
        What on.
    folds : FoldOptions or None
        How the samples are parted into those that train, stop the training, and test. None takes the parts of an
        exported set that has some, and else trains on all of them.
    fold : int or "all"
        Which of the splits, from 1 on; ``all`` is cross-validation: a model for each, and a table over all of them.
    validation : SourceOptions or None
        Other chips, that stop the training.
    test : dict of str to SourceOptions
        Other chips that the model is scored on, by name.
    find : tuple of str
        Labels of the chips that are to be found, in tests and calibration; those that are ice by default.
    calibrate : CalibrateOptions or None
        How its probabilities are calibrated; None leaves them.
    fit : FitOptions
        How it is fitted.
    note : str
        Markdown for the model card: what a user must know.
    cache : str or None
        Folder that keeps drawn chips; by default in ``OUT.training`` beside `out`, as the checkpoint and the log.
    """

    out: str = ""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    samples: SourceOptions = field(default_factory=SourceOptions)
    folds: FoldOptions | None = None
    fold: int | Literal["all"] = 1
    validation: SourceOptions | None = None
    test: dict[str, SourceOptions] = field(default_factory=dict)
    find: tuple[str, ...] = ()
    calibrate: CalibrateOptions | None = field(default_factory=CalibrateOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    note: str = ""
    cache: str | None = None

    def __post_init__(self) -> None:
        require(self.samples.given, "there is nothing to train on", "give samples: outlines, sets or simulated")
        require(
            self.folds is not None or self.fold == 1, f"there are no folds of which {self.fold} could be", "give folds"
        )
        require(
            self.fold == "all" or self.fold >= 1, f"fold {self.fold} is none", "count folds from 1 on, or write all"
        )
        for name, source in self.test.items():
            require(source.given, f"the test {name!r} has no source", "give outlines, sets or simulated")
        require(
            self.validation is None or self.validation.given,
            "the validation has no source",
            "give outlines, sets or simulated, or leave it out",
        )
