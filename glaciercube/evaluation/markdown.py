"""An evaluation as Markdown, from the same record as its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["OVERLAP", "markdown"]

OVERLAP = ("iou", "f1", "precision", "recall")
_AREA_ERROR = (
    "Area error: abs(expected - true area) / true area, where the expected area is the sum of probability; the bias is "
    "the same with its sign, the mapped bias that of the area above the threshold."
)
# Rows of a table that may be long.
_MOST = 40


def markdown(content: Mapping[str, Any]) -> str:
    """Write what `Report.as_dict` gave for people; what has no value is a dash."""
    outlines = content["outlines"]
    parts = [
        f"# {content['title']}",
        _table(["", ""], [[name, value] for name, value in content["facts"].items()]),
        "## Overlap",
        _said_of_images(content),
        _table(["", "IoU", "F1", "precision", "recall", "pixels"], _overlap_rows(content)),
        _said_of_overlap(content),
        "## Outlines",
        _table(
            ["mean (m)", "median (m)", "95% (m)", "images", "none predicted", "none true", "neither"],
            [
                [
                    *(_number(outlines[key], ".1f") for key in ("mean", "median", "percentile_95")),
                    *(outlines[key] for key in ("images", "none_predicted", "none_true", "neither")),
                ]
            ],
        ),
        "## Calibration",
        "ECE is the expected calibration error; the observed share of ice is that of the labels.",
        _table(
            ["", "ECE", "ECE, equal mass", "Brier score", "mean probability", "observed share of ice", "pixels"],
            _calibration_rows(content),
        ),
        "![reliability](reliability.png)",
        *_bins(content),
    ]
    parts += [part for table in content["classes"] for part in _class_part(table)]
    parts += _group_part("Glaciers by size", content["sizes"], _AREA_ERROR)
    parts += _group_part("Glaciers by debris", content["debris"])
    parts.append(f"Images of glaciers of which less than half is seen, in no row: {content['hidden_glaciers']}.")
    parts += (
        _front_part(content["fronts"])
        + _sensor_part(content["sensors"])
        + _glacier_part(content["glaciers"])
        + _image_part(content["images"])
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _said_of_images(content: Mapping[str, Any]) -> str:
    return (
        f"{len(content['images'])} images. Ice is where the probability is above {content['overlap']['threshold']:g}. "
        "A dash is a score without anything to score."
    )


def _said_of_overlap(content: Mapping[str, Any]) -> str:
    overlap = content["overlap"]
    return (
        f"With sight of the labels, the best threshold is {_number(overlap['best_threshold'])} and gives IoU "
        f"{_number(overlap['best_iou'])}. Labelled pixels without a probability: {overlap['unseen']:,}. Area bias "
        f"(expected over true area, less one): {_number(content['area_bias'], '+.3f')}."
    )


def _overlap_rows(content: Mapping[str, Any]) -> list[list[Any]]:
    overlap, debris = content["overlap"], content["debris_overlap"]

    def row(name: str, found: Mapping[str, Any]) -> list[Any]:
        return [name, *(_number(found[key]) for key in OVERLAP), f"{found['pixels']:,}"]

    mean = ["mean of images", _number(overlap["mean_iou"]), "", "", "", ""]
    return [
        row("all pixels", overlap["pooled"]),
        row("edge pixels left out (one pixel's tolerance)", overlap["tolerant"]),
        *([row("debris-covered ice, clean ice left out", debris)] if debris["pixels"] else []),
        mean,
    ]


def _calibration_rows(content: Mapping[str, Any]) -> list[list[Any]]:
    keys = ("ece", "ece_equal_mass", "brier", "said", "true")
    named = {"all pixels": "calibration", f"within {content['near']:g} m of the outlines": "near_calibration"}
    return [
        [name, *(_number(content[where][key]) for key in keys), f"{content[where]['pixels']:,}"]
        for name, where in named.items()
    ]


def _bins(content: Mapping[str, Any]) -> list[str]:
    rows = []
    for one, near in zip(content["calibration"]["bins"], content["near_calibration"]["bins"], strict=True):
        row = [f"{one['low']:.2f}-{one['high']:.2f}"]
        for each in (one, near):
            row += [f"{each['pixels']:,}", _number(each["said"]), _number(each["true"])]
        rows.append(row)
    heads = ["pixels", "mean probability", "observed share of ice"]
    return [_table(["probability", *heads, *(f"{head}, near outlines" for head in heads)], rows)]


def _class_part(table: Mapping[str, Any]) -> list[str]:
    rows = [
        [name, *(_number(found[key]) for key in OVERLAP), *(f"{n:,}" for n in counts)]
        for name, found, counts in zip(table["names"], table["scores"], table["counts"], strict=True)
    ]
    heads = ["true class", "IoU", "F1", "precision", "recall", *(f"mapped as {name}" for name in table["names"])]
    return ["## Classes", f"{table['images']} images; pixels by true and most probable class.", _table(heads, rows)]


def _group_part(title: str, groups: Sequence[Mapping[str, Any]], note: str = "") -> list[str]:
    keys = ("iou", "f1", "precision", "recall", "error", "median_error")
    rows = [
        [
            group["name"],
            *(group[key] for key in ("glaciers", "images", "cut")),
            _number(group["area_km2"], ".2f"),
            *(_number(group[key]) for key in keys),
            *(_number(group[key], "+.3f") for key in ("bias", "mapped_bias")),
        ]
        for group in groups
        if group["glaciers"] or "not known" not in group["name"]
    ]
    heads = ["", "glaciers", "images", "cut by the image", "km2", "IoU", "F1", "precision", "recall"]
    heads += ["area error", "median area error", "area bias", "mapped area bias"]
    return [f"## {title}", note, _table(heads, rows)]


def _front_part(score: Mapping[str, Any] | None) -> list[str]:
    if score is None:
        return []
    rows = [_front_row("all", score)]
    rows += [_front_row(f"{key}: {name}", each) for key, some in score["groups"].items() for name, each in some.items()]
    percent = f"{100 * score['level']:g}%"
    heads = ["", "images", "without a front", "mean distance (m)", f"{percent} from", "to", "pixels", "from", "to"]
    return ["## Calving fronts", "Intervals are over images, drawn again with replacement.", _table(heads, rows)]


def _front_row(name: str, score: Mapping[str, Any]) -> list[Any]:
    metres, pixels = [score["distance_m"], *score["interval_m"]], [score["distance_px"], *score["interval_px"]]
    return [
        name,
        score["images"],
        score["missing"],
        *(_number(v, ".1f") for v in metres),
        *(_number(v, ".2f") for v in pixels),
    ]


def _sensor_part(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    keys = ("iou", "tolerant_iou", "f1", "debris_iou", "ece", "near_ece")
    body = [
        [r["name"], *(_number(r[key]) for key in keys), _number(r["lost"], "+.3f"), r["pixels"], r["unseen"]]
        for r in rows
    ]
    heads = ["inputs", "IoU", "IoU, tolerant", "F1", "IoU of debris-covered ice", "ECE", "ECE near outlines"]
    heads += ["loss of IoU", "pixels", "pixels without a probability"]
    return ["## With fewer sensors", _table(heads, body)]


def _glacier_part(glaciers: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [
            f"{g['name']} {g['glacier']}",
            g["images"],
            _number(g["area_km2"], ".2f"),
            *(_number(g[key]) for key in (*OVERLAP, "error")),
            *(_number(g[key], "+.3f") for key in ("bias", "mapped_bias")),
            _number(g["debris_share"], ".2f"),
            "yes" if g["cut"] else "",
        ]
        for g in glaciers[:_MOST]
    ]
    heads = ["", "images", "km2", "IoU", "F1", "precision", "recall", "area error", "area bias", "mapped area bias"]
    heads += ["debris-covered share", "cut by the image"]
    return ["## Glaciers", _left_out(len(glaciers), "largest"), _table(heads, rows)]


def _image_part(images: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [i["name"], i["time"][:10], *(_number(i["overlap"][key]) for key in OVERLAP), f"{i['overlap']['pixels']:,}"]
        for i in images[:_MOST]
    ]
    heads = ["", "date", "IoU", "F1", "precision", "recall", "pixels"]
    return ["## Images", _left_out(len(images), "first"), _table(heads, rows)]


def _left_out(count: int, which: str) -> str:
    return f"The {_MOST} {which} of {count}; `report.json` has all." if count > _MOST else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)
