"""One model that looks at every image several times: smaller, larger and mirrored. Its mean is a model like any other.

Sizes are quarters of the pixel, and blocks are cut where each size has whole cells of the network: results are the same
wherever the grid is cut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import Tensor
from torch.nn import functional

from glaciercube.errors import ModelError, require
from glaciercube.models.base import GlacierModule, Masked, Model
from glaciercube.models.contract import Contract
from glaciercube.models.ensemble import Several

__all__ = ["Views", "with_views"]

_QUARTERS = 4


class Views(Several):
    """Several looks of one module.

    Parameters
    ----------
    contract : Contract
        As of `with_views`: parameters ``base`` (MLM item as JSON), ``quarters`` and ``mirrored``.
    base : GlacierModule, optional
        What looks; by default one without weights of its own yet.
    """

    def __init__(self, contract: Contract, base: GlacierModule | None = None) -> None:
        super().__init__(contract)
        from glaciercube.models.registry import build_module

        try:
            self.own = Contract.from_mlm(json.loads(str(contract.parameters["base"])))
            sizes = tuple(int(size) for size in contract.parameters["quarters"])  # type: ignore[union-attr]
            mirrors = (False, True) if contract.parameters["mirrored"] else (False,)
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(
                f"model {contract.name!r} does not say what its views are of ({error})",
                "make it with glaciercube.models.views.with_views",
            ) from error
        self.looks = tuple((size, mirrored) for size in sizes for mirrored in mirrors)
        self.base = build_module(self.own) if base is None else base
        self.absent_is_missing = self.base.absent_is_missing

    @property
    def count(self) -> int:
        """How many views."""
        return len(self.looks)

    def member(self, number: int) -> Model:
        """One view."""
        size, mirrored = self.looks[number]
        contract = _contract(Model.from_module(self.own, self.base), (size,), mirrored=False)
        view = Views(contract, self.base)
        view.looks = ((size, mirrored),)
        view.identity = f"{size}/{mirrored}".encode()
        return Model.from_module(contract, view)

    def encode_static(self, static: Mapping[str, Masked]) -> list[Any]:
        """Static features of every view."""
        return [self.base.encode_static(_seen(static, *look)) for look in self.looks]

    def said(self, number: int, dynamic: Mapping[str, Masked], static_features: Any, *more: Any) -> Tensor:
        """What is seen in one view, put back where it lies."""
        size, mirrored = self.looks[number]
        found: Tensor = self.base(_seen(dynamic, size, mirrored), static_features[number], *more)
        found = found.flip(-1) if mirrored else found
        if size == _QUARTERS:
            return found
        channels = found if found.ndim == 4 else found[:, None]
        back = functional.interpolate(channels, scale_factor=_QUARTERS / size, mode="bilinear")
        return back if found.ndim == 4 else back[:, 0]


def _seen(inputs: Mapping[str, Masked], size: int, mirrored: bool) -> dict[str, Masked]:
    """Normalised inputs in another size; a pixel next to a missing one is missing."""
    return {name: _resized(each, size, mirrored) for name, each in inputs.items()}


def _resized(masked: Masked, size: int, mirrored: bool) -> Masked:
    values, valid = masked
    if size != _QUARTERS:
        scale = size / _QUARTERS
        share = functional.interpolate(valid.to(values.dtype), scale_factor=scale, mode="bilinear")
        valid = share > 1.0 - 1e-6
        values = functional.interpolate(values, scale_factor=scale, mode="bilinear") * valid
    if mirrored:
        values, valid = values.flip(-1), valid.flip(-1)
    return Masked(values.contiguous(), valid.contiguous())


def with_views(model: Model, *, quarters: tuple[int, ...] = (3, 4, 5), mirrored: bool = True) -> Model:
    """A model that sees every image in several sizes, as it is and mirrored, and gives the mean probability.

    Parameters
    ----------
    model : Model
        Of a known architecture, without fixed windows; an ensemble too.
    quarters : tuple of int
        Sizes in quarters: 4 is the image as it is, 5 a quarter larger.
    mirrored : bool
        Whether each is seen from left to right as well. Not for models that know directions, such as the sun's.

    Returns
    -------
    Model
        To be written with `save_model`, loaded, run and calibrated as any other. It takes as long as all its views.

    Raises
    ------
    ModelError
        If the model is a program, has windows or sees everything, or a size is not above 0.
    """
    from glaciercube.models.registry import ARCHITECTURES

    own = model.contract
    require(bool(quarters) and min(quarters) > 0, f"views in {quarters} quarters", "give whole numbers above 0")
    if own.architecture not in ARCHITECTURES or own.windows is not None or own.receptive_field == "global":
        raise ModelError(
            f"{own.name!r} cannot be shown images in other sizes",
            "give a model of a known architecture without windows",
        )
    contract = _contract(model, tuple(quarters), mirrored=mirrored)
    return Model.from_module(contract, Views(contract, model.module))


def _contract(model: Model, quarters: tuple[int, ...], *, mirrored: bool) -> Contract:
    own = model.contract
    # Of the smallest size a pixel is the largest; beside the field lies what the two changes of size take in.
    field = math.ceil((int(own.receptive_field) + 2) * _QUARTERS / min(*quarters, _QUARTERS)) + 2
    parts = [Fraction(size, _QUARTERS).denominator for size in quarters]
    return replace(
        own,
        name=f"{own.name}-views",
        architecture="views",
        parameters={
            "base": json.dumps(own.to_mlm(), separators=(",", ":"), sort_keys=True),
            "quarters": quarters,
            "mirrored": mirrored,
        },
        receptive_field=field,
        stride=own.stride * math.lcm(*parts),
        description=f"{own.description} Mean over sizes of {', '.join(f'{q / _QUARTERS:g}' for q in quarters)}"
        f"{', as they are and mirrored' if mirrored else ''}.",
    )
