"""Starting a server, waiting until it answers, and stopping it whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = ["HOST", "Missing", "answers", "free_ports", "program", "running", "scratch"]

HOST = "127.0.0.1"
START = 30.0  # seconds that a server has to answer; the slowest needs 3
STOP = 10.0  # seconds that it has to end when it is told to


class Missing(RuntimeError):  # noqa: N818 - it is no fault of the program
    """A server is not installed here; the message says what would install it."""


def program(name: str, *folders: Path) -> str:
    """Path of a program: beside this Python, in the folders, or on the PATH.

    Raises
    ------
    Missing
        If there is none.
    """
    for folder in (Path(sys.executable).parent, *folders):
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    # Debian keeps servers out of the path of ordinary users.
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if found is None:
        raise Missing(f"{name} is not installed (make install-services)")
    return found


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A folder that is gone afterwards. Not below pytest's: other users could not enter that."""
    with tempfile.TemporaryDirectory(prefix=f"glaciercube-{name}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def answers(url: str) -> Callable[[], bool]:
    """Whether an address answers at all, be it with a refusal."""

    def asked() -> bool:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False
        return True

    return asked


@contextmanager
def running(
    command: Sequence[str],
    *,
    folder: Path,
    ready: Callable[[], bool],
    environ: Mapping[str, str] | None = None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGINT,
) -> Iterator[None]:
    """Run a server in the foreground of a process of its own.

    Parameters
    ----------
    command : sequence of str
        The server, which must not put itself into the background.
    folder : Path
        Its working directory; its output is kept there as ``log``.
    ready : callable
        True as soon as it answers.
    environ : mapping or None
        Added to this process's environment.
    user : str or None
        Whom it runs as, where this process may choose.
    stop : Signals
        What it is told to end by.

    Raises
    ------
    RuntimeError
        If it ends or does not answer within half a minute; with the end of its log.
    """
    # A session of its own: Ctrl-C comes to us alone, and we stop the servers in order.
    # If we are killed, so is it (Linux only, where this program is part of every system).
    dies_with_us = [shutil.which("setpriv") or "", "--pdeathsig", "INT", "--"] if shutil.which("setpriv") else []
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*dies_with_us, *command],
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    try:
        _wait(server, ready, Path(command[0]).name, log)
        yield
    finally:
        _stop(server, stop)


def _wait(server: subprocess.Popen[bytes], ready: Callable[[], bool], name: str, log: Path) -> None:
    latest = time.monotonic() + START
    while not ready():
        ended = server.poll() is not None
        if ended or time.monotonic() > latest:
            what = f"ended with status {server.returncode}" if ended else f"does not answer after {START:.0f} s"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{name} {what}:\n{last}")
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes], by: signal.Signals) -> None:
    server.send_signal(by)
    with suppress(subprocess.TimeoutExpired):
        server.wait(STOP)
    # Whatever is left of its session, children too.
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
