"""One tree of exceptions, each with a stable ``kind`` and a message that ends with the remedy."""

from __future__ import annotations

from typing import ClassVar, Literal

__all__ = [
    "BandError",
    "CatalogError",
    "ClusterError",
    "ConfigError",
    "CubeError",
    "EmptySearchError",
    "GlaciercubeError",
    "GridMismatchError",
    "ModelError",
    "OutlineError",
    "PlanError",
    "ReadError",
    "RegionError",
    "StoreError",
    "require",
]


class GlaciercubeError(Exception):
    """Anything that glaciercube refuses or could not do.

    Parameters
    ----------
    problem : str
        What is wrong, naming the thing (file, band, line, scene).
    remedy : str
        What the user can do about it.

    Attributes
    ----------
    kind : str
        Stable identifier of the kind of error, for programs.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem.rstrip(". ")
        self.remedy = remedy.rstrip(". ")
        super().__init__(problem, remedy)

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}."


class ConfigError(GlaciercubeError):
    """The configuration cannot be understood."""

    kind = "config"


class RegionError(GlaciercubeError):
    """The region of interest cannot be made."""

    kind = "region"


class OutlineError(RegionError):
    """The outlines cannot be read, or do not meet the data."""

    kind = "outline"


class CatalogError(GlaciercubeError):
    """The STAC catalogue or API cannot be read."""

    kind = "catalog"


class EmptySearchError(CatalogError):
    """The search found no scene."""

    kind = "empty-search"


class BandError(GlaciercubeError):
    """A scene does not have the band that was asked for."""

    kind = "band"


class ReadError(GlaciercubeError):
    """Pixels could not be read; never turned into zeros.

    Parameters
    ----------
    problem, remedy : str
        As of every error.
    failure : str
        ``"transient"``: it may be there when it is asked for again (time-outs, 429, 5xx, cut off); ``"authorisation"``:
        refused even after it was signed again; ``"permanent"``: not there, or not what it should be.
    uri : str
        The file, without query, user or token.
    scene, band : str
        STAC identifier and band, empty where they are not known.
    reason : str
        What went wrong, in a few words without secrets.
    """

    kind = "read"

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        failure: Literal["transient", "authorisation", "permanent"] = "permanent",
        uri: str = "",
        scene: str = "",
        band: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(problem, remedy)
        self.failure = failure
        self.uri, self.scene, self.band, self.reason = uri, scene, band, reason


class CubeError(GlaciercubeError):
    """The cube lacks a variable, a dimension or a unit that the next step needs."""

    kind = "cube"


class ModelError(GlaciercubeError):
    """The model, its contract or its weights cannot be used."""

    kind = "model"


class PlanError(GlaciercubeError):
    """The plan cannot be made or run."""

    kind = "plan"


class ClusterError(GlaciercubeError):
    """The cluster cannot be reached or used, or lost what it was given."""

    kind = "cluster"


class StoreError(GlaciercubeError):
    """The probability store cannot be read or written."""

    kind = "store"


class GridMismatchError(StoreError):
    """The store was made with another grid than the run asks for."""

    kind = "grid-mismatch"


def require(condition: bool, problem: str, remedy: str) -> None:
    """Refuse an option that cannot be used.

    Raises
    ------
    ConfigError
        If the condition does not hold.
    """
    if not condition:
        raise ConfigError(problem, remedy)
