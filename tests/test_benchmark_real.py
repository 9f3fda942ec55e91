"""The benchmark on the real sets: what they hold, and the figures that are known of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from glaciercube.bench.real_sets import FOLDER, debris_hma, real_folder, spectra, vinciguerra
from glaciercube.bench.scoring import cases_for, score_cases
from glaciercube.bench.table import Options, main, sections
from glaciercube.errors import ConfigError
from glaciercube.models import load_model

pytestmark = pytest.mark.real


def test_vinciguerra_gives_the_known_figures_of_the_band_ratio(real_data: Path) -> None:
    bench = vinciguerra(real_data / "vinciguerra")
    folds = list(bench.folds())
    assert [fold.name for fold in folds] == ["2019", "2020", "2021"]
    areas = [float((fold.test[0].label == 1).sum()) * 1e-4 for fold in folds]
    np.testing.assert_allclose(areas, [0.425, 0.448, 0.312], atol=0.001)
    model = load_model("band-ratio", threshold=2.8, blue=0.15)
    found = [score_cases(cases_for(model, bench, fold.test)) for fold in folds]
    np.testing.assert_allclose([score.iou for score in found], [0.79, 0.77, 0.67], atol=0.006)
    assert all(score.tolerant_iou > score.iou for score in found)
    # The best threshold on the rule's own probability, chosen in sight of each label.
    np.testing.assert_allclose([score.best_iou for score in found], [0.83, 0.83, 0.68], atol=0.006)


def test_debris_tiles_within_two_kilometres_are_left_out_together(real_data: Path) -> None:
    bench = debris_hma(real_data / "debris_hma")
    assert [fold.name for fold in bench.folds()] == ["100", "104", "107", "113+114+115"]
    assert bench.positive_classes == ("debris_covered_ice",)
    for chip in bench.chips:
        assert chip.label.shape == (1, 500, 500)
        assert "swir22" not in chip.variables  # nothing is made up for it
        assert float(np.min(chip.variables["coherence"])) >= 0.0
        assert float(np.max(chip.variables["coherence"])) < 1.0
        # The slope that is given agrees with the aspect's elevation: flat ground has no direction.
        assert float(np.hypot(chip.variables["aspect_sin"], chip.variables["aspect_cos"]).max()) < 1.001
    share = np.mean([float((chip.label == 1).mean()) for chip in bench.chips])
    assert share == pytest.approx(0.1409, abs=0.0005)


def test_spectra_are_patches_of_one_glacier_each_without_the_faulty_scene(real_data: Path) -> None:
    bench = spectra(real_data / "spectra", most=5)
    assert sorted(set(bench.groups)) == ["Gulkana", "SouthCascade", "Sperry", "Wolverine"]
    assert not any(chip.name.startswith("Wolverine 20210615") for chip in bench.chips)
    assert all(float(np.ptp(chip.variables["swir16"])) == 0.0 for chip in bench.chips)
    top = bench.of_reflectance("toa")
    assert [c.name for c in top.chips] == [c.name for c in bench.chips]
    rock = [i for i, c in enumerate(bench.chips) if c.label[0, 0, 0] == 3]
    pairs = [[s.chips[i].variables["swir16"][0, 0, 0] for i in rock] for s in (bench, top)]
    # The column read as swir16 at the top of the atmosphere is shortwave infrared, not the cirrus band.
    assert 0.15 < float(np.median(pairs[1])) < 0.4
    assert float(np.corrcoef(pairs)[0, 1]) > 0.7
    clean = score_cases(cases_for(load_model("ndsi"), bench, bench.chips))
    assert clean.iou > 0.8


def test_a_missing_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(ConfigError, match="no folder"):
        real_folder()
    with pytest.raises(ConfigError, match="not at"):
        real_folder(tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no"):
        debris_hma(tmp_path)


def test_one_command_makes_the_table(real_data: Path, tmp_path: Path) -> None:
    chosen = ["--data", str(real_data), "--out", str(tmp_path), "--quick", "--sets", "vinciguerra,debris_hma,spectra"]
    done = CliRunner().invoke(main, [*chosen, "--models", "rule"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "benchmark.md").read_text(encoding="utf-8")
    assert text in done.stdout
    assert str(real_data) not in text  # no place of a machine
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == ["## vinciguerra (real)", "## debris_hma (real)", "## spectra (real)"]
    assert "| band ratio 2.8, blue 0.15 | 0.67 | 0.67 |" in text
    record = json.loads((tmp_path / "benchmark.json").read_text(encoding="utf-8"))
    assert all("labels:" in section["notes"][0] for section in record["sections"])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    again = sections(Options(real_data, tmp_path, ("vinciguerra",), ("rule",), quick=True))
    assert again[0].record["cells"] == record["sections"][0]["cells"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == before


def test_networks_are_trained_on_the_other_years_and_shipped_ones_also_as_they_are(
    real_data: Path, tmp_path: Path
) -> None:
    (section,) = sections(Options(real_data, tmp_path, ("vinciguerra",), ("fusion-unet",), quick=True))
    kinds = {cell["kind"]: cell for cell in section.record["cells"]}
    assert set(kinds) == {"shipped", "scratch", "tuned"}
    assert "training" not in kinds["shipped"]
    for kind in ("scratch", "tuned"):
        assert kinds[kind]["training"]["steps"] >= 1
        assert kinds[kind]["scores"]["pixels"] > 20_000
    # Training on from shipped weights does not touch the shipped model.
    (again,) = sections(Options(real_data, tmp_path / "other", ("vinciguerra",), ("shipped",), quick=True))
    shipped = [cell for cell in again.record["cells"] if cell["entrant"] == "fusion-unet, shipped"]
    assert shipped[0]["scores"] == kinds["shipped"]["scores"]
