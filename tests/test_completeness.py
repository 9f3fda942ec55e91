"""What a search reports of itself: observations, expected passes, coverage, gaps, scenes left out."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest
import shapely
from made_items import KHUMBU, Json, optical, radar, write
from matplotlib.patches import Rectangle

import glaciercube as gc
from glaciercube.catalog import SensorOptions, find
from glaciercube.catalog.completeness import Completeness
from glaciercube.catalog.coverage import shares
from glaciercube.catalog.revisit import expected_passes
from glaciercube.errors import CubeError
from glaciercube.region import Region

START = dt.datetime(2022, 1, 3, 5, 0, tzinfo=dt.UTC)
REGION = Region.from_bbox(KHUMBU, resolution=20, name="khumbu")
EVERYWHERE, WEST = (86.0, 27.0, 88.0, 29.0), (86.0, 27.0, 86.815, 29.0)


def year_of_passes() -> list[Json]:
    """2022 of Sentinel-2A and B on one orbit, without May; every second pass covers the western half."""
    dates = [START + dt.timedelta(days=5 * n) for n in range(73)]
    return [
        optical(when, platform="AB"[n % 2], orbit=76, cloud=100.0 * (n % 2), box=WEST if n % 2 else EVERYWHERE)
        for n, when in enumerate(dates)
        if when.month != 5
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Completeness:
    catalog = write(tmp_path_factory.mktemp("made"), year_of_passes())
    return find(catalog, REGION, "2022", ["sentinel-2"]).completeness(REGION)


def test_passes_are_counted_and_expected_by_month(report: Completeness) -> None:
    months = report.months.set_index("month")
    assert len(months) == 12
    assert months.loc["2022-05", "observations"] == 0
    # Both satellites were seen on the orbit, so that passes are counted from dates: 6 or 7 a month.
    assert months.loc["2022-05", "expected"] == 6
    others = months.drop("2022-05")
    assert (others["observations"] == others["expected"]).all()
    assert months["expected"].sum() == 73


def test_coverage_is_measured_on_the_grid(report: Completeness) -> None:
    seen = report.observations
    whole, half = seen[seen["platform"] == "sentinel-2a"], seen[seen["platform"] == "sentinel-2b"]
    assert whole["share"].min() > 0.9999
    assert half["share"].between(0.49, 0.51).all()
    assert set(whole["cloud"]) == {0.0}
    assert set(half["cloud"]) == {100.0}
    assert set(seen["relative_orbit"]) == {76}


def test_the_longest_gap_is_found(report: Completeness) -> None:
    longest = report.gaps.iloc[0]
    assert (longest["first"], longest["last"]) == (pd.Timestamp("2022-04-28 05:00"), pd.Timestamp("2022-06-02 05:00"))
    assert longest["days"] == 35
    assert len(report.gaps) == 5


def test_it_is_told_in_a_few_lines(report: Completeness) -> None:
    told = str(report)
    assert told.splitlines()[0].startswith("sentinel-2 (sentinel-2-l2a): 67 observations of 67 scenes")
    assert "2022 6/6 6/6 6/6 6/6 0/6" in " ".join(told.split())
    assert "longest gaps: 2022-04-28 to 2022-06-02 (35 days)" in told
    assert "1 of 12 months without an observation" in told


def seen(*rows: tuple[str, str | None, int | None]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["time", "platform", "relative_orbit"])
    return frame.assign(time=pd.to_datetime(frame["time"]))


def test_satellites_are_expected_while_they_are_in_service() -> None:
    def passes(sensor: str, begin: str, end: str, *rows: tuple[str, str | None, int | None]) -> float:
        return expected_passes(sensor, seen(*rows), pd.Timestamp(begin), pd.Timestamp(end))

    one = ("2016-06-01", "sentinel-2a", 76)
    assert passes("sentinel-2", "2016-06-01", "2016-06-30", one) == 3
    assert passes("sentinel-2", "2018-06-01", "2018-06-21", one) == pytest.approx(3 + 20 / 10)
    # Sentinel-2C took 2A's place.
    assert passes("sentinel-2", "2025-06-01", "2025-06-21", one) == pytest.approx(2 * 20 / 10)
    two = ("2022-01-05", "sentinel-1a", 12)
    assert passes("sentinel-1", "2022-01-01", "2022-01-31", two) == 3
    assert passes("sentinel-1", "2021-01-01", "2021-01-25", two, ("2021-01-01", "sentinel-1a", 121)) == pytest.approx(
        2 + 3 + 2 * 24 / 12
    )
    assert passes("sentinel-1", "2013-01-01", "2013-12-31", two) == 0
    assert pd.isna(passes("sentinel-2", "2016-06-01", "2016-06-30", ("2016-06-01", "sentinel-2a", None)))
    assert pd.isna(passes("dem", "2016-06-01", "2016-06-30", one))


def test_coverage_beyond_180_degrees_and_over_the_pole() -> None:
    region = Region.from_bbox((179.9, 66.0, -179.9, 66.05), resolution=100)
    east, west = shapely.box(179.0, 65.5, 180.0, 66.5), shapely.box(-180.0, 65.5, -179.0, 66.5)
    beyond = shapely.box(179.0, 65.5, 181.0, 66.5)
    for footprints, share in (([east, west], 1.0), ([beyond], 1.0), ([east], 0.5), ([], 0.0)):
        assert shares([footprints], region)[0] == pytest.approx(share, abs=0.01)
    polar = Region.from_bbox((0.0, 84.4, 20.0, 84.6), resolution=200)
    assert shares([[shapely.box(-180, 84, 180, 90)]], polar)[0] == pytest.approx(1.0, abs=1e-6)


def test_calendars_are_drawn_and_say_when_there_is_nothing_to_draw(tmp_path: Path) -> None:
    items = year_of_passes() + [radar(START + dt.timedelta(days=12 * n)) for n in range(20)]
    scenes = find(write(tmp_path / "made", items), REGION, "2021-06/2023-02", ["sentinel-2", "sentinel-1"])
    figure = gc.plot_calendar(scenes, REGION)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left").split(",")[0] for axes in panels] == ["sentinel-1", "sentinel-2"]
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["2021", "2022", "2023"]
    # A stroke for each observation, in the row of its year and at its day.
    boxes = [patch for patch in panels[1].patches if isinstance(patch, Rectangle)]
    strokes = [patch for patch in boxes if abs(patch.get_width() - 1.8) < 1e-9]
    assert len(strokes) == 67
    assert {round(patch.get_y() + 0.39) for patch in strokes} == {1}
    assert min(patch.get_x() for patch in strokes) == pytest.approx(2.5 - 0.9)
    figure.savefig(tmp_path / "calendar.png")
    with pytest.raises(CubeError, match="no dates to draw"):
        gc.plot_calendar(scenes.of("dem"), REGION)


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    items = year_of_passes()
    scenes = find(write(tmp_path, items), REGION, "2022", {"sentinel-2": SensorOptions(max_cloud_cover=50)})
    report = scenes.completeness(REGION)
    assert report.left_out["scenes"].tolist() == [sum(each["properties"]["eo:cloud_cover"] > 50 for each in items)]
    assert "scenes left out: its cloud cover of 100 % is above 50 % (sentinel-2)" in str(report)
