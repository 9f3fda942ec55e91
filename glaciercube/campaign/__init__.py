"""A whole job: plan it, explain it, run it; run again to finish it."""

from __future__ import annotations

from glaciercube.campaign.explain import explain
from glaciercube.campaign.plan import Plan, Unit, make_plan
from glaciercube.campaign.run import Outcome, RunOptions, run

__all__ = ["Outcome", "Plan", "RunOptions", "Unit", "explain", "make_plan", "run"]
