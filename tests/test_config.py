"""Configurations: what they mean, and errors that name the line and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from glaciercube.config import SetConfig, load_config, parse_config
from glaciercube.errors import ConfigError
from glaciercube.trainconfig import TrainConfig

GOOD = """\
region: {name: khumbu, bbox: [86.78, 27.95, 86.85, 28.00], resolution: 20}
catalog: ../shared/data/khumbu/catalog.json
time: 2024-01-01/2024-12-31
sensors: [sentinel-2, sentinel-1, dem]
compose: observation
model: {name: band-ratio, threshold: 2.5, blue: 0.1}
store: out/khumbu.zarr
"""


def test_the_short_form_means_what_it_says() -> None:
    config = parse_config(GOOD)
    assert config.region.bbox == (86.78, 27.95, 86.85, 28.0)
    assert config.region.region().name == "khumbu"
    assert list(config.sensors) == ["sentinel-2", "sentinel-1", "dem"]
    assert config.compose.every == "observation"
    assert config.model.name == "band-ratio"
    assert config.load_model().contract.parameters["threshold"] == 2.5
    assert config.store.path == "out/khumbu.zarr"


def test_the_long_form_reaches_every_room() -> None:
    text = GOOD.replace(
        "sensors: [sentinel-2, sentinel-1, dem]", "sensors:\n  sentinel-2: {collection: sentinel-2-l1c}"
    )
    text = text.replace(
        "compose: observation", "compose: {every: month, max_age: 3}\nrun: {threads: 1, block: {batch: 2}}"
    )
    text = text.replace("time: 2024-01-01/2024-12-31", "time: 2024")
    config = parse_config(text.replace("store: out/khumbu.zarr", "store: {path: a.zarr, shard: 512}"))
    assert config.sensors["sentinel-2"].collection == "sentinel-2-l1c"
    assert config.compose.max_age == 3
    assert config.run.block.batch == 2
    assert config.store.block == 512
    assert config.time == "2024"


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("resolution: 20}", "resolutoin: 20}", 1, r"unknown key 'region\.resolutoin': did you mean resolution\?"),
        ("resolution: 20}", "resolution: fine}", 1, r"region\.resolution: .*valid number"),
        ("[86.78, 27.95, 86.85, 28.00]", "[86.78, 27.95, 86.85]", 1, r"region\.bbox"),
        ("sentinel-1, dem]", "sentinel-3, dem]", 4, "unknown sensor 'sentinel-3': choose among sentinel-2"),
        ("compose: observation", "compose: weekly", 5, r"compose\.every: .*'observation', 'month'"),
        ("store:", "sotre:", 7, r"unknown key 'sotre': did you mean store\?"),
        ("catalog: ../shared/data/khumbu/catalog.json\n", "", 1, "catalog: Field required: add it"),
        ("compose: observation", "compose: {every: month, age: 3}", 5, r"unknown key 'compose\.age'"),
        ("compose: observation", "compose: [", 7, "mend the YAML"),
    ],
)
def test_errors_name_the_line_and_the_remedy(before: str, after: str, line: int, words: str) -> None:
    assert before in GOOD
    with pytest.raises(ConfigError, match=rf"job\.yaml line {line}: .*{words}"):
        parse_config(GOOD.replace(before, after), "job.yaml")


def test_what_yaml_takes_for_dates_and_numbers_is_text_where_text_is_asked_for() -> None:
    for written, read in (("2015-08-30", "2015-08-30"), ("1950", "1950"), ("'image'", "image")):
        samples = parse_config(f"samples: {{outlines: a.gpkg, date: {written}}}\n", "set.yaml", SetConfig).samples
        assert (samples.date, samples.dates) == (read, 1)
    text = """\
network: {version: 1.10, outputs: {ice: clean_ice}}
samples: {sets: setA, months: [8]}
find: clean_ice
test:
  2015: {sets: [2015, b]}
calibrate:
  sets: c
  without: [[], radar]
"""
    job = parse_config(text, "train.yaml", TrainConfig)
    # As it was written: of the number, 1.1 is left.
    assert (job.network.version, job.network.outputs) == ("1.10", {"ice": ("clean_ice",)})
    assert (job.samples.sets, job.find) == (("setA",), ("clean_ice",))
    assert job.samples.months == (8,)
    assert job.test["2015"].sets == ("2015", "b")
    assert job.calibrate is not None
    assert job.calibrate.without == ((), ("radar",))
    named = parse_config(GOOD.replace("name: khumbu", "name: &n 0012").replace("store: ", "store: {path: *n} #"))
    assert (named.region.name, named.store.path) == ("0012", "0012")
    assert parse_config(GOOD.replace("model: {", "model: {parameters: {blue: 1}} #")).model.parameters == {"blue": 1}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("samples:\n  date: yes\n", 2, r"samples\.date: .*string: write it in quotes\."),
        ("samples:\n  months: 8\n", 2, r"samples\.months: .*: write it in brackets\."),
        ("samples:\n  date: {year: 2}\n", 2, r"samples\.date: .*: write a value of that kind\."),
        # What a part of a configuration finds of itself.
        ("samples:\n  windows:\n    stride: 8\n    size: 4\n", 4, r"chips of 4 pixels: give"),
        ("samples:\n  windows: {stride: 8, size: 4}\n", 2, r"chips of 4 pixels: give"),
        ("samples:\n  name: a\n  outlines: a\n  sets: b\n", 3, "both outlines and sets: give one"),
        ("samples: {sets: a}\nfit:\n  batch: 2\n  steps: 0\n", 4, "steps 0"),
        ("samples: {sets: a}\ntest:\n  near: {sets: b}\n  far: {sets: c,\n    clear: 7}\n", 5, "clear 7.0"),
        ("samples: {sets: a}\nfind: [b]\nfold: 2\n", 3, "no folds of which 2"),
        ("samples: {sets: a}\nnetwork:\n  windows: {size: 3, step: 2}\n", 3, "windows of 3 pixels"),
        ("samples:\n  simulated:\n    seeds: [0, 2]\n    dates: [5, 2]\n", 4, r"dates \(5, 2\)"),
    ],
)
def test_what_the_parts_of_a_training_refuse_is_told_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^train\.yaml line {line}: .*{words}"):
        parse_config(text, "train.yaml", TrainConfig)


def test_what_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is not a mapping"):
        parse_config("- a\n- b\n")
    with pytest.raises(ConfigError, match="has a date that does not exist"):
        parse_config(GOOD.replace("2024-01-01/2024-12-31", "2024-02-31"))
    with pytest.raises(ConfigError, match=r"^train.yaml: there is nothing to train on"):
        parse_config("out: x\n", "train.yaml", TrainConfig)
    with pytest.raises(ConfigError, match="neither bbox nor outlines"):
        parse_config(GOOD.replace("bbox: [86.78, 27.95, 86.85, 28.00], ", "")).region.region()


def test_credentials_of_a_store_are_refused_and_not_kept() -> None:
    for store in (
        "{path: s3://bucket/a.zarr, endpoint: 'https://me:hunter2@objects.example.org'}",
        "s3://me:hunter2@bucket/a.zarr",
    ):
        with pytest.raises(ConfigError, match="has credentials in it: give them as AWS_ACCESS_KEY_ID") as caught:
            parse_config(GOOD.replace("out/khumbu.zarr", store))
        assert "hunter2" not in str(caught.value)
    settings = parse_config(
        GOOD.replace(
            "out/khumbu.zarr", "{path: s3://bucket/a.zarr, endpoint: 'https://objects.example.org/?key=hunter2'}"
        )
    )
    assert "hunter2" not in str(settings.as_dict())
    assert settings.as_dict()["store"]["endpoint"].startswith("https://objects.example.org")
    assert parse_config(GOOD.replace("out/khumbu.zarr", "s3://bucket/a@b:c.zarr")).store.path.endswith("a@b:c.zarr")
