"""A real HTTP server of a folder, with byte ranges, that fails on purpose and counts what it did."""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["KINDS", "Asked", "FaultServer", "serve"]

KINDS: Final = ("503", "429", "403", "truncated", "stalled", "reset")

# What happens to a request; None for a good answer.
Fault = str | None


@dataclass(frozen=True)
class Asked:
    """A request as a hook sees it."""

    path: str
    query: dict[str, str]
    headers: Any


class FaultServer(ThreadingHTTPServer):
    """Serves ``folder``; every request may be failed.

    Attributes
    ----------
    every : int
        Every so many requests one fails, by a fault drawn from ``kinds`` with the seed; 0 for none.
    choose : callable or None
        A request -> a fault, or None to leave it to the plan.
    retry_after : float
        Seconds that a 429 asks for. Requests that come sooner count as ``impatient``.
    stall : float
        Seconds that a stalled answer holds its connection.
    ranges : bool
        False for a server that knows no byte ranges and always sends the whole file.
    faults : Counter
        Faults given so far, by kind.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, *, every: int = 0, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.every, self.kinds = folder, every, kinds
        self.choose: Callable[[Asked], Fault] | None = None
        self.retry_after, self.stall, self.ranges = 0.05, 3.0, True
        self.faults: Counter[str] = Counter()
        self.requests = self.impatient = 0
        self._random, self._lock = random.Random(seed), threading.Lock()  # noqa: S311 - a plan, not a secret
        self._until: dict[str, float] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, asked: Asked) -> Fault:
        """Decide over a request, and count."""
        with self._lock:
            self.requests += 1
            self.impatient += time.monotonic() < self._until.pop(asked.path, 0.0)
            kind = self.choose(asked) if self.choose else None
            if kind is None and self.every and self.requests % self.every == 0:
                kind = self._random.choice(self.kinds)
            if kind is not None:
                self.faults[kind] += 1
            if kind == "429":
                self._until[asked.path] = time.monotonic() + self.retry_after
            return kind

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the game."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultServer
    protocol_version = "HTTP/1.1"
    # Headers and body go out one after the other; the second would wait for the client to acknowledge the first.
    disable_nagle_algorithm = True
    timeout = 30

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        fault = self.server.fault(Asked(path, query, self.headers))
        file = self.server.folder / path.lstrip("/")
        if fault == "reset":
            # A reset instead of a close: no time to linger.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "html":
            self._send(200, b"<html><body>Please sign in</body></html>", {"Content-Type": "text/html"}, body=body)
        elif fault is not None and fault.isdigit():
            extra = {"Retry-After": f"{self.server.retry_after:g}"} if fault == "429" else {}
            self._send(int(fault), b"no", extra, body=body)
        elif not file.is_file():
            self._send(404, b"not found", {}, body=body)
        else:
            self._file(file, fault, body=body)

    def _file(self, file: Path, fault: Fault, *, body: bool) -> None:
        content, status = file.read_bytes(), 200
        extra = {"Content-Type": "image/tiff"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.server.ranges:
            extra["Accept-Ranges"] = "bytes"
            if wanted:
                first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
                extra["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                content, status = content[first : last + 1], 206
        self._send(status, content, extra, body=body, fault=fault)

    def _send(self, status: int, content: bytes, extra: dict[str, str], *, body: bool, fault: Fault = None) -> None:
        if fault == "stalled":
            self.close_connection = True
            time.sleep(self.server.stall)
            return
        self.send_response(status)
        for name, value in {**extra, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "truncated":
            # Promised whole, hung up halfway.
            content, self.close_connection = content[: len(content) // 2], True
        if body:
            self.wfile.write(content)


@contextmanager
def serve(folder: Path, **plan: Any) -> Iterator[FaultServer]:
    """Serve a folder on a free port of this machine for the length of a block."""
    server = FaultServer(folder, **plan)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
