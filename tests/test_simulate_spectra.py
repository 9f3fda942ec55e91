"""Class statistics of reflectance: how they are made, and what is drawn from them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glaciercube.errors import ReadError
from glaciercube.simulate import fit_spectra
from glaciercube.simulate.spectra import BANDS, CLASSES, draw_atmosphere, draw_scene_spectra, load_statistics

SITES = [("Gulkana", 20210615), ("Sperry", 20210730), ("SouthCascade", 20210825)]


def _table(rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables as published: true bands in SR; in TOA `B11` is the cirrus band and `B12` is really B11."""
    rows = []
    for site, date in [*SITES, ("Wolverine", 20210615)]:
        for number in fit_spectra.CLASSES:
            level = -1.0 - 0.3 * number + 0.2 * rng.standard_normal(6)
            if site == "Wolverine":
                level = level + 50  # would ruin every mean
            spectra = np.exp(level + 0.1 * rng.standard_normal((30, 6)))
            for index, spectrum in enumerate(spectra):
                rows.append([site, date, number, *spectrum, f"POINT ({site} {number} {index})"])
    columns = ["site_name", "image_date", "class", *fit_spectra.SR_COLUMNS, "geometry"]
    sr = pd.DataFrame(rows, columns=columns)
    toa = sr.copy()
    toa[fit_spectra.SR_COLUMNS] = 0.05 + 0.8 * sr[fit_spectra.SR_COLUMNS]
    toa["B12"] = 0.9 * sr["B11"]
    toa["B11"] = 0.001
    return sr, toa


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sr, toa = _table(np.random.default_rng(0))
    again = sr.iloc[[3, 4]].assign(geometry=["POINT (a)", "POINT (b)"])
    sr, toa = pd.concat([sr, again]), pd.concat([toa, toa.iloc[[3, 4]].assign(geometry=["POINT (a)", "POINT (b)"])])
    sr.to_csv(tmp_path / "sentinel2_sr_pixels.csv", index=False)
    toa.to_csv(tmp_path / "sentinel2_toa_pixels.csv", index=False)
    return tmp_path


def test_faulty_scene_and_repeated_rows_are_left_out_and_swir_is_put_right(folder: Path) -> None:
    boa, toa, counts = fit_spectra.read_tables(folder)
    assert counts == {"read": 602, "faulty_scene": 150, "repeated": 2, "incomplete": 0, "kept": 450}
    assert not boa["scene"].str.startswith("Wolverine").any()
    np.testing.assert_allclose(toa["swir16"], 0.9 * boa["swir16"])
    np.testing.assert_allclose(toa["swir22"], 0.9 * boa["swir22"])


def test_fit_recovers_what_the_tables_were_made_with(folder: Path) -> None:
    document = fit_spectra.fit(folder)
    air = document["atmosphere"]
    np.testing.assert_allclose(np.array(air["path"])[:, :4], 0.05, atol=1e-3)
    np.testing.assert_allclose(np.array(air["transmission"])[:, :4], 0.8, atol=1e-3)
    for entry in document["boa"].values():
        np.testing.assert_allclose(np.sqrt(np.diag(entry["within"])), 0.1, atol=0.03)
        assert np.linalg.eigvalsh(entry["between"]).min() > 0


def test_a_missing_table_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="give the folder"):
        fit_spectra.fit(tmp_path)


def test_shipped_statistics_hold_the_published_pattern() -> None:
    for level, least, most in (("boa", 0.40, 0.67), ("toa", 0.20, 0.70)):
        table = load_statistics(level)
        assert set(table) == set(CLASSES)
        for entry in table.values():
            assert least < entry.share_between < most
            assert np.linalg.eigvalsh(entry.between).min() > 0
        snow, ice, rock = (np.exp(table[name].mean) for name in ("snow", "ice", "rock"))
        assert snow[2] > ice[2] > rock[2]
        assert rock[4] > 5 * snow[4] > 5 * 0.5 * ice[4]


@pytest.mark.real
def test_shipped_statistics_are_those_of_the_tables() -> None:
    given = os.environ.get("GLACIERCUBE_REAL_DATA")
    root = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if given is None and not root.is_dir():
        pytest.skip(f"real data not found in {root}; set GLACIERCUBE_REAL_DATA")
    shipped = Path(fit_spectra.__file__).with_name("spectra.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == json.loads(json.dumps(fit_spectra.fit(root / "spectra")))


def test_scenes_scatter_as_the_scenes_of_the_table_do() -> None:
    table = load_statistics("boa")
    drawn = [draw_scene_spectra(np.random.default_rng(i), np.random.default_rng([i, 1])).mean for i in range(600)]
    for name in ("snow", "ice"):
        logs = np.stack([mean[name] for mean in drawn])
        spread = np.sqrt(np.diag(table[name].between))
        np.testing.assert_allclose(logs.mean(axis=0), table[name].mean, atol=0.1 * spread.max())
        np.testing.assert_allclose(logs.std(axis=0), spread, rtol=0.12)
    rock = np.stack([mean["rock"] for mean in drawn])
    assert (rock.std(axis=0) > np.sqrt(np.diag(table["rock"].between)) * 0.98).all()  # broadened, never narrowed


def test_air_is_physical_and_bluer_in_the_shade() -> None:
    for seed in range(50):
        air = draw_atmosphere(np.random.default_rng(seed), sun_elevation=15 + seed)
        assert ((air.transmission > 0) & (air.transmission <= 1)).all()
        assert (air.path > 0).all()
        assert air.path[BANDS.index("blue")] > air.path[BANDS.index("swir16")]
        assert air.diffuse[BANDS.index("blue")] > air.diffuse[BANDS.index("swir16")]
