"""Answers of the benchmark that are kept: measured once, and whole or not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glaciercube.bench import ablations
from glaciercube.bench.keeping import answer_file, keep, whole
from glaciercube.errors import ConfigError


def killed_halfway(self: Path, data: str, *_: Any, **__: Any) -> int:
    """As `Path.write_text`, of a process that is killed when half is written."""
    with self.open("w", encoding="utf-8") as file:
        file.write(data[: len(data) // 2])
    raise KeyboardInterrupt


def test_an_answer_is_measured_once_and_is_another_for_another_question(tmp_path: Path) -> None:
    one, other = (answer_file(tmp_path / "cells", "name", 1, asked) for asked in ("one", "other"))
    assert one.name.startswith("name-")
    assert one != other
    assert keep(one, lambda: {"a": 1}, kept=True) is None
    assert not one.parent.exists()
    assert keep(one, lambda: {"a": 1}) == {"a": 1}
    assert keep(one, lambda: {"a": 2}) == {"a": 1}
    assert keep(other, lambda: {"a": 2}) == {"a": 2}


def test_what_is_killed_while_it_writes_leaves_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed_halfway)
        with pytest.raises(KeyboardInterrupt):
            keep(tmp_path / "a.json", lambda: {"a": 1})
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "b") as part:
        killed_halfway(part, "much")
    assert not list(tmp_path.iterdir())


def test_what_sensors_add_is_asked_again_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations.Question, "scenes", lambda *_: ())
    monkeypatch.setattr(ablations, "_compared", lambda *_: [])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed_halfway)
        with pytest.raises(KeyboardInterrupt):
            ablations.section(tmp_path, quick=True)
    assert ablations.section(tmp_path, quick=True, kept=True).record["answers"] == []
    assert len(ablations.section(tmp_path, quick=True).record["answers"]) == 1


def test_a_broken_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ConfigError, match=r"a\.json holds no answer .*: delete it"):
        keep(tmp_path / "a.json", dict)
