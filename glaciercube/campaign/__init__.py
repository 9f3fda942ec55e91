"""A whole job: plan it, explain it, run it; run again to finish it."""

from __future__ import annotations

from glaciercube.campaign.budget import Budget, Prices, check_budget
from glaciercube.campaign.candidates import PlanOptions
from glaciercube.campaign.explain import explain
from glaciercube.campaign.failed import failed_shards
from glaciercube.campaign.left import Left, what_is_left
from glaciercube.campaign.options import RunOptions
from glaciercube.campaign.plan import Plan, Unit
from glaciercube.campaign.planning import make_plan
from glaciercube.campaign.run import Outcome, run
from glaciercube.campaign.update import update, update_plan

__all__ = [
    "Budget",
    "Left",
    "Outcome",
    "Plan",
    "PlanOptions",
    "Prices",
    "RunOptions",
    "Unit",
    "check_budget",
    "explain",
    "failed_shards",
    "make_plan",
    "run",
    "update",
    "update_plan",
    "what_is_left",
]
