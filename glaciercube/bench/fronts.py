"""Front models on the calving fronts of Greenland: ``python -m glaciercube.bench.fronts --data FOLDER --out FOLDER``.

Every model is trained on the training folder with one recipe and one budget of processor time, and scored on the test
folder (Helheim). ``--leave GLACIER`` scores on a glacier of the training folder that is left out of the training
instead, which is how options are chosen, and leaves the test folder alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from glaciercube.bench.front_set import TRAIN, front_chips
from glaciercube.bench.front_training import RARITY, Recipe, Trained, train
from glaciercube.bench.real_sets import real_folder
from glaciercube.bench.report import Section
from glaciercube.bench.scoring import seconds_per_megapixel
from glaciercube.change.fronts import FrontOptions, find_fronts, front_between
from glaciercube.evaluation.fronts import FrontCase, score_fronts
from glaciercube.evaluation.jsonable import jsonable
from glaciercube.models.architectures.contracts import BRIGHTNESS, architecture_contract
from glaciercube.models.architectures.layers import DoubleConv
from glaciercube.models.architectures.segmenter import Segmenter, integers, number
from glaciercube.models.base import Masked, Model
from glaciercube.models.chips import Chip
from glaciercube.models.classes import SIDES, Output
from glaciercube.models.contract import Contract
from glaciercube.models.ensemble import ensemble
from glaciercube.models.reach import Windows
from glaciercube.models.registry import build_module, save_model
from glaciercube.models.views import with_views

__all__ = ["ENTRANTS", "Entrant", "PlainUNet", "found_fronts", "front_map", "run_entrant", "section"]

#: Probability by which a line ends, chosen on glaciers of the training folder that were left out.
THRESHOLD: Final = 0.35
#: Processor seconds of a front model for each of the benchmark's: the others are trained once per fold.
_SHARE: Final = 10.0
_FRONT = (Output("front_probability", ("front",)),)
_PUBLISHED = (
    ("U-Net of Mohajerani et al. (2019)", "1.97"),
    ("second hand, Mohajerani et al. (2019)", "1.89"),
)
COLUMNS: Final = (
    "model",
    "mean distance px [95%]",
    "mean distance m [95%]",
    "paired px [95%]",
    "paired, sides given, px [95%]",
    "without front",
    "weights",
    "s/Mpx",
    "steps",
)

#: Processor seconds of each training, and their number, of the front model once more, beyond the benchmark's budget.
LONGER, LONGER_TRAININGS = 900.0, 2

_NOTES: Final = (
    "In brackets: processor seconds of the training; all but one model have the same.",
    "Trained on Jakobshavn, Kangerlussuaq and Sverdrup (123 chips), scored on images of another glacier.",
    "Labels: the front, and its two sides as the line drawn on to the margins parts them; the U-Net learns the first.",
    "Mean distance: from every pixel of either line to the nearest of the other, over all images (CaFFe).",
    "Paired: both lines walked at the same pace in 1000 steps, without what is nearer than 500 m to their ends.",
    "Sides given, as for the published errors: the line is sought from side to side of the fjord, and 500 m at the",
    "sides are left out. Those of the paper are not published: here the columns where the drawn front begins and ends.",
    "Images without a probable pixel have no line, and are left out of the means.",
    "Images are seen in three sizes, as they are and mirrored (s/Mpx counts all); 'seen once' is the same without.",
    "Intervals: bootstrap over images. All are of one glacier: they say nothing of others.",
)


class PlainUNet(Segmenter):
    """U-Net of four scales from full resolution down and dropout, as Mohajerani et al. (2019) use it.

    Parameters
    ----------
    contract : Contract
        With ``widths`` and ``dropout``.
    """

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract)
        widths = integers(contract, "widths")
        self.downs = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise((self.channels, *widths)))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.joins = nn.ModuleList(DoubleConv(2 * width, width) for width in widths[:-1])
        self.dropout = nn.Dropout(number(contract, "dropout"))
        self.head = nn.Conv2d(widths[0], self.heads, 1)

    def logits(self, dynamic: Mapping[str, Masked], static_features: Any) -> Tensor:
        """Return logits, as `Segmenter.logits`."""
        found = self.stacked(dynamic, static_features)
        features: list[Tensor] = []
        for down in self.downs:
            features.append(self.dropout(down(functional.max_pool2d(features[-1], 2) if features else found)))
        found = features.pop()
        for up, join in zip(reversed(self.ups), reversed(self.joins), strict=True):
            found = join(torch.cat([up(found), features.pop()], dim=1))
        return self.squeezed(self.head(found))


@dataclass(frozen=True)
class Entrant:
    """A row of the table.

    Attributes
    ----------
    title : str
        As it is called there.
    name : str
        As files and ``--models`` have it.
    size : (int, int)
        Rows and columns of its crops.
    unfair : str
        Why it is not trained unless it is named: what the budget would show it.
    """

    title: str
    name: str
    size: tuple[int, int] = (256, 192)
    unfair: str = ""

    def contract(self) -> Contract:
        """Contract over one grey band, with the sides of the front as classes, or the front alone for the U-Net."""
        if self.name == "plain-unet":
            # The loss weighs the front by its rarity; the shift takes that out of the probabilities again.
            shift = -math.log(RARITY)
            usual = architecture_contract("front-unet", widths=(32, 64, 128, 256), dropout=0.2, shift=shift)
            # Five convolutions at each of three scales, two at the deepest, and the pixels that pooling joins.
            return replace(
                usual, name=self.name, classes=("other", "front"), outputs=_FRONT, stride=8, receptive_field=64
            )
        if self.name == "front-unet":
            return architecture_contract(self.name)
        windows = Windows(256, 128, margin=64) if self.name == "hooknet" else None
        return architecture_contract(
            self.name, modalities=(BRIGHTNESS,), classes=SIDES, outputs=_FRONT, windows=windows
        )

    def module(self) -> Segmenter:
        """Untrained."""
        contract = self.contract()
        if self.name == "plain-unet":
            return PlainUNet(contract)
        module = build_module(contract)
        if not isinstance(module, Segmenter):
            raise TypeError(f"{self.name} is no segmenter")
        return module


ENTRANTS: Final = (
    Entrant("front-unet", "front-unet"),
    Entrant("U-Net, front alone (as Mohajerani et al.)", "plain-unet"),
    # Measured on one core with bfloat16: 0.07 s for a crop of front-unet, 0.31 s for one of the U-Net.
    Entrant("HED-UNet", "hed-unet", unfair="0.22 s a crop: 15 epochs in 400 s, published with 100"),
    Entrant("AMD-HookNet", "hooknet", (256, 256), unfair="0.35 s a crop: 9 epochs in 400 s, published with 300"),
)


def front_map(model: Model, chip: Chip) -> npt.NDArray[np.float32]:
    """Probability of ``front`` in a chip, (y, x)."""
    (modality,) = model.contract.modalities
    image = torch.from_numpy(np.asarray(chip.variables["brightness"], np.float32))[None]
    found = model.predict_classes({modality.name: image}, {})[0, model.contract.classes.index("front")]
    return torch.nan_to_num(found).numpy()


def run_entrant(
    entrant: Entrant,
    train_on: Sequence[Chip],
    test_on: Sequence[Chip],
    recipe: Recipe,
    *,
    threshold: float = THRESHOLD,
    trainings: int = 1,
    kept: Path | None = None,
) -> tuple[Model, dict[str, Any]]:
    """Train an entrant, once or several times from other seeds, and score the mean of what they say.

    Each training is kept in the folder ``kept``, and one that is there is not repeated.

    Returns
    -------
    (Model, dict)
        What was scored: the mean over trainings and views, as one model. Its cell: scores, also of its first training
        seeing images once as they are; weights, seconds per megapixel, steps, and the found fronts.
    """
    made = [
        _trained(entrant, train_on, replace(recipe, size=entrant.size, seed=seed), kept)
        for seed in range(recipe.seed, recipe.seed + trainings)
    ]
    first = made[0][0]
    whole = ensemble([model for model, _ in made], name=f"{entrant.name}-mean") if trainings > 1 else first
    whole = with_views(whole) if first.contract.windows is None else whole
    cases = found_fronts(whole, test_on, threshold)
    return whole, {
        "model": entrant.name,
        "title": entrant.title + (f", mean of {trainings} trainings" if trainings > 1 else ""),
        "score": asdict(score_fronts(cases)),
        "weights": whole.module.parameter_count,
        "seconds_per_megapixel": seconds_per_megapixel(whole),
        "steps": sum(trained.steps for _, trained in made),
        "seconds": sum(trained.seconds for _, trained in made),
        "once": {
            "score": asdict(score_fronts(found_fronts(first, test_on, threshold))),
            "weights": first.module.parameter_count,
            "seconds_per_megapixel": seconds_per_megapixel(first),
            "steps": made[0][1].steps,
        },
        "recipe": asdict(recipe),
        "threshold": threshold,
        "fronts": {case.name: np.asarray(case.found).tolist() for case in cases},
        "between": {case.name: np.asarray(case.between).tolist() for case in cases},
    }


def _trained(entrant: Entrant, chips: Sequence[Chip], recipe: Recipe, kept: Path | None) -> tuple[Model, Trained]:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    torch.manual_seed(recipe.seed)
    contract, module = entrant.contract(), entrant.module()
    asked = json.dumps([asdict(recipe), sorted(chip.name for chip in chips)])
    path = (
        None if kept is None else kept / f"{entrant.name}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}.safetensors"
    )
    if path is not None and path.is_file():
        module.load_state_dict(load_file(path))
        with safe_open(path, "pt") as opened:
            told_of = opened.metadata()
        trained = Trained(module, int(told_of["steps"]), float(told_of["seconds"]))
    else:
        trained = _train(entrant, module, contract, chips, recipe)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            weights = {name: each.contiguous() for name, each in trained.module.state_dict().items()}
            save_file(weights, path, {"steps": str(trained.steps), "seconds": str(trained.seconds)})
    return Model.from_module(contract, trained.module), trained


def _train(entrant: Entrant, module: Segmenter, contract: Contract, chips: Sequence[Chip], recipe: Recipe) -> Trained:
    form = "{desc} {percentage:.0f}% {elapsed} {postfix}"
    with tqdm(total=1.0, desc=entrant.title, bar_format=form, mininterval=10.0) as bar:

        def told(done: float, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update(done - bar.n)

        return train(module, contract, chips, recipe, told)


def found_fronts(model: Model, chips: Iterable[Chip], threshold: float = THRESHOLD) -> list[FrontCase]:
    """Fronts of some chips beside the drawn ones: found without help, and between given sides of the fjord.

    The ice flows upwards, and the sides along it: they are the columns in which the drawn front begins and ends.
    """
    options = FrontOptions(threshold=threshold)
    cases = []
    for chip in chips:
        probability = front_map(model, chip)
        lines = find_fronts({"front": probability}, chip.resolution, options)
        groups = {key: str(chip.attributes[key]) for key in ("glacier", "season", "sensor", "resolution")}
        found, drawn = lines[0] if lines else np.zeros((0, 2), np.int64), np.array(chip.attributes["drawn"])
        first, second = np.zeros(probability.shape, bool), np.zeros(probability.shape, bool)
        first[:, drawn[0, 1]] = second[:, drawn[-1, 1]] = True
        between = front_between(probability, first, second, options)
        sides = np.argwhere(first | second)
        cases.append(FrontCase(chip.name, found, drawn, chip.resolution, groups, between, sides))
    return cases


def section(
    data: Path | None,
    out: Path,
    *,
    seconds: float,
    quick: bool = False,
    models: Sequence[str] = (),
    kept: bool = False,
) -> Section:
    """The calving fronts' part of the benchmark.

    Parameters
    ----------
    data : Path or None
        Folder of the real sets; without it there are no rows but the published ones.
    out : Path
        Where each trained model and its cell are kept: a second call trains nothing.
    seconds : float
        Processor seconds per model and fold of the benchmark; a front model, which is trained once, has 10 times that.
    quick : bool
        A step each on a few chips, to see that all parts work.
    models : sequence of str
        Names of those entrants alone; where empty, all that the budget can train fairly.
    kept : bool
        Only what was trained and scored before.
    """
    cells = []
    if data is not None and (data / "calving_fronts").is_dir():
        recipe = Recipe(seconds=_SHARE * seconds)
        if kept:
            models = [e.name for e in ENTRANTS if (out / f"{_key(e, recipe, '')}.json").is_file()]
        if models or not kept:
            cells = _cells(data, out, replace(recipe, steps=1, batch=2) if quick else recipe, "", models, few=quick)
        longer, best = replace(recipe, seconds=LONGER), ENTRANTS[0]
        there = (out / f"{_key(best, longer, '', LONGER_TRAININGS)}.json").is_file()
        if there or not (quick or kept):
            cells += _cells(data, out, longer, "", (best.name,), trainings=LONGER_TRAININGS)
    return _section(cells, "Helheim (test folder)")


def _key(entrant: Entrant, recipe: Recipe, leave: str, trainings: int = 1) -> str:
    """Name of what is kept of a model."""
    key = f"{entrant.name}-{leave or 'test'}-{recipe.seconds:.0f}s-{recipe.steps or 'all'}-{recipe.seed}"
    return key + (f"-{trainings}" if trainings > 1 else "")


def _cells(
    data: Path,
    out: Path,
    recipe: Recipe,
    leave: str,
    models: Sequence[str],
    *,
    few: bool = False,
    trainings: int = 1,
) -> list[dict[str, Any]]:
    chips = front_chips(data)
    train_on = [chip for chip in chips if chip.place != leave]
    test_on = [chip for chip in chips if chip.place == leave] if leave else list(front_chips(data, "test"))
    if few:
        train_on, test_on = train_on[::20], test_on[:2]
    cells = []
    for entrant in _entrants(models):
        key = _key(entrant, recipe, leave, trainings)
        kept = out / f"{key}.json"
        if not kept.is_file():
            out.mkdir(parents=True, exist_ok=True)
            made, cell = run_entrant(entrant, train_on, test_on, recipe, trainings=trainings, kept=out / "trainings")
            if entrant.name != "plain-unet":  # of the benchmark alone: no folder says how to build it
                save_model(made, out / key)
            kept.write_text(json.dumps(jsonable(cell), indent=1), encoding="utf-8")
        cells.append(json.loads(kept.read_text(encoding="utf-8")))
    return cells


def _entrants(models: Sequence[str]) -> list[Entrant]:
    """Those of some names; without any, all that the budget can train fairly."""
    return [entrant for entrant in ENTRANTS if (entrant.name in models if models else not entrant.unfair)]


def _section(cells: Sequence[Mapping[str, Any]], title: str) -> Section:
    rows = []
    for cell in cells:
        rows.append(tuple(_row(f"{cell['title']} ({cell['seconds']:.0f} s)", cell)))
        spent = cell["recipe"]["seconds"]
        rows.append(tuple(_row(f"{cell['model']}, one training, seen once ({spent:.0f} s)", cell["once"])))
    told = {cell["model"] for cell in cells}
    rows += [_untrained(entrant) for entrant in ENTRANTS if entrant.unfair and entrant.name not in told]
    blank = ("",) * (len(COLUMNS) - 5)
    rows += [(name, "", "", "", pixels, *blank) for name, pixels in _PUBLISHED]
    return Section(f"Calving fronts: {title}", COLUMNS, tuple(rows), _NOTES, {"cells": list(cells)})


def _row(title: str, cell: Mapping[str, Any]) -> Iterable[str]:
    score = cell["score"]
    yield title
    crossed = "" if score["crossed"] == score["images"] else f" over {score['crossed']} images"
    for key, interval, form, beside in (
        ("distance_px", "interval_px", ".2f", ""),
        ("distance_m", "interval_m", ".0f", ""),
        ("paired_px", "paired_interval_px", ".2f", ""),
        ("between_px", "between_interval_px", ".2f", crossed),
    ):
        if score[key] is None:
            yield "no front"
        else:
            yield f"{score[key]:{form}} [{score[interval][0]:{form}}, {score[interval][1]:{form}}]{beside}"
    yield f"{score['missing']} of {score['images']}"
    yield f"{cell['weights'] / 1e6:.2f} M"
    yield f"{cell['seconds_per_megapixel']:.1f}"
    yield str(cell["steps"])


def _untrained(entrant: Entrant) -> tuple[str, ...]:
    weights = sum(parameter.numel() for parameter in entrant.module().parameters())
    return (entrant.title, f"not trained: {entrant.unfair}", "", "", "", "", f"{weights / 1e6:.2f} M", "", "0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score and write ``fronts.md``."""
    parser = argparse.ArgumentParser(prog="python -m glaciercube.bench.fronts", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that holds calving_fronts")
    parser.add_argument("--out", type=Path, required=True, help="where models and the table are written")
    parser.add_argument("--seconds", type=float, default=400.0, help="processor seconds per model")
    parser.add_argument("--steps", type=int, help="no more steps than this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainings", type=int, default=1, help="from other seeds, whose maps are averaged")
    parser.add_argument("--leave", choices=TRAIN, default="", help="score on this glacier instead of the test folder")
    parser.add_argument("--train-only", action="store_true", help="keep the trainings, score nothing")
    parser.add_argument("--models", nargs="*", default=(), choices=[entrant.name for entrant in ENTRANTS])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = Recipe(seconds=given.seconds, steps=given.steps, seed=given.seed)
    if given.train_only:
        chips = [chip for chip in front_chips(real_folder(given.data)) if chip.place != given.leave]
        for entrant, seed in product(_entrants(given.models), range(given.seed, given.seed + given.trainings)):
            _trained(entrant, chips, replace(recipe, size=entrant.size, seed=seed), given.out / "trainings")
        return 0
    cells = _cells(real_folder(given.data), given.out, recipe, given.leave, given.models, trainings=given.trainings)
    table = _section(cells, f"{given.leave} (left out)" if given.leave else "Helheim (test folder)")
    lines = ["| " + " | ".join(row) + " |" for row in (table.columns, ("---",) * len(table.columns), *table.rows)]
    text = "\n".join([f"## {table.title}", "", *lines, "", *(f"- {note}" for note in table.notes), ""])
    (given.out / f"fronts{'-' if given.leave else ''}{given.leave}.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
