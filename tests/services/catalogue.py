"""A static catalogue's collections and items, with assets that lie elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Published", "published"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """What an API is given.

    Attributes
    ----------
    collections, items : list of dict
        STAC, without links: an API makes its own.
    """

    collections: list[Json]
    items: list[Json]

    def changed(self, change: Callable[[Json], Json]) -> Published:
        """The same with every item changed."""
        return Published(self.collections, [change(json.loads(json.dumps(item))) for item in self.items])


def published(folder: Path, root: str | None = None) -> Published:
    """Read a static catalogue as it was written, in whatever version of STAC.

    Parameters
    ----------
    folder : Path
        Where its ``catalog.json`` lies.
    root : str or None
        Where a copy of the folder is served, such as ``http://host`` or ``s3://bucket``; None: on disk.
    """
    folder = folder.resolve()
    found: dict[str, list[Json]] = {"Collection": [], "Feature": []}
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text())
        kind = content.get("type") if isinstance(content, dict) else None
        if kind not in found:
            continue
        content["links"] = []
        home = path.parent.relative_to(folder).as_posix()
        for asset in content.get("assets", {}).values():
            asset["href"] = f"{root or folder}/{home}/{asset['href'].removeprefix('./')}"
        found[kind].append(content)
    return Published(found["Collection"], found["Feature"])
