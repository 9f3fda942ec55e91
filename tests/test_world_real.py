"""What real scenes show of ice in coherence and backscatter, and what the simulated world makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from conftest import FULL
from rasterio.warp import Resampling, reproject
from scipy.stats import mannwhitneyu

from glaciercube.simulate.sequence import GROUND_CLASSES, SequenceOptions, draw_sequence

Image = npt.NDArray[np.floating]


def above(one: Image, other: Image) -> float:
    """Chance that a pixel of the one lies above a pixel of the other."""
    return float(mannwhitneyu(one, other).statistic / one.size / other.size)


def test_the_coherence_of_real_tiles_parts_nothing_from_anything(real_data: Path, say: Callable[[str], None]) -> None:
    found, of_snow = [], []
    for number in (100, 104, 107, 113, 114, 115):
        with rasterio.open(real_data / "debris_hma" / f"image{number}.tif") as source:
            bands = source.read().astype(np.float32)
        with rasterio.open(real_data / "debris_hma" / f"label{number}.tif") as source:
            debris = source.read(1) == 1
        snow = (bands[1] - bands[4]) / (bands[1] + bands[4] + 1e-9) > 0.4
        rock = bands[6][~debris & ~snow][::3]
        found.append(above(rock, bands[6][debris][::3]))
        of_snow.append(above(rock, bands[6][snow & ~debris][::3]))
    say(f"coherence of rock over debris, six real tiles: {np.round(found, 2).tolist()}, mean {np.mean(found):.2f}")
    assert max(found) == pytest.approx(0.59, abs=0.01)
    assert min(found) == pytest.approx(0.39, abs=0.01)
    assert np.mean(found) == pytest.approx(0.51, abs=0.01)
    # Snow and clean ice lose the coherence of any pair before rock does: that they lie as high says that these pairs
    # had none left. They are no measure of what others show.
    say(f"and over snow and clean ice: {np.round(of_snow, 2).tolist()}")
    assert min(of_snow) > 0.4
    assert max(of_snow) < 0.6


def test_backscatter_hardly_parts_debris_from_rock_at_khumbu(real_data: Path, say: Callable[[str], None]) -> None:
    folder = real_data / "khumbu"
    with rasterio.open(folder / "cogs" / "S1_winter_vv.tif") as source:
        shape, transform, crs = source.shape, source.transform, source.crs

    def onto(path: Path) -> Image:
        out = np.full(shape, np.nan, np.float32)
        with rasterio.open(path) as source:
            reproject(
                source.read(1).astype(np.float32),
                out,
                src_transform=source.transform,
                src_crs=source.crs,
                src_nodata=source.nodata,
                dst_transform=transform,
                dst_crs=crs,
                dst_nodata=np.nan,
                resampling=Resampling.nearest,
            )
        return out

    green, swir = (onto(folder / "cogs" / f"S2_autumn_{band}.tif") for band in ("B03", "B11"))
    masks = [onto(folder / "reference" / f"label{number}.tif") == 1 for number in (147, 148, 153)]
    rock = ((green - swir) / (green + swir) < 0.3) & ~np.logical_or.reduce(masks)
    found = []
    for season in ("winter", "spring", "summer", "autumn"):
        vv = onto(folder / "cogs" / f"S1_{season}_vv.tif")
        found += [above(vv[rock & (vv > 1e-4)][::3], vv[debris & (vv > 1e-4)][::3]) for debris in masks]
    say(f"VV of rock over debris, Khumbu: {np.round(found, 2).tolist()}, mean {np.mean(found):.2f}")
    assert min(found) > 0.4
    assert max(found) < 0.67
    assert 0.45 < np.mean(found) < 0.56


@pytest.mark.skipif(not FULL, reason="60 scenes per family; the quick form is in test_world_sequences.py")
@pytest.mark.parametrize("family", ["a", "b"])
def test_simulated_contrasts_of_debris_are_of_that_size(family: str, say: Callable[[str], None]) -> None:
    found: dict[str, list[float]] = {"coherence": [], "vv": []}
    for seed in range(5000, 5060):
        options = SequenceOptions(size=160, layers_missing=0, cloud_cover=0, gaps=False, family=family)
        date = draw_sequence(seed, options).isel(time=0)
        truth, red, nir = (date[name].to_numpy() for name in ("ground", "red", "nir"))
        for name, values in found.items():
            image = date[name].to_numpy()
            debris = image[(truth == 2) & np.isfinite(image)]
            rock = image[(truth == 0) & ((nir - red) / (nir + red) < 0.2) & np.isfinite(image)]
            if min(debris.size, rock.size) > 1500:  # chance alone parts smaller patches from the rock around them
                values.append(above(rock, debris))
    for name, values in found.items():
        spread = np.round(np.quantile(values, [0.1, 0.5, 0.9]), 2).tolist()
        say(f"{name} of rock over debris, family {family}: mean {np.mean(values):.2f}, 10, 50, 90 %: {spread}")
    # Between these tiles, where it shows nothing, and Lippl et al. 2018 (doi:10.1017/jog.2018.70), where it shows all.
    assert 0.5 < np.mean(found["coherence"]) < 0.85
    assert np.quantile(found["coherence"], 0.9) < 0.99
    assert 0.42 < np.mean(found["vv"]) < 0.58


@pytest.mark.skipif(not FULL, reason="60 scenes, to say how hard the world is for a rule that knows none of it")
@pytest.mark.parametrize("family", ["a", "b"])
def test_simulated_ice_is_not_told_by_a_ratio_alone(family: str, say: Callable[[str], None]) -> None:
    options = SequenceOptions(size=128, level="toa", cloud_cover=0, gaps=False, family=family, layers=())
    called, truth = [], []
    for seed in range(9000, 9060):
        date = draw_sequence(seed, options).isel(time=0)
        called.append(((date["red"] / date["swir16"] > 2.8) & (date["blue"] > 0.15)).to_numpy())
        truth.append(date["ground"].to_numpy())
    ice, ground = np.stack(called), np.stack(truth)
    glacier = np.isin(ground, (1, 2))
    iou = float((ice & glacier).sum() / (ice | glacier).sum())
    shares = {name: round(float(ice[ground == kind].mean()), 2) for kind, name in enumerate(GROUND_CLASSES)}
    say(f"band ratio, family {family}: IoU {iou:.2f}, called ice {shares}")
    assert 0.4 < iou < 0.8
    assert shares["clean_ice"] > 0.85
