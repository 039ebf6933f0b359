"""The baseline: a small set of rules over the graph, the policy that decides by default.

The first rule whose condition holds names the action:

    no loss         neither the step's loss nor a packet loss is there and finite            PAUSE
    seed at risk    a candidate from TRAINING on has a risk of RISK_CULL or more             CULL the riskiest one
    loss high       the step's loss is over LOSS_HIGH_SD standard deviations above its norm,
                    from step NORM_WARMUP_STEPS on                                           OPTIMIZER, lr_delta LR_CUT
    seed due        a candidate has been in its stage for its dwell (DWELL_STEPS), or its blend has run its steps, and
                    nothing holds it (below)                                                 SEED, the most advanced
    otherwise                                                                                OPTIMIZER, lr_delta 0

A candidate is held, whatever its age,

    by its manager      at `operation_allowed` 0, at any stage; in TRAINING at `blend_allowed` 0, or where every method
                        of blending that it speaks of is refused; in BLENDING while the blend is running
    by its blueprint    in TRAINING where the host's capabilities do not let it set `alpha`, which a graft does
    by its risk         before TRAINING at RISK_CULL or more; in PROBATIONARY over its `risk_tolerance`, because what is
                        fossilized stays; a risk that is absent or no number is 1
    for want of         a blueprint that it could grow, in UNKNOWN and DORMANT

so that no operation is proposed that its manager is known to refuse. The most advanced seed is that of the latest
stage, then the oldest in it, then the first.

Risk is the largest of three readings, each from 0 to 1: LOSS_RISK_MAX * z / 8 of loss and of gradient norm, z being
standard deviations above the norm (0 to 8), and SEED_RISK_SHARE * the largest risk of a candidate from TRAINING on.
That number is laid on the five classes so that the expected class is the number. Statistics alone stay below the rows
that act on policy risk: a loss merely unlike the last ones is the risk table's business, which sees the loss itself.

Never worse than pausing: it changes nothing for good without a dwell and a manager that agrees, takes back what
disturbs the host, and moves the learning rate down only, by a hundredth at a time. Raising a risk or a loss, all else
equal, never lowers the risk it states, and never leads from OPTIMIZER, CULL or PAUSE to SEED.

The blueprint is the least risky one that is not for quarantine only, or one within BLUEPRINT_RISK_NEAR of it: the
seeds take turns among those by their place. The host's own is taken only where it is alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tamiyo.core.proposal import ACTIONS, BLENDING_METHODS, RISK_CLASSES, PolicyIdentity, Proposal
from tamiyo.graph.graph import Graph
from tamiyo.graph.schema import CLIP
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["DWELL_STEPS", "BaselinePolicy"]

SEED, OPTIMIZER, PAUSE, CULL = 0, 1, 2, 5
"""Classes of the action head that the rules use."""

DWELL_STEPS: Mapping[int, int] = MappingProxyType(
    {
        pb.SEED_STAGE_UNKNOWN: 20,
        pb.SEED_STAGE_DORMANT: 20,  # let the host settle before anything grows in it
        pb.SEED_STAGE_GERMINATED: 1,
        pb.SEED_STAGE_TRAINING: 30,
        pb.SEED_STAGE_BLENDING: 40,
        pb.SEED_STAGE_SHADOWING: 60,
        pb.SEED_STAGE_PROBATIONARY: 120,
    }
)
"""By stage, the age (`age_epochs`, counted in steps or epochs as the host exports it) at which a seed moves on."""

RISK_CULL = 0.9
LOSS_HIGH_SD = 2.0
NORM_WARMUP_STEPS = 20
"""Before, the norm still tells more of its prior than of the run."""
BLUEPRINT_RISK_NEAR = 0.11
LR_CUT = -0.01
LOSS_RISK_MAX = 0.75
SEED_RISK_SHARE = 0.9

_CULLED_FROM = frozenset(
    {pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY}
)
_UNGROWN = frozenset(DWELL_STEPS) - _CULLED_FROM
_GROWN_FROM = frozenset({pb.SEED_STAGE_UNKNOWN, pb.SEED_STAGE_DORMANT})
_METHODS = tuple(f"blend_allowed_{name}" for name in BLENDING_METHODS)
_READ = (
    "stage",
    "age",
    "risk",
    "alpha_steps",
    "alpha_total_steps",
    "blend_allowed",
    "risk_tolerance",
    "operation_allowed",
    *_METHODS,
)
_CONFIDENCE = 0.97
_FULL_ALPHA = 0.9
"""Parameter output 0 for alpha = clip(0.1 + p0, 0, 1) = 1: a graft is blended in whole."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    place: int
    stage: int
    age: float
    risk: float
    blend_done: bool
    held: bool

    @property
    def advancement(self) -> tuple[int, float, int]:
        """Larger is further on; the first seed wins a tie."""
        return self.stage, self.age, -self.place


@dataclass(frozen=True, slots=True)
class _Choice:
    action: int
    seed: _Candidate
    lr_delta: float = 0.0


class BaselinePolicy:
    """The rules as a policy: deterministic, without state and without torch.

    Args:
        dwell_steps: by stage, how long a seed stays at least; another table than DWELL_STEPS is another policy, and
            says so in its version.
    """

    def __init__(self, dwell_steps: Mapping[int, int] = DWELL_STEPS) -> None:
        self.dwell_steps = dwell_steps
        suffix = "" if dwell_steps == DWELL_STEPS else "-own-dwell"
        self.identity = PolicyIdentity(f"baseline-v2{suffix}", "rules", "python")

    def propose(self, graph: Graph) -> Proposal:
        """Propose for a graph with at least one candidate.

        Raises:
            ValueError: the graph has no candidate; the service answers such a step without asking.
        """
        if not graph.candidates:
            raise ValueError("a graph without a candidate seed was given to the baseline; answer it with a PAUSE")
        blueprints = _best_blueprints(graph)
        seeds = _candidates(graph)
        choice = _choose(graph, seeds, self.dwell_steps, can_grow=bool(blueprints))
        blueprint = blueprints[choice.seed.place % len(blueprints)] if blueprints else -1
        return Proposal(
            action=_peaked(choice.action, ACTIONS),
            risk=_on_classes(_risk(graph, seeds)),
            value=_value(graph),
            param_deltas=(_FULL_ALPHA, choice.lr_delta, 0.0, 0.0),
            blending_method=_peaked(_blending_method(graph, choice.seed.place), len(BLENDING_METHODS)),
            schedule=(-1.0, 1.0),
            seed_index=choice.seed.place,
            seed_score=choice.seed.stage / pb.SEED_STAGE_PROBATIONARY,
            blueprint_index=blueprint,
            breaker_scores=(0.0, 0.0),
        )


def _choose(graph: Graph, seeds: Sequence[_Candidate], dwell: Mapping[int, int], *, can_grow: bool) -> _Choice:
    """The table at the top of this file, row by row."""
    foremost = max(seeds, key=lambda seed: seed.advancement)
    if _loss(graph) is None:
        return _Choice(PAUSE, foremost)
    at_risk = [seed for seed in seeds if seed.stage in _CULLED_FROM and seed.risk >= RISK_CULL]
    if at_risk:
        return _Choice(CULL, max(at_risk, key=lambda seed: (seed.risk, *seed.advancement)))
    if _is_loss_high(graph):
        return _Choice(OPTIMIZER, foremost, LR_CUT)
    due = [seed for seed in seeds if _is_due(seed, dwell, can_grow=can_grow)]
    if due:
        return _Choice(SEED, max(due, key=lambda seed: seed.advancement))
    return _Choice(OPTIMIZER, foremost)


def _candidates(graph: Graph) -> list[_Candidate]:
    told = {name: graph.values("seed", name) for name in _READ}
    found = []
    for place in graph.candidates:
        values = {name: column[place] for name, column in told.items()}
        stage, done = int(values["stage"] or 0), _is_blend_done(values)
        found.append(
            _Candidate(
                place=place,
                stage=stage,
                age=values["age"] or 0.0,
                risk=_at_worst(values["risk"]),
                blend_done=done,
                held=_is_held(values, blend_running=bool(values["alpha_total_steps"]) and not done)
                or (stage == pb.SEED_STAGE_TRAINING and graph.may_set(place, "alpha") is False),
            )
        )
    return found


def _is_held(values: Mapping[str, float | None], *, blend_running: bool) -> bool:
    """By its manager, which would refuse the next operation, or by its risk. Who says nothing holds nothing back."""
    stage, risk = int(values["stage"] or 0), _at_worst(values["risk"])
    if values["operation_allowed"] == 0.0 or (stage in _UNGROWN and risk >= RISK_CULL):
        return True
    if stage == pb.SEED_STAGE_TRAINING:
        methods = [values[name] for name in _METHODS if values[name] is not None]
        return values["blend_allowed"] == 0.0 or (bool(methods) and not any(map(_is_allowed, methods)))
    if stage == pb.SEED_STAGE_BLENDING:
        return blend_running
    tolerance = values["risk_tolerance"]
    return stage == pb.SEED_STAGE_PROBATIONARY and tolerance is not None and risk > tolerance


def _is_allowed(value: float | None) -> bool:
    return value is not None and value > 0.0


def _at_worst(risk: float | None) -> float:
    """A risk that is absent or no number is the worst: nothing is known in favour of what bears it."""
    return 1.0 if risk is None else risk


def _is_blend_done(values: Mapping[str, float | None]) -> bool:
    steps, total = values["alpha_steps"], values["alpha_total_steps"]
    return steps is not None and total is not None and total > 0.0 and steps >= total


def _is_due(seed: _Candidate, dwell: Mapping[int, int], *, can_grow: bool) -> bool:
    if seed.held or (seed.stage in _GROWN_FROM and not can_grow):
        return False
    if seed.stage == pb.SEED_STAGE_BLENDING and seed.blend_done:
        return True
    return seed.age >= dwell[seed.stage]


def _loss(graph: Graph) -> float | None:
    """The first loss that is there: the step's, then the packet's."""
    losses = (graph.value("global", 0, name) for name in ("loss", "training_loss", "validation_loss"))
    return next((loss for loss in losses if loss is not None), None)


def _is_loss_high(graph: Graph) -> bool:
    step, deviations = graph.value("global", 0, "global_step"), graph.scaled("global", 0, "loss")
    return (step or 0.0) >= NORM_WARMUP_STEPS and deviations is not None and deviations > LOSS_HIGH_SD


def _risk(graph: Graph, seeds: Sequence[_Candidate]) -> float:
    surprise = max(graph.scaled("global", 0, name) or 0.0 for name in ("loss", "gradient_norm"))
    worst = max((seed.risk for seed in seeds if seed.stage in _CULLED_FROM), default=0.0)
    return max(LOSS_RISK_MAX * max(surprise, 0.0) / CLIP, SEED_RISK_SHARE * min(max(worst, 0.0), 1.0))


def _value(graph: Graph) -> float:
    """How much better than its norm the loss is, from -1 to 1; 0 where it is not known."""
    deviations = graph.scaled("global", 0, "loss")
    return -deviations / CLIP if deviations is not None else 0.0


def _best_blueprints(graph: Graph) -> list[int]:
    """The places that may be grown, least risky first."""
    risks, barred = graph.values("blueprint", "risk"), graph.values("blueprint", "quarantine_only")
    places = [place for place in range(len(risks)) if not barred[place]]
    others = [place for place in places if place != graph.host_blueprint_index]
    ranked = sorted(others or places, key=lambda place: (_at_worst(risks[place]), place))
    return [place for place in ranked if _at_worst(risks[place]) - _at_worst(risks[ranked[0]]) <= BLUEPRINT_RISK_NEAR]


def _blending_method(graph: Graph, seed: int) -> int:
    """The first method that the seed's manager allows; linear where it says nothing."""
    allowed = (graph.value("seed", seed, name) for name in _METHODS)
    return next((index for index, value in enumerate(allowed) if _is_allowed(value)), 0)


def _peaked(index: int, width: int) -> tuple[float, ...]:
    rest = (1.0 - _CONFIDENCE) / (width - 1)
    return tuple(_CONFIDENCE if place == index else rest for place in range(width))


def _on_classes(risk: float) -> tuple[float, ...]:
    """Probabilities of the risk classes whose expectation, scaled to 0..1, is `risk`; at most two are above 0."""
    height = risk * (RISK_CLASSES - 1)
    lower = min(int(height), RISK_CLASSES - 2)
    share = height - lower
    return tuple({lower: 1.0 - share, lower + 1: share}.get(place, 0.0) for place in range(RISK_CLASSES))
