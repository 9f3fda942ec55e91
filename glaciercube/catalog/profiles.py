"""STAC providers known by name: where they answer, and how their assets are signed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from glaciercube.errors import CatalogError

__all__ = ["PROFILES", "Profile", "signer"]


@dataclass(frozen=True)
class Profile:
    """A STAC provider.

    Attributes
    ----------
    name : str
        Name in configurations.
    url : str
        Root of its STAC API.
    signing : str
        ``""`` or ``"planetary-computer"``.
    """

    name: str
    url: str
    signing: str = ""


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "planetary-computer",
            "https://planetarycomputer.microsoft.com/api/stac/v1",
            signing="planetary-computer",
        ),
        Profile("earth-search", "https://earth-search.aws.element84.com/v1"),
        Profile("cdse", "https://stac.dataspace.copernicus.eu/v1"),
    )
}


def signer(signing: str) -> Callable[[str], str] | None:
    """A function that signs an asset's URL when it is about to be read, or None where none is needed.

    Raises
    ------
    CatalogError
        If the provider's package is not installed.
    """
    if not signing:
        return None
    try:
        import planetary_computer
    except ImportError as error:
        raise CatalogError(
            "Planetary Computer's assets must be signed, and the package planetary-computer is not installed",
            "pip install 'glaciercube[planetary-computer]'",
        ) from error
    sign: Callable[[str], str] = planetary_computer.sign_url
    return sign
