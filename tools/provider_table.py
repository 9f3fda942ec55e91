"""The table of docs/providers.md: how each recorded item of each provider is resolved.

python tools/provider_table.py [FOLDER]  # FOLDER: the real data, by default GLACIERCUBE_REAL_DATA or ../shared/data
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pystac

from glaciercube.catalog import PROFILES
from glaciercube.catalog.resolve import resolve
from glaciercube.errors import BandError
from glaciercube.sensors import BandSource, get_sensor

PAGE = Path(__file__).parents[1] / "docs" / "providers.md"
BEGIN = "<!-- table: made by tools/provider_table.py, held up to date by tests/test_providers.py -->"
END = "<!-- end of table -->"
COLUMNS = ("collection", "item", "bands", "stored as", "scale", "offset", "nodata", "CRS")


def recorded(folder: Path) -> Iterable[tuple[str, str, Path]]:
    """Provider, collection and path of every recorded item."""
    for path in sorted((folder / "stac_recorded").glob("*/*/items/*.json")):
        provider, collection, _, _ = path.parts[-4:]
        yield provider, collection, path


def describe(provider: str, collection: str, path: Path) -> dict[str, str]:
    """One row of the table."""
    profile = PROFILES[provider]
    item = pystac.Item.from_dict(json.loads(path.read_text()), migrate=False)
    sensor = get_sensor(profile.collections[collection].sensor)
    row = dict.fromkeys(COLUMNS, "-") | {"collection": collection, "item": item.id}
    try:
        facts, bands = resolve(item, sensor, (), profile, collection)
    except BandError as error:
        problem, remedy = error.problem.removeprefix(f"scene {item.id} "), error.remedy.partition(", or")[0]
        return row | {"bands": f"refused: {problem}: {remedy}"}
    measured = [band for band in bands.values() if not band.categorical]
    inner = {name: f"{band.asset}/{band.inner}" if band.inner else band.asset for name, band in bands.items()}
    return row | {
        "bands": ", ".join(name if name == key else f"{name} {key}" for name, key in inner.items()),
        "stored as": _each(band.dtype for band in measured),
        "scale": _each(f"{band.scale:g}" for band in measured),
        "offset": f"{facts.offset:+g}" if facts.offset else "0",
        "nodata": _each("NaN" if band.nodata is None else f"{band.nodata:g}" for band in measured),
        "CRS": _each(_crs(item, band) for band in bands.values()),
    }


def _crs(item: pystac.Item, band: BandSource) -> str:
    for fields in (item.assets[band.asset].extra_fields, item.properties):
        if fields.get("proj:code"):
            return str(fields["proj:code"])
        if fields.get("proj:epsg"):
            return f"EPSG:{fields['proj:epsg']}"
    return "unresolved"


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def table(folder: Path) -> str:
    """The table in Markdown, a part for each provider."""
    lines: list[str] = []
    rows: dict[str, list[dict[str, str]]] = {}
    for provider, collection, path in recorded(folder):
        rows.setdefault(provider, []).append(describe(provider, collection, path))
    for provider, members in rows.items():
        lines += [f"**{provider}**", "", f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(member[name] for name in COLUMNS) + " |" for member in members]
        lines.append("")
    return "\n".join(lines)


def page(text: str, folder: Path) -> str:
    """A page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table(folder)}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Rewrite the page."""
    default = os.environ.get("GLACIERCUBE_REAL_DATA", str(PAGE.parents[2] / "shared" / "data"))
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else default)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), folder), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
