"""From proposal to command: what the policy wants, and what the risk rows leave of it."""

from collections.abc import Sequence
from typing import NamedTuple

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.draft import Standing
from tamiyo.core.inputs import Inference, Inputs
from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.observation import Seed
from tamiyo.core.risk import DOWNGRADE, NOTHING, PAUSE, Triggered
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["POLICY_ACTIONS", "RANKS", "Intent", "intend", "reason_of", "restrict"]


class Intent(NamedTuple):
    """One command to be: its type and, for a SEED, the seed, operation and blueprint; for a breaker, the state."""

    command_type: int
    reason: str | None = None  # the proposal's own reason, where it has one
    operation: int = pb.SEED_OP_UNKNOWN
    seed: Seed | None = None
    blueprint_id: str = ""
    breaker_state: int = pb.CIRCUIT_STATE_UNKNOWN
    lr_delta: float = 0.0


SEED, OPTIMIZER = pb.COMMAND_SEED, pb.COMMAND_OPTIMIZER
BREAKER, STOP = pb.COMMAND_CIRCUIT_BREAKER, pb.COMMAND_PAUSE

POLICY_ACTIONS: dict[int, tuple[int, int]] = {
    # class: (command type, the breaker state or seed operation that goes with it, 0 where the stage decides)
    0: (SEED, pb.SEED_OP_UNKNOWN),
    1: (OPTIMIZER, 0),
    2: (STOP, 0),
    3: (BREAKER, pb.CIRCUIT_STATE_OPEN),
    4: (BREAKER, pb.CIRCUIT_STATE_CLOSED),
    5: (SEED, pb.SEED_OP_CULL),
}
"""Classes of the action head; the rest are reserved and ask for a PAUSE."""

RANKS = {"seed": 0, "optimizer": 1, "cull": 1, "breaker": 2, "pause": 3}
"""How restrictive each kind of command is."""

_RANK_NAMES: dict[int, str] = {OPTIMIZER: "optimizer", BREAKER: "breaker", STOP: "pause"}
_EFFECT_RANK = {NOTHING: -1, DOWNGRADE: RANKS["optimizer"], PAUSE: RANKS["pause"]}
_EFFECT_COMMAND = {DOWNGRADE: OPTIMIZER, PAUSE: STOP}


def rank(intent: Intent) -> int:
    """How restrictive a command is, as `RANKS` orders them."""
    if intent.command_type == SEED:
        return RANKS["cull" if intent.operation == pb.SEED_OP_CULL else "seed"]
    return RANKS[_RANK_NAMES[intent.command_type]]


def intend(state: Standing, inputs: Inputs) -> Intent:
    """What the step would do if no row triggered."""
    proposal, choice = inputs.proposal, inputs.choice
    if proposal is None or choice is None:
        return Intent(STOP, reason=_skip_reason(inputs.inference))
    command_type, detail = POLICY_ACTIONS.get(choice.action, (STOP, -1))
    if command_type == SEED:
        return _seed_intent(state, inputs, inputs.observation.seeds[proposal.seed_index], detail)
    if command_type == OPTIMIZER:
        return Intent(OPTIMIZER, lr_delta=proposal.param_deltas[1])
    if command_type == BREAKER:
        return Intent(BREAKER, breaker_state=detail)
    return Intent(STOP, reason="policy_reserved_action" if detail == -1 else None)


def _skip_reason(inference: Inference) -> str | None:
    if isinstance(inference, journal.InferenceSkipped) and inference.cause == "no_seed_candidates":
        return inference.cause
    return None


def _seed_intent(state: Standing, inputs: Inputs, seed: Seed, detail: int) -> Intent:
    operation = detail or OPERATION_BY_STAGE[seed.stage]
    blueprint_id = _blueprint_for(state, inputs, seed, operation)
    if operation == pb.SEED_OP_GERMINATE and not blueprint_id:
        # There is nothing to grow. Where the library is late or failing, its own row names the reason.
        return Intent(STOP, reason=None if inputs.metadata_faults else "no_blueprint_candidates")
    return Intent(SEED, operation=operation, seed=seed, blueprint_id=blueprint_id)


def _blueprint_for(state: Standing, inputs: Inputs, seed: Seed, operation: int) -> str:
    """GERMINATE takes the best-scored candidate; any other operation what the seed grew from, or the host's own."""
    assert inputs.proposal is not None  # noqa: S101  only a proposal leads here
    if operation == pb.SEED_OP_GERMINATE:
        index = inputs.proposal.blueprint_index
        return inputs.graph.blueprints[index].blueprint_id if index >= 0 else ""
    return state.blueprint_of(seed.seed_id) or inputs.graph.host_blueprint_id


def restrict(intent: Intent, rows: Sequence[Triggered]) -> Intent:
    """The most restrictive of the proposal and what the rows ask for; a changed command carries nothing over."""
    if not rows:
        return intent
    asked = max([_EFFECT_RANK[triggered.row.asks] for triggered in rows])
    if asked <= rank(intent):
        return intent
    if asked == RANKS["pause"]:
        return Intent(STOP)
    return Intent(OPTIMIZER, lr_delta=0.0)


def reason_of(intent: Intent, final: Intent, rows: Sequence[Triggered]) -> str:
    """The one reason a command names; the journal holds every row that had a say."""
    if not rows:
        return intent.reason if intent.reason is not None else "policy"
    asking = [t for t in rows if _EFFECT_COMMAND.get(t.row.asks) == final.command_type]
    if asking:
        return _most_severe(asking)
    if intent.reason is not None:
        return intent.reason
    warning = pb.TELEMETRY_LEVEL_WARNING
    silent = [t for t in rows if t.row.asks == NOTHING and t.row.level >= warning]
    return _most_severe(silent) if silent else "policy"


def _most_severe(rows: Sequence[Triggered]) -> str:
    """The highest level; among those the first of the table."""
    return max(rows, key=lambda triggered: triggered.row.level).row.reason
