"""A whole job: plan it, explain it, run it; run again to finish it."""

from __future__ import annotations

from glaciercube.campaign.budget import Budget, Prices, check_budget
from glaciercube.campaign.candidates import PlanOptions
from glaciercube.campaign.explain import explain
from glaciercube.campaign.plan import Plan, Unit, make_plan
from glaciercube.campaign.run import Outcome, RunOptions, run

__all__ = [
    "Budget",
    "Outcome",
    "Plan",
    "PlanOptions",
    "Prices",
    "RunOptions",
    "Unit",
    "check_budget",
    "explain",
    "make_plan",
    "run",
]
