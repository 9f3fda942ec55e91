"""Evaluations as a whole: a model on chips, a store against a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import xarray as xr

from glaciercube.errors import require
from glaciercube.evaluation.front_cases import front_cases, tells_fronts
from glaciercube.evaluation.fronts import score_fronts
from glaciercube.evaluation.glaciers import MARGIN
from glaciercube.evaluation.predict import PredictOptions, cases_of, ice_labels
from glaciercube.evaluation.references import Reference
from glaciercube.evaluation.report import Report, evaluate_cases
from glaciercube.evaluation.sensors import sensor_table
from glaciercube.evaluation.stores import StoreCaseOptions, pairs_of, store_cases
from glaciercube.models.base import Model
from glaciercube.models.chips import Chip
from glaciercube.store import UNFINISHED, provenance_of

__all__ = ["EvaluateOptions", "evaluate_model", "evaluate_store"]


@dataclass(frozen=True)
class EvaluateOptions:
    """How predictions are scored.

    Attributes
    ----------
    threshold : float
        Probability above which a pixel is said to be ice.
    margin : float
        Metres around a glacier that count as its own.
    shown : PredictOptions
        What a model is shown of chips, which labels are to be found, and which pixels count.
    sensors : bool
        Whether a model is also scored with fewer sensors.
    """

    threshold: float = 0.5
    margin: float = MARGIN
    shown: PredictOptions = field(default_factory=PredictOptions)
    sensors: bool = False

    def __post_init__(self) -> None:
        require(0 < self.threshold < 1, f"a threshold of {self.threshold}", "choose one between 0 and 1")
        require(self.margin >= 0, f"a margin of {self.margin} m", "choose 0 or more")


def evaluate_model(
    model: Model, chips: Sequence[Chip], options: EvaluateOptions | None = None, *, source: str = ""
) -> Report:
    """Score a model on chips that it was not trained on.

    Parameters
    ----------
    model : Model
        Any.
    chips : sequence of Chip
        With labels.
    options : EvaluateOptions or None
        How.
    source : str
        Where the chips are from, for people.

    Raises
    ------
    ModelError
        If a chip lacks what the model requires, has no label to be found, or no pixel can be compared.
    """
    options = options or EvaluateOptions()
    require(len(chips) > 0, "there are no chips to evaluate on", "give a set that holds some")
    shown, contract = options.shown, model.contract
    # Chips may be read from disk each time that they are looked at.
    places, wanted = dict[str, None](), dict[str, None]()
    for chip in chips:
        places[chip.place or chip.name] = None
        wanted |= dict.fromkeys(ice_labels(chip.labels, shown.positive, chip.name))
    facts = {
        "model": f"{contract.name} {contract.version}, {model.module.parameter_count:,} weights",
        "content hash": model.hash,
        "classes": ", ".join(contract.classes),
        "set": source,
        "chips": f"{len(chips)} of {len(places)} places",
        "to be found": ", ".join(wanted),
        "kept from the model": ", ".join(shown.without),
        "dates": "each by itself" if shown.alone or contract.time_context is None else "with their neighbours",
        "pixels": shown.where,
        "margin of a glacier": f"{options.margin:g} m",
    }
    rows = sensor_table(model, chips, shown, threshold=options.threshold) if options.sensors else ()
    lines = []
    if tells_fronts(contract.classes):
        lines = front_cases(model, chips, without=shown.without, alone=shown.alone)
    return evaluate_cases(
        cases_of(model, chips, shown),
        title=f"{contract.name}{f' on {source}' if source else ''}",
        facts={name: value for name, value in facts.items() if value},
        threshold=options.threshold,
        margin=options.margin,
        sensors=rows,
        fronts=score_fronts(lines) if lines else None,
    )


def evaluate_store(
    cube: xr.Dataset,
    reference: Reference,
    label_date: str,
    rows: StoreCaseOptions | None = None,
    options: EvaluateOptions | None = None,
    *,
    source: str = "",
) -> Report:
    """Score a finished store against a label of one date.

    Parameters
    ----------
    cube : Dataset
        From `glaciercube.store.open_store`.
    reference : Reference
        From `glaciercube.evaluation.references`.
    label_date : str
        Day that the label shows.
    rows : StoreCaseOptions or None
        Which rows are compared, and which pixels.
    options : EvaluateOptions or None
        Threshold and margin.
    source : str
        The store, for people.

    Raises
    ------
    StoreError
        If the store has no such row; it names the nearest.
    ModelError
        If no pixel can be compared.
    """
    options, rows = options or EvaluateOptions(), rows or StoreCaseOptions()
    made = provenance_of(cube)
    pairs = [f"{str(time)[:10]} ({apart:+.0f} days)" for _, time, apart in pairs_of(cube, label_date, rows)]
    facts = {
        "store": source,
        "model": str(made.get("model", "")),
        "content hash": str(made.get("model_hash", "")),
        "unfinished": str(made.get(UNFINISHED, "")),
        "label": reference.source,
        "date of the label": label_date,
        "images compared with it": ", ".join(pairs),
        "not compared under": ", ".join(rows.hidden_by),
        "margin of a glacier": f"{options.margin:g} m",
    }
    return evaluate_cases(
        store_cases(cube, reference, label_date, rows),
        title=f"{source or 'A store'} against {reference.source}",
        facts={name: value for name, value in facts.items() if value},
        threshold=options.threshold,
        margin=options.margin,
    )
