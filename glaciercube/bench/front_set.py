"""Landsat chips of four Greenland glaciers with drawn calving fronts (Mohajerani et al. 2019, doi:10.3390/rs11010074).

The set is that of https://github.com/yaramohajerani/FrontLearning (MIT): 123 chips of Jakobshavn, Sverdrup and
Kangerlussuaq for training and 10 of Helheim for the test, 300 by 200 pixels, turned so that the ice flows upwards. They
are not georeferenced; pixels are about 49 m (96.3 m are 1.97 pixels in the paper).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glaciercube.change.paths import longest_path
from glaciercube.errors import ConfigError
from glaciercube.evaluation.fronts import season_of
from glaciercube.models.chips import Chip
from glaciercube.models.classes import SIDES

__all__ = ["PIXEL", "TRAIN", "drawn_front", "fjord_sides", "front_chips", "sides_of", "stretched"]

#: Pixel size in metres.
PIXEL: Final = 96.3 / 1.97
TRAIN: Final = ("Jakobshavn", "Kangerlussuaq", "Sverdrup")
_FOLDER: Final = "calving_fronts/greenland_training.dir/data"
# Glaciers by path and row of the scene (WRS-2).
_SCENES: Final = {
    "Jakobshavn": ("008011", "009011", "010011"),
    "Kangerlussuaq": ("229012", "230012", "231012"),
    "Sverdrup": ("020007", "021006", "021007", "022006", "023006", "024006"),
    "Helheim": ("231014", "233013"),
}


def front_chips(folder: Path, part: str = "train") -> tuple[Chip, ...]:
    """Chips of the training or of the test folder.

    Parameters
    ----------
    folder : Path
        That holds ``calving_fronts``.
    part : {"train", "test"}
        Which folder. The test folder is for scores alone.

    Returns
    -------
    tuple of Chip
        ``brightness`` (see `stretched`), labels `SIDES` (``front`` three pixels wide), the glacier as place, and the
        attributes ``glacier``, ``sensor``, ``season``, ``resolution`` and ``drawn`` (rows and columns of the front).

    Raises
    ------
    ConfigError
        If the folder does not hold the set.
    """
    root = folder / _FOLDER / part
    images = sorted((root / "images").glob("*_Subset.png"))
    if not images:
        raise ConfigError(
            f"no chips in {root}", "unpack the data folder of github.com/yaramohajerani/FrontLearning there"
        )
    return tuple(_chip(path, root / "labels" / path.name.replace("_Subset", "_Front")) for path in images)


def _chip(image: Path, label: Path) -> Chip:
    from PIL import Image

    sensor, _, scene, day = image.name.split("_")[:4]
    glacier = next(name for name, scenes in _SCENES.items() if scene in scenes)
    with Image.open(image) as opened:
        grey = np.asarray(opened.convert("RGB"), np.float32)[..., 0]
    with Image.open(label) as opened:
        line = drawn_front(np.asarray(opened.convert("L")) < 128)
    time = np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}", "s")
    sides = sides_of(line, grey.shape)
    sides[_near(line, grey.shape) <= 1.5] = SIDES.index("front")
    band = image.name.split("_")[-2]
    return Chip(
        variables={"brightness": stretched(grey)[None]},
        label=sides[None],
        labels={name: (name,) for name in SIDES},
        weight=np.ones((1, *grey.shape), np.float32),
        time=np.array([time]),
        resolution=PIXEL,
        name=f"{sensor}_{scene}_{day}",
        place=glacier,
        attributes={
            "glacier": glacier,
            "sensor": f"{sensor} {band}",
            "season": season_of(time),
            "resolution": f"{PIXEL:.0f} m",
            "drawn": line.tolist(),
        },
    )


def stretched(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Grey values between their 2nd and 98th percentiles as 0 to 1, cut at -0.5 and 2; black does not count."""
    low, high = np.percentile(grey[grey > 0], (2.0, 98.0))
    found: npt.NDArray[np.float32] = np.clip((grey - low) / max(float(high - low), 1.0), -0.5, 2.0).astype(np.float32)
    return found


def drawn_front(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The middle of a drawn line of some pixels' width, from its left end to its right: (point, 2) rows and columns."""
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    if count > 1:
        mask = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    line = longest_path(mask, 1.0 / np.maximum(depth, 0.1) ** 3)
    return line if line[0, 1] <= line[-1, 1] else line[::-1]


def sides_of(line: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """On which side of a front each pixel lies, the ice flowing upwards: 0 seaward, 2 inland, as `SIDES`.

    The front is drawn on from its ends straight to the left and the right.

    Parameters
    ----------
    line : (point, 2) int64
        From the left to the right end.
    shape : (int, int)
        Rows and columns.
    """
    wall = np.zeros(shape, bool)
    wall[tuple(line.T)] = True
    wall[line[0, 0], : line[0, 1]] = True
    wall[line[-1, 0], line[-1, 1] :] = True
    parts, _ = ndimage.label(~wall)
    above = np.isin(parts, np.unique(parts[0][parts[0] > 0]))
    return np.where(above, SIDES.index("seaward"), SIDES.index("inland")).astype(np.uint8)


def fjord_sides(chip: Chip) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The sides of a chip's fjord, (y, x) each: the columns in which its drawn front begins and ends.

    The ice flows upwards, and the sides along it; those that were drawn for the paper are not published.
    """
    drawn = chip.attributes["drawn"]
    left, right = np.zeros((2, *chip.label.shape[1:]), bool)
    left[:, drawn[0][1]] = right[:, drawn[-1][1]] = True
    return left, right


def _near(line: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    free = np.ones(shape, bool)
    free[tuple(line.T)] = False
    return np.asarray(ndimage.distance_transform_edt(free))
