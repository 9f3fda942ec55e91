"""PostgreSQL with PostGIS and pgstac, empty of items."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.catalogue import Published
from services.process import HOST, Missing, free_ports, program, running, scratch

__all__ = ["Postgres", "postgres"]

USER = "postgres"
TEMPLATE = "pgstac_template"


@dataclass(frozen=True)
class Postgres:
    """A running server.

    Attributes
    ----------
    folder : Path
        Its folder.
    programs : Path
        Where its client programs are.
    environ : mapping
        The variables by which PostgreSQL's clients find it, password included.
    """

    folder: Path
    programs: Path
    environ: Mapping[str, str] = field(repr=False)

    def database(self, name: str) -> Mapping[str, str]:
        """Make a database with pgstac's schema; the variables by which clients find it."""
        self._run("createdb", "--template", TEMPLATE, name)
        return {**self.environ, "PGDATABASE": name}

    def load(self, name: str, content: Published) -> None:
        """Put collections and items into a database; what is there under the same ids is replaced."""
        for table, members in (("collections", content.collections), ("items", content.items)):
            path = self.folder / f"{name}-{table}.ndjson"
            path.write_text("".join(json.dumps(member) + "\n" for member in members))
            _call([program("pypgstac"), "load", table, str(path), "--method", "upsert"], self.environ, name)

    def _run(self, client: str, *arguments: str) -> None:
        _call([str(self.programs / client), *arguments], self.environ)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start PostgreSQL for as long as the context lasts.

    Raises
    ------
    Missing
        If PostgreSQL, PostGIS or pypgstac is not installed.
    """
    programs = _programs()
    if importlib.util.find_spec("psycopg") is None:
        raise Missing("pypgstac is not installed (make install-services)")
    migrate = program("pypgstac")
    # It refuses to run as root.
    user = USER if os.geteuid() == 0 else None
    (port,), password = free_ports(1), secrets.token_hex(16)
    with scratch("postgres") as folder:
        data, key = folder / "data", folder / "password"
        key.write_text(password)
        if user:
            shutil.chown(folder, user)
        initialise = ["--pgdata", str(data), "--username", USER, "--auth", "scram-sha-256", "--pwfile", str(key)]
        options = ["--no-sync", "--encoding", "UTF8", "--locale", "C"]
        _call([str(programs / "initdb"), *initialise, *options], user=user)
        key.unlink()
        server = Postgres(folder, programs, _environ(port, password))
        settings = (f"listen_addresses={HOST}", "unix_socket_directories=", "fsync=off", "timezone=UTC")
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
        asked = [str(programs / "pg_isready"), "--quiet"]
        with running(
            [*command, *(word for setting in settings for word in ("-c", setting))],
            folder=folder,
            ready=lambda: subprocess.run(asked, env={**os.environ, **server.environ}, check=False).returncode == 0,
            user=user,
        ):
            server._run("createdb", TEMPLATE)
            _call([migrate, "migrate"], server.environ, TEMPLATE)
            yield server


def _environ(port: int, password: str) -> dict[str, str]:
    return {"PGHOST": HOST, "PGPORT": str(port), "PGUSER": USER, "PGPASSWORD": password, "PGDATABASE": "postgres"}


def _programs() -> Path:
    """Folder of the newest server that has PostGIS."""
    found = [Path(path).resolve().parent for path in (shutil.which("initdb"),) if path]
    # Debian keeps each version's programs apart.
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    needed = ("initdb", "postgres", "pg_config")
    found = [folder for folder in found if all((folder / name).exists() for name in needed)]
    if not found:
        raise Missing("PostgreSQL is not installed (make install-services)")
    for folder in found:
        shared = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)
        if (Path(shared.stdout.strip()) / "extension" / "postgis.control").is_file():
            return folder
    raise Missing("PostgreSQL has no PostGIS here (make install-services)")


def _call(
    command: list[str],
    environ: Mapping[str, str] | None = None,
    database: str | None = None,
    *,
    user: str | None = None,
) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **(environ or {}), **({"PGDATABASE": database} if database else {})},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=[] if user else None,
    )
    if done.returncode:
        said = re.sub(r"\n{2,}", "\n", done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{Path(command[0]).name} failed with status {done.returncode}:\n{said}")
