"""What stops a fit: its averaged weights are scored on validation chips, and the best of them are kept."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from glaciercube.models.chips import Chip
from glaciercube.training.batches import make_batch
from glaciercube.training.checkpoint import State
from glaciercube.training.cuts import still_cut
from glaciercube.training.learner import Learner

__all__ = ["Watch"]


class Watch:
    """Looks at a learner's averaged weights every so often.

    Parameters
    ----------
    learner : Learner
        Whose.
    chips : sequence of Chip
        To score on; without any, nothing is ever looked at.
    state : State
        Of the fit: holds the best score and how long ago it was, and is told when the fit is done.
    best : dict of str to tensor
        Best weights so far; empty at first.

    Attributes
    ----------
    best : dict of str to tensor
        Best weights so far; empty if nothing was looked at.
    """

    def __init__(self, learner: Learner, chips: Sequence[Chip], state: State, best: dict[str, Tensor]) -> None:
        self.learner, self.chips, self.state, self.best = learner, chips, state, best
        self.options = learner.options

    def look(self) -> float | None:
        """Score the averaged weights when it is time; ends a fit that no longer gets better."""
        state, patience = self.state, self.options.patience
        if not self.chips or not (state.done or state.step % self.options.validate == 0):
            return None
        with self.learner.averaged():
            score = self._score()
        if state.best is None or score < state.best:
            state.best, state.waited = score, 0
            self.best = {name: value.clone() for name, value in self.learner.average.tensors.items()}
        else:
            state.waited += 1
        state.done = state.done or (patience is not None and state.waited >= patience)
        return score

    def _score(self) -> float:
        """Mean loss over the chips, each at one of its dates, weighted by what is known of them."""
        contract = self.learner.contract
        cuts = [still_cut(chip, contract, self.options, _dated(chip, number)) for number, chip in enumerate(self.chips)]
        sums = 0.0
        for first in range(0, len(cuts), self.options.batch):
            part = cuts[first : first + self.options.batch]
            sums += len(part) * self.learner.score(make_batch(part, contract))
        return sums / len(cuts)


def _dated(chip: Chip, number: int) -> int:
    """One of a chip's dates whose truth is known, by turns."""
    known = [date for date, weight in enumerate(chip.weight) if (weight > 0).any()]
    return known[number % len(known)] if known else number % len(chip.time)
