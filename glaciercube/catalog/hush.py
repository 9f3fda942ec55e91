"""Keeping secrets out of the logs of the libraries that send them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from threading import Lock
from typing import Final

__all__ = ["hide"]

# These tell the whole URL of a request at level DEBUG or when it is tried again.
_LOGGERS: Final = ("urllib3.connectionpool", "urllib3.connection", "urllib3.util.retry", "urllib3.poolmanager")
# Signatures are renewed in long runs; the oldest have expired.
_MOST: Final = 512


class _Filter(logging.Filter):
    """Takes known secrets out of a record."""

    def __init__(self) -> None:
        super().__init__()
        self._secrets: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def add(self, secret: str) -> None:
        with self._lock:
            self._secrets[secret] = None
            self._secrets.move_to_end(secret)
            while len(self._secrets) > _MOST:
                self._secrets.popitem(last=False)

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        with self._lock:
            known = [secret for secret in self._secrets if secret in message]
        if known:
            # The longest first: one may be a part of another.
            for secret in sorted(known, key=len, reverse=True):
                message = message.replace(secret, "...")
            record.msg, record.args = message, ()
        return True


_FILTER: Final = _Filter()
for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_FILTER)


def hide(*secrets: str) -> None:
    """Have some words replaced by dots wherever the HTTP libraries would log them.

    Parameters
    ----------
    *secrets : str
        Tokens, passwords, queries of signed URLs; empty ones are passed over.
    """
    for secret in filter(None, secrets):
        _FILTER.add(secret)
