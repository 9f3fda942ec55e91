"""Which shards of which dates of a plan are worth computing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from glaciercube.campaign.candidates import Lattice, near_outlines
from glaciercube.campaign.unit import frame_of

if TYPE_CHECKING:
    from glaciercube.campaign.plan import Plan

__all__ = ["lattice_of", "worth_computing"]

Bool = npt.NDArray[np.bool_]


def worth_computing(plan: Plan) -> Bool:
    """Which shards are computed: (block, row).

    Parameters
    ----------
    plan : Plan
        From `make_plan`; its options say what is left out.
    """
    blocks = plan.blocks
    shape = (len(blocks), len(plan.rows))
    if plan.options.candidates == "all":
        # No bytes: a view of one truth.
        return np.broadcast_to(np.True_, shape)
    near = near_outlines(plan.region, plan.options.buffer, lattice_of(plan, cores=True)).ravel()
    static = [modality for modality in plan.model.contract.modalities if modality.static and modality.evidence]
    if static or plan.leading == "":
        return np.broadcast_to(near[:, None], shape)
    return _seen(plan) & near[:, None]


def lattice_of(plan: Plan, *, cores: bool) -> Lattice:
    """The shards on the map: their own pixels (cores), or all that they read."""
    blocks = plan.blocks
    a = plan.region.geobox.affine
    rows, columns = [], []
    for index in range(max(blocks.high, blocks.wide)):
        block = (min(index, blocks.high - 1), min(index, blocks.wide - 1))
        if cores:
            y, x = plan.slices(block)
        else:
            frame = frame_of(plan, block)
            y, x = frame.rows, frame.columns
        rows.append((y.start, y.stop))
        columns.append((x.start, x.stop))
    y_edges, x_edges = np.array(rows[: blocks.high], float), np.array(columns[: blocks.wide], float)
    left, right = a.c + a.a * x_edges.T
    top, bottom = a.f + a.e * y_edges.T
    return Lattice(left, right, bottom, top)


def _seen(plan: Plan) -> Bool:
    """Of which shards a date's scenes show anything that is read: (block, row)."""
    seen = np.zeros((len(plan.blocks), len(plan.rows)), np.bool_)
    still = {name for name in plan.scenes.sensors if plan.scenes.sensor(name).static}
    moving = (~plan.scenes.table["sensor"].isin(still)).to_numpy()
    met: list[Any] = plan.sight.blocks(lattice_of(plan, cores=False))
    for row, places in enumerate(plan.picked):
        for place in places[moving[places]]:
            seen[met[place], row] = True
    context = plan.model.contract.time_context
    if context is not None and context.fills:
        # What a date does not show may be filled from those beside it.
        return np.stack([seen[:, list(rows)].any(axis=1) for rows in plan.contexts], axis=1)
    return seen
