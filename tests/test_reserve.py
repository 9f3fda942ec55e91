"""Intervals keep a reserve for places unlike those of the calibration, as large as its own scenes differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize

from glaciercube.change import Calibration, raised_level
from glaciercube.training.area_errors import AreaError
from glaciercube.training.reserve import shortfalls, worst


@pytest.mark.parametrize(("level", "reserve"), [(0.9, 0.03), (0.8, 0.2), (0.95, 0.01)])
def test_the_raised_level_still_holds_after_the_worst_shift_of_that_size(level: float, reserve: float) -> None:
    found = raised_level(level, reserve)
    assert found > level
    # The worst of all distributions over 40 equal cells within the ball, of which that share lies in the interval.
    cells = 40
    inside = np.arange(cells) < found * cells
    inside_share = inside.mean()
    solve: Any = optimize.minimize
    least = solve(
        lambda q: q[inside].sum(),
        np.full(cells, 1 / cells),
        bounds=[(0, 1)] * cells,
        constraints=[
            {"type": "ineq", "fun": lambda q: reserve - ((q - 1 / cells) ** 2 * cells).sum()},
            {"type": "eq", "fun": lambda q: q.sum() - 1},
        ],
        method="SLSQP",
    )
    expected = inside_share - np.sqrt(reserve * inside_share * (1 - inside_share))
    assert least.fun == pytest.approx(expected, abs=2e-3)
    assert found - np.sqrt(reserve * found * (1 - found)) == pytest.approx(level, abs=1e-12)


def test_without_a_reserve_the_level_is_as_asked() -> None:
    assert raised_level(0.9, 0.0) == pytest.approx(0.9, abs=1e-12)
    scores = tuple(np.random.default_rng(0).normal(0, 1, 2000))
    plain, careful = (Calibration("m", "h", (), "year", scores, (0.9,) * 2000, reserve=r) for r in (0.0, 0.04))
    low, high = plain.quantiles(0.9, 0.9)
    assert (low, high) == pytest.approx((-1.645, 1.645), abs=0.12)
    wide = careful.quantiles(0.9, 0.9)
    assert wide == plain.quantiles(raised_level(0.9, 0.04), 0.9)
    assert wide[0] < low < high < wide[1]


def errors(seed: int, snowy: float) -> tuple[list[AreaError], dict[str, dict[str, float]]]:
    """Two glaciers of each of 240 scenes; errors of the third that has most snow are so many times as large."""
    rng = np.random.default_rng(seed)
    traits = {f"s{i}": {"snow": float(rng.random()), "sun": float(rng.random())} for i in range(240)}
    found = [
        AreaError(
            scene=scene,
            glacier=number,
            every="year",
            quantity="area",
            score=float(rng.normal() * (snowy if own["snow"] > 2 / 3 else 1.0)),
            share=0.9,
            true=1.0,
            said=1.0,
            scale=1.0,
            outline=float(rng.random()),
        )
        for scene, own in traits.items()
        for number in (1, 2)
    ]
    return found, traits


def test_the_reserve_is_as_large_as_the_worst_part_asks_for() -> None:
    found, traits = errors(1, 3.0)
    radius, part = worst([shortfalls(found, traits)])
    assert part == "snow, most"
    # At the raised level glaciers of that part are held as often as is said; at the level itself they are not.
    scores = np.array([error.score for error in found])
    snowy = np.array([traits[error.scene]["snow"] > 2 / 3 for error in found])
    held = {}
    for reserve in (0.0, radius):
        scenes = tuple(np.unique([e.scene for e in found], return_inverse=True)[1].tolist())
        one = Calibration("m", "h", (), "year", tuple(scores), (0.9,) * len(found), scenes=scenes, reserve=reserve)
        low, high = one.quantiles(0.8, 0.9)
        held[reserve] = float(((scores >= low) & (scores <= high))[snowy].mean())
    assert held[0.0] < 0.7
    assert held[radius] == pytest.approx(0.8, abs=0.06)


def test_scenes_that_are_all_alike_ask_for_little() -> None:
    radii = [worst([shortfalls(*errors(seed, 1.0))])[0] for seed in range(2, 6)]
    assert max(radii) < 0.05
    assert worst([shortfalls(*errors(1, 3.0))])[0] > 3 * np.mean(radii)


def test_too_few_scenes_ask_for_nothing() -> None:
    found, traits = errors(1, 3.0)
    assert shortfalls(found[:10], traits) == {}
    assert shortfalls([], {}) == {}
    assert worst([{}]) == (0.0, "")
