"""Sets of chips on disk: they give the same chips back, describe themselves, and notice when they were changed."""

from __future__ import annotations

import importlib
import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
import xarray as xr
from click.testing import CliRunner, Result
from pyproj import Transformer
from test_samples import SMALL, inventory, make_cube

from glaciercube.cli import main
from glaciercube.config import SetConfig, load_config
from glaciercube.errors import ModelError, ReadError, StoreError
from glaciercube.models.chips import UNKNOWN, Chip
from glaciercube.simulate.world import World
from glaciercube.training.exchange import SetInfo, content_hash, read_set, read_sets, write_set
from glaciercube.training.folds import FoldOptions, make_folds
from glaciercube.training.items import LABEL_SCHEMA
from glaciercube.training.sampling import SampledChips, SampleOptions, sample_chips
from glaciercube.training.sites import sites_of

# What the label extension asks of items of rasters (its schema 1.0.1 and README).
LABEL_FIELDS = {
    "type": "object",
    "required": ["label:properties", "label:description", "label:type", "label:classes"],
    "properties": {
        "label:properties": {"type": "null"},
        "label:description": {"type": "string", "minLength": 1},
        "label:type": {"const": "raster"},
        "label:tasks": {"type": "array", "items": {"type": "string"}},
        "label:classes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "classes"],
                "properties": {"name": {"type": "null"}, "classes": {"type": "array", "items": {"type": "string"}}},
            },
        },
        "label:overviews": {"type": "array", "items": {"type": "object", "required": ["property_key", "counts"]}},
    },
    "patternProperties": {"^(?!label:)": {}},
    "additionalProperties": False,
}


def check_fields(properties: dict[str, Any], schema: dict[str, Any]) -> None:
    importlib.import_module("jsonschema").validate(properties, schema)


def valid(thing: pystac.STACObject) -> None:
    """By the core schemas, which pystac brings along; those of extensions lie on a server."""
    thing = thing.clone()
    thing.stac_extensions = []
    thing.validate()


def some_chips(count: int = 6) -> SampledChips:
    chips = sample_chips(make_cube(), inventory(), SampleOptions(windows=SMALL, name="made"))
    return chips.take(range(0, len(chips), len(chips) // count)[:count])


def odd_chip() -> Chip:
    """All that a chip may hold: half precision, odd NaNs, several dates, no place on Earth."""
    rng = np.random.default_rng(1)
    red = rng.normal(size=(2, 9, 7)).astype(np.float16)
    red[0, 0, 0] = np.nan
    dem = np.frombuffer(np.uint32(0x7FC00123).tobytes() * 63, np.float32).reshape(9, 7)
    label = rng.integers(0, 3, (2, 9, 7)).astype(np.uint8)
    label[1, 2:4] = UNKNOWN
    return Chip(
        variables={"swir22": red, "elevation": dem, "aspect_sin": red[0].astype(np.float64)},
        label=label,
        labels={"z last": ("other",), "a first": ("clean_ice", "seasonal_snow"), "debris": ("debris_covered_ice",)},
        weight=rng.uniform(0, 1, label.shape).astype(np.float32),
        time=np.array(["1999-12-31T23:59:59", "2031-01-01T00:00:01"], "datetime64[s]"),
        resolution=10.000000000000002,
        name="odd name/with ø",
        place="",
        glaciers=rng.integers(0, 2**30, (9, 7)).astype(np.int32),
        sure=label > 1,
        attributes={"sun": [0.1, 0.30000000000000004], "nested": {"b": None, "a": "å"}},
    )


def same(one: Chip, other: Chip) -> None:
    """Equal to the last bit."""
    assert list(one.variables) == list(other.variables)
    for name, values in one.variables.items():
        assert values.dtype == other.variables[name].dtype
        assert values.shape == other.variables[name].shape
        assert values.tobytes() == other.variables[name].tobytes()
    for name in ("label", "weight", "time", "glaciers", "sure"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    assert list(one.labels.items()) == list(other.labels.items())
    for name in ("resolution", "name", "place", "centre", "attributes"):
        assert getattr(one, name) == getattr(other, name)


def test_chips_come_back_bit_for_bit(tmp_path: Path) -> None:
    sampled = some_chips(3)
    chips = [*sampled, odd_chip()]
    write_set(chips, tmp_path / "set")
    back = read_set(tmp_path / "set")
    assert len(back) == 4
    for index, chip in enumerate(chips):
        same(chip, back[index])
        assert content_hash(chip) == content_hash(back[index])
    assert back.sites == sites_of(chips)
    again = pickle.loads(pickle.dumps(back))  # noqa: S301 - our own bytes
    same(again[3], chips[3])
    both = read_sets([tmp_path / "set", tmp_path / "set"])
    same(both[7], chips[3])
    assert [chip.name for chip in back[1:3]] == [chip.name for chip in chips[1:3]]


def test_the_fingerprint_is_of_content_and_splits(tmp_path: Path) -> None:
    chips = some_chips(4)
    first = write_set(chips, tmp_path / "a", {"train": [0, 1], "test": [2, 3]})
    assert write_set(list(chips), tmp_path / "b", {"test": [2, 3], "train": [0, 1]}) == first
    assert write_set(chips, tmp_path / "c", {"train": [0, 1, 2], "test": [3]}) != first
    assert json.loads((tmp_path / "a" / "collection.json").read_text())["glaciercube:fingerprint"] == first
    back = read_set(tmp_path / "a", "test")
    assert [chip.name for chip in back] == [chip.name for chip in chips[2:4]]
    assert read_set(tmp_path / "a").splits == {"train": (0, 1), "test": (2, 3)}
    with pytest.raises(StoreError, match=r"no split 'validation'.*train, test"):
        read_set(tmp_path / "a", "validation")


def test_a_set_of_folds_is_a_valid_static_catalogue(tmp_path: Path) -> None:
    chips = some_chips(8)
    split = make_folds(chips, FoldOptions("places", validation=False, buffer=10.0))[0]
    info = SetInfo("Made", "Glaciers of nowhere.", "CC-BY-4.0", "RGI 7.0 Consortium (2023), doi:10.5067/f6jmovy5navz")
    write_set([*chips, odd_chip()], tmp_path / "set", {"train": split.train, "test": (*split.test, 8)}, info)
    collection = pystac.Collection.from_file(str(tmp_path / "set" / "collection.json"))
    valid(collection)
    assert collection.license == "CC-BY-4.0"
    assert collection.extra_fields["sci:citation"].startswith("RGI")
    items = list(collection.get_items(recursive=True))
    assert len(items) == len(split.train) + len(split.test) + 1
    for item in items:
        valid(item)
        check_fields(item.properties, LABEL_FIELDS)
        assert LABEL_SCHEMA in item.stac_extensions
        asset = Path(item.assets["labels"].get_absolute_href() or "")
        assert (asset / "zarr.json").is_file()
        assert item.properties["glaciercube:split"] in Path(item.self_href).parts
    read = (tmp_path / "set" / "README.md").read_text()
    assert "Glaciers of nowhere." in read
    assert "CC-BY-4.0" in read
    assert "| test | " in read


def test_a_chip_on_disk_is_a_dataset_with_units_flags_and_a_place_on_the_map(tmp_path: Path) -> None:
    chips = some_chips(1)
    write_set(chips, tmp_path / "set")
    key = json.loads((tmp_path / "set" / "chips.json").read_text())["chips"][0]["key"]
    chip = chips[0]
    with xr.open_zarr(tmp_path / "set" / "chips.zarr", group=key, consolidated=False) as data:
        assert data["red"].attrs["units"] == "1"
        assert data["vv_db"].attrs["units"] == "dB"
        assert data["label"].attrs["flag_meanings"] == "other glacier unknown"
        assert list(data["label"].attrs["flag_values"]) == [0, 1, 255]
        assert data["time"].to_numpy().astype("datetime64[s]").tolist() == chip.time.tolist()
        assert data.odc.geobox.crs.epsg == 32632
        assert list(data.odc.geobox.affine)[:6] == chip.attributes["transform"]
        np.testing.assert_array_equal(data["red"], chip.variables["red"])
        assert data["label"].dtype == np.uint8


def test_a_chip_across_the_antimeridian_is_drawn_in_two_parts(tmp_path: Path) -> None:
    chip = some_chips(1)[0]
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:32601", always_xy=True).transform(-180.0, 70.0)
    there = {**chip.attributes, "crs": "EPSG:32601", "transform": [20.0, 0.0, x - 200.0, 0.0, -20.0, y]}
    moved = Chip(chip.variables, chip.label, chip.labels, chip.weight, chip.time, 20.0, "fiji", attributes=there)
    write_set([moved], tmp_path / "set")
    item = pystac.Item.from_file(str(tmp_path / "set" / "items" / "all" / "fiji.json"))
    assert item.geometry is not None
    valid(item)
    assert item.geometry["type"] == "MultiPolygon"
    assert item.bbox is not None
    assert item.bbox[0] > 179.9
    assert item.bbox[2] < -179.9


def test_a_changed_set_is_noticed(tmp_path: Path) -> None:
    chips = some_chips(2)
    write_set(chips, tmp_path / "set")
    key = json.loads((tmp_path / "set" / "chips.json").read_text())["chips"][0]["key"]
    chunk = next((tmp_path / "set" / "chips.zarr" / key / "glaciers" / "c").rglob("0"))
    while chunk.is_dir():
        chunk = next(chunk.iterdir())
    other = chunk.read_bytes()
    chunk.unlink()
    with pytest.raises(ReadError, match="is not what was written"):
        read_set(tmp_path / "set")[0]
    chunk.write_bytes(other[:-4])
    with pytest.raises(ReadError, match="cannot be read"):
        read_set(tmp_path / "set")[0]
    same(read_set(tmp_path / "set")[1], chips[1])
    chunk.write_bytes(other)
    shutil.rmtree(tmp_path / "set" / "chips.zarr" / key / "label")
    with pytest.raises(ReadError, match="lacks label"):
        read_set(tmp_path / "set")[0]
    listed = tmp_path / "set" / "chips.json"
    listed.write_text(listed.read_text().replace('"split": "all"', '"split": "test"', 1))
    with pytest.raises(StoreError, match="was changed"):
        read_set(tmp_path / "set")


def test_sets_that_cannot_be_written_or_read_are_refused(tmp_path: Path) -> None:
    chips = some_chips(2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="something at"):
        write_set(chips, tmp_path / "full")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"train": [0, 1], "test": [1]}, "in two splits"),
        ({"Train/1": [0]}, "cannot name a split"),
        ({"train": []}, "no chips to write"),
    ]
    for splits, problem in wrong:
        with pytest.raises(ModelError, match=problem):
            write_set(chips, tmp_path / "new", splits)
    chip = odd_chip()
    chip = Chip(chip.variables, chip.label, chip.labels, chip.weight, chip.time, 1.0, "c", attributes={"x": np.nan})
    with pytest.raises(ModelError, match="JSON cannot hold"):
        write_set([chip], tmp_path / "nan")
    with pytest.raises(StoreError, match="no finished set"):
        read_set(tmp_path / "nan")
    write_set(chips, tmp_path / "set")
    listed = tmp_path / "set" / "chips.json"
    whole = json.loads(listed.read_text())
    unnamed = [{key: value for key, value in each.items() if key != "name"} for each in whole["chips"]]
    for content, problem in (
        ([], "no finished set"),
        ({"format": 1}, "was changed"),
        ({**whole, "chips": [5]}, "was changed"),
        ({**whole, "chips": unnamed}, "was changed"),
    ):
        listed.write_text(json.dumps(content))
        with pytest.raises(StoreError, match=problem):
            read_set(tmp_path / "set")


@pytest.fixture
def job(tmp_path: Path, world: World, catalog: Path) -> Path:
    west, south, east, north = world.region.bbox
    # The glacier of this small world as two, divided along a meridian of its grid.
    left, bottom, right, top = world.outlines.total_bounds
    middle = (left + right) / 2 + 3.0
    sides = [shapely.box(left, bottom, middle, top), shapely.box(middle, bottom, right, top)]
    halves = [world.outlines.union_all().intersection(side) for side in sides]
    mine = gpd.GeoDataFrame({"id": ["west", "east"], "year": 2021}, geometry=halves, crs=world.outlines.crs)
    mine.to_file(tmp_path / "mine.gpkg")
    path = tmp_path / "job.yaml"
    path.write_text(
        f"region: {{name: small, bbox: [{west}, {south}, {east}, {north}], resolution: 20}}\n"
        f"catalog: {catalog}\ntime: 2021\nsensors: [sentinel-2]\n"
        f"samples:\n  outlines: {tmp_path / 'mine.gpkg'}\n  name: small\n  dates: null\n"
        "  windows: {size: 16, stride: 16, negatives: 0, most: 4}\n"
        "folds: {kind: places, buffer: 0, validation: false}\nfit: {steps: 3}\n"
    )
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_says_what_is_drawn_and_writes_it(job: Path, tmp_path: Path) -> None:
    out, picture = tmp_path / "set", tmp_path / "chips.png"
    made = call("samples", job, "--out", out, "--picture", picture, "--licence", "CC-BY-4.0", "--quiet")
    assert made.exit_code == 0, made.output
    assert [line.split()[0] for line in made.stdout.splitlines()[:3]] == ["split", "train", "test"]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    config = load_config(job, SetConfig)
    drawn = config.chips()
    parts = config.splits(drawn)
    for split, indices in parts.items():
        back = read_set(out, split)
        assert len(back) == len(indices)
        same(back[0], drawn[indices[0]])
        assert back[0].variables["red"].any()
    again = tmp_path / "again.yaml"
    again.write_text(f"samples: {{sets: [{out}]}}\n")
    config = load_config(again, SetConfig)
    assert {name: len(part) for name, part in config.splits(config.chips()).items()} == {
        name: len(part) for name, part in parts.items()
    }
    parted = "\nfolds: {kind: places, buffer: 0, validation: false}\n"
    for key, problem in (("fold: 4", "there is no fold 4: give 1 to 2"), ("fold: 2", "")):
        again.write_text(f"samples: {{sets: [{out}]}}{parted}{key}\n")
        told = call("samples", again)
        assert problem in told.stderr
        assert (told.exit_code == 1) == bool(problem)


def test_the_command_refuses_in_one_sentence(job: Path, tmp_path: Path) -> None:
    for words, old, new in (
        (("unknown key 'samples.windows.sizes'", "did you mean size"), "size: 16", "sizes: 16"),
        (("neither outlines nor sets",), "  outlines:", "  date: image #"),
        (("no cube without region",), "time: 2021", ""),
    ):
        text = job.read_text()
        assert old in text
        other = tmp_path / "other.yaml"
        other.write_text(text.replace(old, new))
        result = call("samples", other, "--quiet")
        assert result.exit_code == 1, result.output
        assert result.stderr.startswith("glaciercube: ")
        assert all(word in result.stderr for word in words), result.stderr
    assert "something at" in call("samples", job, "--out", tmp_path).stderr


def test_the_command_says_what_is_left_out_and_refuses_nothing_at_all(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = job.read_text().replace("dates: null", "dates: 1").replace("time: 2021", "time: 2021/2022")

    def told(option: str) -> Result:
        job.write_text(text.replace("  name: small\n", f"  name: small\n  {option}\n"))
        return call("samples", job, "--quiet")

    some = told("clear: 0.5")
    assert some.exit_code == 0, some.output
    assert re.search(r"^\d+ of \d+ chips show too little, and are left out$", some.stdout, re.MULTILINE), some.stdout
    old = told("truth: {max_age: 1}")
    assert old.exit_code == 0, old.output
    assert re.search(r"^\d of \d dates are more than 1 years from all outlines$", old.stdout, re.MULTILINE)
    few = told("clear: 1.0")
    assert "show too little" in few.stdout
    assert "fewer than 2 folds" in few.stderr
    monkeypatch.setattr("glaciercube.training.sampling.clear_enough", lambda *_: [])
    none = told("clear: 1.0")
    assert none.exit_code == 1, none.output
    assert re.search(r"no chip is drawn \((\d+) of \1 chips show too little, and are left out\): ", none.stderr)
