"""Who may read: signatures and tokens, made anew as they are needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, Final

from glaciercube.catalog import signer
from glaciercube.errors import CatalogError

__all__ = ["Access"]

_BEARER: Final = "bearer:$"


class Access:
    """Signs what is about to be read; a signature is made anew whenever it is asked for, and is never kept.

    Parameters
    ----------
    signing : str
        As `glaciercube.catalog.signer` knows it, or ``"bearer:$VARIABLE"``: the environment variable holds a token that
        is sent in the header ``Authorization``, and is read anew for every request, so that it may be renewed.
    """

    def __init__(self, signing: str = "") -> None:
        self.signing = signing
        self._sign: Callable[[str], str] | None = None
        self._known = False

    def __repr__(self) -> str:
        return f"Access({self.signing!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # What a signer holds, tokens too, stays where it is.
        return (Access, (self.signing,))

    @property
    def variable(self) -> str:
        """The environment variable that holds the token; empty if there is none."""
        if self.signing.startswith(_BEARER):
            return self.signing.removeprefix(_BEARER)
        return self.signing.partition("=$")[2]

    @property
    def signs(self) -> bool:
        """True if requests carry something that may expire."""
        return bool(self.signing)

    def url(self, href: str) -> str:
        """A URL as it may be fetched now.

        Raises
        ------
        CatalogError
            If the provider's package or token is missing.
        """
        if not self._known:
            self._sign = None if self.signing.startswith(_BEARER) else signer(self.signing)
            self._known = True
        return self._sign(href) if self._sign else href

    def headers(self) -> dict[str, str]:
        """Headers that a request must carry now.

        Raises
        ------
        CatalogError
            If the token is missing.
        """
        if not self.signing.startswith(_BEARER):
            return {}
        token = os.environ.get(self.variable)
        if not token:
            raise CatalogError(
                f"the environment variable {self.variable} is not set", "put the token for the assets in it"
            )
        return {"Authorization": f"Bearer {token}"}

    def renew(self) -> None:
        """Forget tokens that were refused, so that the next signature is made with new ones."""
        forget = getattr(self._sign, "forget", None)
        if callable(forget):
            forget()
        if self.signing == "planetary-computer" and "planetary_computer" in sys.modules:
            from planetary_computer import sas

            sas.TOKEN_CACHE.clear()
