"""A gate before a STAC API: it asks for a password, fails when it is told to, and remembers who came."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from services.process import HOST

__all__ = ["Answer", "Gate", "gate"]


@dataclass(frozen=True)
class Answer:
    """What the gate says instead of the API.

    Attributes
    ----------
    status : int
        HTTP status.
    body : str
        What it says.
    headers : mapping
        With which headers.
    """

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Gate:
    """A running gate.

    Attributes
    ----------
    url : str
        Its address; the API's links lead back to it.
    answers : list of Answer
        Given to the next requests, one each; then the API is asked.
    always : Answer or None
        Given to all others instead of asking the API.
    only : mapping of str
        Headers without which nobody comes through (401).
    seen : list
        Method, path with query, and headers of every request.
    """

    url: str
    answers: list[Answer] = field(default_factory=list)
    always: Answer | None = None
    only: Mapping[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def answer(self, headers: Mapping[str, str]) -> Answer | None:
        """What this request is told, None to let it through."""
        if self.answers:
            return self.answers.pop(0)
        if any(headers.get(name) != value for name, value in self.only.items()):
            # As some do: with what they were sent.
            return Answer(401, f'{{"detail": "no entry with {dict(headers)!r}"}}'.replace("'", ""))
        return self.always


@contextmanager
def gate(upstream: str = "") -> Iterator[Gate]:
    """Stand before an API, or before nothing, for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply()

        def do_POST(self) -> None:
            self._reply()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
            pass

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = dict(self.headers.items())
            standing.seen.append((self.command, self.path, headers))
            told = standing.answer(headers)
            if told is None:
                connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=30)
                # The host stays the gate's, and so the links in the answer.
                kept = {name: value for name, value in headers.items() if name.lower() != "accept-encoding"}
                connection.request(self.command, self.path, body or None, kept)
                given = connection.getresponse()
                told = Answer(given.status, given.read().decode(), {"Content-Type": given.headers["Content-Type"]})
                connection.close()
            content = told.body.encode()
            self.send_response(told.status)
            for name, value in {**told.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        standing = Gate(f"http://{HOST}:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield standing
        finally:
            server.shutdown()
            thread.join()
