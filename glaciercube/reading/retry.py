"""When a read is tried again, how long to wait before, and when to give up."""

from __future__ import annotations

import email.utils
import random
import time
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from glaciercube.errors import require

__all__ = ["Failure", "FailureKind", "ReadOptions", "Turn", "kind_of_status", "retry_after"]

FailureKind: TypeAlias = Literal["transient", "authorisation", "permanent"]

# RFC 9110 and 6585: request time-out, too early, too many requests; every 5xx too.
_TRANSIENT: Final = (408, 425, 429)
_REFUSED: Final = (401, 403)
_JITTER: Final = 0.5


@dataclass(frozen=True)
class ReadOptions:
    """How patient reads are.

    Attributes
    ----------
    attempts : int
        How often one request is tried. A refusal (401, 403) is tried once more, signed anew.
    connect_timeout : float
        Seconds to wait for a server to take the connection.
    timeout : float
        Seconds to wait for the next byte.
    delay : float
        Seconds before the second attempt; doubled before each further one, less a random part of up to a half. A
        server that says when to come again (Retry-After) is not asked before.
    longest : float
        Seconds that a wait grows to at most, where the server does not ask for more.
    budget : float
        Seconds that the read of one cell of one file may take in all, waits included.
    """

    attempts: int = 8
    connect_timeout: float = 10.0
    timeout: float = 60.0
    delay: float = 0.5
    longest: float = 30.0
    budget: float = 600.0

    def __post_init__(self) -> None:
        require(self.attempts >= 1, f"attempts {self.attempts} is not a number of attempts", "give 1 or more")
        for name in ("connect_timeout", "timeout", "budget"):
            value = getattr(self, name)
            require(value > 0, f"{name} {value} is not a time", "give seconds, more than 0")
        for name in ("delay", "longest"):
            value = getattr(self, name)
            require(value >= 0, f"{name} {value} is not a time", "give seconds, 0 or more")

    def wait(self, failed: int, asked: float = 0.0) -> float:
        """Seconds to wait after so many failed attempts.

        Parameters
        ----------
        failed : int
            Failed attempts so far, at least 1.
        asked : float
            Seconds that the server asked for.
        """
        grown = min(self.longest, self.delay * 2.0 ** (failed - 1))
        # Without jitter, all that were turned away together would come again together.
        jittered = grown * (1.0 - _JITTER * random.random())  # noqa: S311 - no secret depends on it
        return max(jittered, asked)


class Failure(Exception):  # noqa: N818 - never leaves the reader, which makes a ReadError of it
    """Why a request failed, in words without secrets.

    Parameters
    ----------
    reason : str
        What happened.
    kind : str
        See `glaciercube.errors.ReadError`.
    asked : float
        Seconds that the server asked to wait.
    garbled : bool
        True if bytes came that make no sense.
    """

    def __init__(self, reason: str, kind: FailureKind, asked: float = 0.0, *, garbled: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.kind, self.asked, self.garbled = reason, kind, asked, garbled


class Turn:
    """One read's time: counts the failures in a row, waits between attempts, and says when it is over.

    Parameters
    ----------
    options : ReadOptions
        How patient.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self._end = time.monotonic() + options.budget

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()

    def pause(self, failure: Failure, failed: int) -> None:
        """Wait before the next attempt.

        Raises
        ------
        Failure
            The given one, if there is no attempt or no time left for another.
        """
        if failed >= self.options.attempts:
            tries = f"{failed} attempts" if failed > 1 else "one attempt"
            raise Failure(f"{failure.reason}; gave up after {tries}", failure.kind)
        wait = self.options.wait(failed, failure.asked)
        if wait >= self.left:
            asked = f"; the server asks to wait {failure.asked:g} s" if failure.asked else ""
            raise Failure(f"{failure.reason}{asked}; the read's {self.options.budget:g} s are over", failure.kind)
        time.sleep(wait)


def kind_of_status(status: int) -> FailureKind:
    """What an HTTP status that is not a success means for trying again."""
    if status in _REFUSED:
        return "authorisation"
    return "transient" if status in _TRANSIENT or status >= 500 else "permanent"


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110); 0 where it asks for nothing."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
