"""How far an inference that was run again agrees with the one that is recorded.

equal        every number, to the last bit
close        every number within the tolerance of the engine that is recorded; where the two choose differently,
             what each chose is then as good as the other's within it (a tie)
same choice  of an engine that is not exact: a number is past the tolerance, and every choice is the same
another      none of these
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import sub

from tamiyo.audit.found import Divergence
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.inputs import proposal_of
from tamiyo.core.proposal import Proposal, argmax

__all__ = [
    "ANOTHER",
    "CLOSE",
    "EQUAL",
    "SAME_CHOICE",
    "Agreement",
    "Reinference",
    "agreement",
    "joined",
    "tolerance_of",
]

EQUAL, CLOSE, SAME_CHOICE, ANOTHER = "equal", "close", "same choice", "another"

TOLERANCE = 1e-4
"""Of fp32: ten times the largest error between two engines over random graphs and weights."""
INEXACT_TOLERANCE = 0.02
"""Of what multiplies in TF32 or bf16, which keep three digits."""
INEXACT = ("tf32", "bfloat16")
"""Words in an engine's name that say so."""
LARGE = "; large "
"""What stands in it before the engine of large graphs."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """`error` is the largest difference, each against the largest number of its head (or 1)."""

    grade: str
    error: float = 0.0
    tolerance: float = TOLERANCE
    is_tie: bool = False


@dataclass(slots=True)
class Reinference:
    """What level 3 found. `graphs` were built again and are what is recorded; the inferences are counted by grade.

    `skipped` steps had nobody to ask, rightly, and `unanswered` ones no answer. `unknown` says by reason how many steps
    it could say nothing of.
    """

    graphs: int = 0
    equal: int = 0
    close: int = 0
    same_choice: int = 0
    ties: int = 0
    skipped: int = 0
    unanswered: int = 0
    tolerance: float = TOLERANCE
    largest_error: float = 0.0
    largest_error_lsn: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    divergence: Divergence | None = None

    @property
    def inferences(self) -> int:
        """How many were run again and agree."""
        return self.equal + self.close + self.same_choice

    def count(self, lsn: int, found: Agreement) -> None:
        """Count one that agrees; `tolerance` is the widest that was asked for."""
        self.tolerance = max(self.tolerance, found.tolerance)
        self.equal += found.grade == EQUAL
        self.close += found.grade == CLOSE
        self.same_choice += found.grade == SAME_CHOICE
        self.ties += found.is_tie
        if found.error > self.largest_error:
            self.largest_error, self.largest_error_lsn = found.error, lsn

    def count_unknown(self, reason: str) -> None:
        """Count a step that nothing can be said of."""
        self.unknown[reason] = self.unknown.get(reason, 0) + 1

    def diverge(self, divergence: Divergence) -> None:
        """Keep the first one in the log: inferences are not run in its order."""
        if self.divergence is None or divergence.lsn < self.divergence.lsn:
            self.divergence = divergence


def joined(parts: Sequence[Reinference]) -> Reinference:
    """What was found in the parts of a log, in their order."""
    whole = Reinference()
    for part in parts:
        for name in ("graphs", "equal", "close", "same_choice", "ties", "skipped", "unanswered"):
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        whole.tolerance = max(whole.tolerance, part.tolerance)
        if part.largest_error > whole.largest_error:
            whole.largest_error, whole.largest_error_lsn = part.largest_error, part.largest_error_lsn
        for reason, count in part.unknown.items():
            whole.unknown[reason] = whole.unknown.get(reason, 0) + count
        if part.divergence is not None:
            whole.diverge(part.divergence)
    return whole


def tolerance_of(engine: str, *, is_large: bool = False) -> float:
    """How far an inference of this engine may be from one of another: an engine may name two, for small and large."""
    small, _, large = engine.partition(LARGE)
    used = large if is_large and large else small
    return INEXACT_TOLERANCE if any(word in used for word in INEXACT) else TOLERANCE


def agreement(
    recorded: journal.InferenceObserved,
    proposal: Proposal,
    scores: tuple[Sequence[float], Sequence[float]] | None = None,
    *,
    is_large: bool = False,
) -> Agreement:
    """Compare.

    Args:
        recorded: what the log says.
        proposal: what the same policy proposes now.
        scores: of all seeds and all blueprints, as they are now; without them another seed or blueprint is no tie.
        is_large: the graph is one of those that an engine may compute otherwise than small ones.
    """
    theirs = proposal_of(recorded)
    if proposal == theirs:
        return Agreement(EQUAL)
    tolerance = tolerance_of(recorded.identity.engine, is_large=is_large)
    error = max(_error(mine, other) for mine, other in zip(_heads(proposal), _heads(theirs), strict=True))
    chosen = _same_choice(proposal, theirs)
    if error <= tolerance and (chosen or _ties(theirs, scores, tolerance)):
        return Agreement(CLOSE, error, tolerance, is_tie=not chosen)
    if chosen and tolerance == INEXACT_TOLERANCE:
        return Agreement(SAME_CHOICE, error, tolerance)
    return Agreement(ANOTHER, error, tolerance)


def _heads(proposal: Proposal) -> tuple[tuple[float, ...], ...]:
    return (
        proposal.action, proposal.risk, proposal.param_deltas, proposal.blending_method, proposal.schedule,
        proposal.breaker_scores, (proposal.value,), (proposal.seed_score,),
    )  # fmt: skip


def _error(mine: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    if len(mine) != len(theirs):
        return math.inf
    if not mine:
        return 0.0
    largest = max(*theirs, -min(theirs), 1.0)
    error = max(map(abs, map(sub, mine, theirs))) / largest
    # what is not finite makes the sum so, wherever it stands; enormous numbers could as well, and are looked at
    are_finite = math.isfinite(sum(mine) + sum(theirs)) or all(map(math.isfinite, (*mine, *theirs)))
    return error if are_finite else math.inf


def _same_choice(one: Proposal, other: Proposal) -> bool:
    classes = (argmax(one.action), argmax(one.risk), argmax(one.blending_method))
    others = (argmax(other.action), argmax(other.risk), argmax(other.blending_method))
    places = (one.seed_index, one.blueprint_index)
    return classes == others and places == (other.seed_index, other.blueprint_index)


def _ties(theirs: Proposal, scores: tuple[Sequence[float], Sequence[float]] | None, tolerance: float) -> bool:
    """Whether the seed and the blueprint that were chosen are the best ones within the tolerance.

    Of the classes nothing is asked: where every probability is close, so are the largest two.
    """
    if scores is None:
        return False
    seeds, blueprints = scores
    return _is_best(theirs.seed_score, theirs.seed_index, seeds, tolerance) and (
        not blueprints or _is_best(max(blueprints), theirs.blueprint_index, blueprints, tolerance)
    )


def _is_best(best: float, place: int, scores: Sequence[float], tolerance: float) -> bool:
    return 0 <= place < len(scores) and best - scores[place] <= tolerance * max(1.0, abs(best))
