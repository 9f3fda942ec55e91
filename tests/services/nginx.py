"""nginx, serving the files of a folder, byte ranges included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.process import HOST, answers, free_ports, program, running, scratch

__all__ = ["Nginx", "nginx"]

# Everything that it writes stays in its own folder.
SETTINGS = """
daemon off;
pid {home}/pid;
error_log stderr warn;
worker_processes 1;
{user}
events {{ worker_connections 256; }}
http {{
    types {{ application/json json; image/tiff tif tiff; }}
    default_type application/octet-stream;
    log_format told '$request_method $status $uri "$http_range"';
    access_log {home}/requests told;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen {host}:{port};
        root "{root}";
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running server.

    Attributes
    ----------
    url : str
        Its root, which is the folder that it serves.
    log : Path
        A line for each request: method, status, path, and the range that was asked for.
    """

    url: str
    log: Path

    def requests(self) -> list[str]:
        """What was asked of it until now."""
        return self.log.read_text().splitlines()


@contextmanager
def nginx(root: Path) -> Iterator[Nginx]:
    """Serve a folder for as long as the context lasts.

    Raises
    ------
    Missing
        If nginx is not installed.
    """
    command = program("nginx")
    (port,) = free_ports(1)
    url = f"http://{HOST}:{port}"
    with scratch("nginx") as home:
        path = home / "nginx.conf"
        # As root its workers would run as a user who may not enter a test's folder.
        user = "user root;" if os.geteuid() == 0 else ""
        path.write_text(SETTINGS.format(home=home, host=HOST, port=port, root=root.resolve(), user=user))
        with running(
            [command, "-p", str(home), "-c", str(path), "-e", "stderr"], folder=home, ready=answers(f"{url}/")
        ):
            yield Nginx(url, home / "requests")
