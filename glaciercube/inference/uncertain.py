"""Over whole cubes: how far the members of a model differ, and a model adapted to the cube that it will predict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from glaciercube.errors import require
from glaciercube.inference.lazy import check_cube, predict

if TYPE_CHECKING:
    from glaciercube.models.adapt import Block
    from glaciercube.models.base import Model

__all__ = ["adapt_to_cube", "predict_spread"]


def predict_spread(cube: xr.Dataset, model: Model, **options: Any) -> xr.Dataset:
    """Predict an ensemble, or a model with dropout at prediction, member by member.

    Parameters
    ----------
    cube : Dataset
        As for `glaciercube.predict`.
    model : Model
        From `glaciercube.models.ensemble.ensemble` or `glaciercube.models.dropout.with_dropout`.
    **options
        Of `glaciercube.predict`.

    Returns
    -------
    Dataset
        That of `glaciercube.predict`, lazily, with ``spread`` (time, y, x) float32: the standard deviation of the
        members' probability of glacier, 0 to 0.5. Threads compute it; members do not go to other processes.

    Raises
    ------
    ModelError
        If the model has no members.
    """
    from glaciercube.models.ensemble import members_of

    members = members_of(model)
    each = [predict(cube, member, **options)["glacier_probability"] for member in members]
    stack = xr.concat(each, "member", coords="minimal", compat="override", join="override")
    spread = ((stack - stack.mean("member", skipna=False)) ** 2).mean("member", skipna=False) ** 0.5
    attrs = {"long_name": "standard deviation of the members' glacier probability", "units": "1"}
    found = predict(cube, model, **options)
    return found.assign(spread=spread.astype(np.float32).assign_attrs(attrs))


def adapt_to_cube(
    model: Model, cube: xr.Dataset, *, share: float = 0.3, block: int = 256, blocks: int = 16, seed: int = 0
) -> Model:
    """Adapt a model's batch statistics to a cube: see `glaciercube.models.adapt`.

    Parameters
    ----------
    model : Model
        Of an architecture with batch normalisation.
    cube : Dataset
        As for `glaciercube.predict`, which the result is then given to: ``predict(cube, adapt_to_cube(model, cube))``.
    share : float
        Weight of the cube's statistics, 0 to 1.
    block : int
        Side of the squares that are looked at, in pixels.
    blocks : int
        Squares and dates that are looked at, drawn from the seed; all of them where there are no more.
    seed : int
        Of the draw.

    Returns
    -------
    Model
        One model for the whole cube, so that there are no seams. It has a hash of its own: a store of it is a store of
        another model.

    Raises
    ------
    ModelError
        If the model has no batch normalisation.
    CubeError
        If the cube is not as documented.
    """
    from glaciercube.models.adapt import adapt

    require(block > 0 and blocks > 0, f"{blocks} blocks of {block} pixels", "give one or more of one or more pixels")
    cube = check_cube(cube, model.contract)
    return adapt(model, _blocks(model, cube, block, blocks, seed), share=share)


def _blocks(model: Model, cube: xr.Dataset, block: int, blocks: int, seed: int) -> Iterator[Block]:
    import torch

    from glaciercube.models.adapt import Block

    modalities = model.contract.select([str(name) for name in cube.data_vars])
    count = cube.sizes["time"] if any(not m.static for m in modalities) else 1
    starts = [
        (date, y, x)
        for date in range(count)
        for y in range(0, cube.sizes["y"], block)
        for x in range(0, cube.sizes["x"], block)
    ]
    drawn = np.random.default_rng(seed).permutation(len(starts))[:blocks]
    days = (cube["time"].to_numpy() - cube["time"].to_numpy()[0]) / np.timedelta64(1, "D")
    context = model.contract.time_context
    for date, y, x in (starts[int(number)] for number in sorted(drawn)):
        rows = [date] if context is None else context.union(days.tolist(), [date])
        names = [name for m in modalities for name in m.variables]
        part = cube[names].isel(time=rows, y=slice(y, y + block), x=slice(x, x + block)).compute()
        tensors = {
            m.name: torch.from_numpy(np.stack([part[v].to_numpy() for v in m.variables], axis=-3).astype(np.float32))
            for m in modalities
        }
        static = {m.name: tensors[m.name] for m in modalities if m.static}
        dynamic = {name: values for name, values in tensors.items() if name not in static}
        yield Block(dynamic, static, None if context is None else [float(days[row]) for row in rows])
