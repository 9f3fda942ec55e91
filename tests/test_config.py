"""Configurations: what they mean, and errors that name the line and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from glaciercube.config import load_config, parse_config
from glaciercube.errors import ConfigError

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


def test_what_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is not a mapping"):
        parse_config("- a\n- b\n")
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
