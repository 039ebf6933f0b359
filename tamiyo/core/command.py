"""The unsigned command: type, payload and annotations, from what was decided."""

from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from uuid import UUID, uuid5

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blend import blend_notes
from tamiyo.core.blueprint import Blueprint
from tamiyo.core.choice import Choice
from tamiyo.core.coverage import Coverage
from tamiyo.core.inputs import Inputs
from tamiyo.core.intent import Intent
from tamiyo.core.observation import Observation
from tamiyo.core.options import Options
from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.core.signals import packet_signals
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["command_bytes", "safe_pause", "unsigned_command"]

ISSUED_BY = "tamiyo"
VERSION = 1
NS_PER_S = 1_000_000_000
BEGINNINGS_REMEMBERED = 256


def command_bytes(command: pb.AdaptationCommand) -> bytes:
    """The deterministic form: fields by number, map keys sorted. What is journaled is what is signed."""
    return command.SerializeToString(deterministic=True)


def unsigned_command(
    inputs: Inputs,
    final: Intent,
    proposed: Intent,
    reason: str,
    named: Blueprint | None,
    covered: Coverage,
    options: Options,
) -> pb.AdaptationCommand:
    """Build the command of a decision. `named` is the blueprint that the proposal names, where it is known."""
    received, choice = inputs.received, inputs.choice
    command = pb.AdaptationCommand()
    command.CopyFrom(_begun(covered, named, inputs.policy_version, choice.method if choice is not None else -1))
    _fill_shell(command, received.decision_id, received.received_unix_ns, final.command_type, received.budget_ms)
    _fill(command, final, choice, reason)
    notes = command.annotations
    notes["risk_reason"] = reason
    if choice is not None:
        _annotate_choice(notes, choice)
    else:
        timed_out = isinstance(inputs.inference, journal.InferenceTimedOut)
        _annotate(notes, _no_proposal_notes("timeout" if timed_out else "none"))
    if proposed.seed is not None:
        notes["selected_seed"] = proposed.seed.seed_id
        notes["selected_blueprint"] = proposed.blueprint_id
    if options.blend_mode_annotations and choice is not None:
        _annotate(notes, blend_notes(final, choice.alpha, options))
    return command


def safe_pause(
    observation: Observation, decision_id: str, received_unix_ns: int, cause: str, *, budget_ms: int
) -> pb.AdaptationCommand:
    """The PAUSE that may be released without a durable record: a pure function of the received packet and the cause.

    Its id is UUIDv5 of (the decision's id, cause), so that it can be recognised for what it is. The coverage it
    reports is that of the signals in the packet alone: no graph stands behind it.
    """
    command = pb.AdaptationCommand(version=VERSION, issued_by=ISSUED_BY)
    _fill_shell(command, str(uuid5(UUID(decision_id), cause)), received_unix_ns, pb.COMMAND_PAUSE, budget_ms)
    covered = Coverage.of(_packet_counts(observation))
    action = "timeout" if cause.startswith("timeout") else "none"
    command.annotations.update({"policy_version": "none", "risk_reason": cause, **covered.annotations})
    command.annotations.update(_no_proposal_notes(action))
    return command


def _packet_counts(observation: Observation) -> list[tuple[str, str, int, int]]:
    present = packet_signals(observation)
    names = (
        "training_loss",
        "validation_loss",
        "loss",
        "gradient_norm",
        "hook_latency_ms",
        "step_latency_ms",
    )
    return [("packet", name, int(name in present), 1) for name in names]


def _fill_shell(
    command: pb.AdaptationCommand, command_id: str, issued_unix_ns: int, command_type: int, budget_ms: int
) -> None:
    command.command_id = command_id
    command.command_type = command_type  # type: ignore[assignment]  # from the tables, a Leyline value
    issued_at = command.issued_at
    issued_at.seconds, issued_at.nanos = divmod(issued_unix_ns, NS_PER_S)
    command.execution_deadline_ms = budget_ms


def _fill(command: pb.AdaptationCommand, final: Intent, choice: Choice | None, reason: str) -> None:
    """The payload of the command's type."""
    if final.command_type == pb.COMMAND_SEED:
        _fill_seed(command, final, choice)
    elif final.command_type == pb.COMMAND_OPTIMIZER:
        command.optimizer_adjustment.hyperparameters["lr_delta"] = final.lr_delta
    elif final.command_type == pb.COMMAND_CIRCUIT_BREAKER:
        command.circuit_breaker.desired_state = final.breaker_state  # type: ignore[assignment]  # from the table, a Leyline value
        command.circuit_breaker.rationale = reason


def _fill_seed(command: pb.AdaptationCommand, final: Intent, choice: Choice | None) -> None:
    assert final.seed is not None  # noqa: S101  a SEED intent is made from a seed
    assert choice is not None  # noqa: S101  and from a proposal
    command.target_seed_id = final.seed.seed_id
    seed_operation = command.seed_operation
    seed_operation.operation = final.operation  # type: ignore[assignment]  # from the lifecycle table, a Leyline value
    seed_operation.blueprint_id = final.blueprint_id
    parameters = seed_operation.parameters
    parameters["alpha"] = choice.alpha
    parameters["blending_method_index"] = choice.method
    parameters["blending_schedule_start"] = choice.schedule_start
    parameters["blending_schedule_end"] = choice.schedule_end


def _annotate(annotations: MutableMapping[str, str], notes: Mapping[str, str]) -> None:
    """One entry after the other: twice as fast as `update` on protobuf's map."""
    for name, text in notes.items():
        annotations[name] = text


def _annotate_choice(notes: MutableMapping[str, str], choice: Choice) -> None:
    notes["policy_action"] = str(choice.action)
    notes["policy_param_delta"] = f"{choice.param_delta:.6f}"
    notes["policy_value_estimate"] = f"{choice.value:.6f}"
    notes["policy_risk_index"] = str(choice.risk_index)
    notes["policy_risk_score"] = f"{choice.risk_score:.6f}"


def _no_proposal_notes(action: str) -> dict[str, str]:
    """What a command says of the policy where the policy said nothing."""
    return {
        "policy_action": action,
        "policy_param_delta": "0.000000",
        "policy_value_estimate": "0.000000",
        "policy_risk_index": "0",
        "policy_risk_score": "0.000000",
        "blending_method": BLENDING_METHODS[0],
        "blending_method_index": "0",
    }


@lru_cache(maxsize=BEGINNINGS_REMEMBERED)
def _begun(covered: Coverage, named: Blueprint | None, policy_version: str, method: int) -> pb.AdaptationCommand:
    """What hardly ever changes from command to command. The message is shared: copied, and never written to.

    `method` is the blending method of a proposal, -1 where there is none.
    """
    command = pb.AdaptationCommand(version=VERSION, issued_by=ISSUED_BY)
    notes = command.annotations
    notes["policy_version"] = policy_version
    _annotate(notes, covered.annotations)
    if named is not None:
        _annotate(notes, _blueprint_notes(named))
    if method >= 0:
        notes["blending_method"] = BLENDING_METHODS[method]
        notes["blending_method_index"] = str(method)
        notes["blending_schedule_units"] = "fraction_0_1"
    return command


def _blueprint_notes(named: Blueprint) -> Mapping[str, str]:
    notes = {
        "blueprint_tier": str(named.tier),
        "blueprint_stage": str(named.stage),
        "blueprint_risk": f"{named.risk:.6f}",
    }
    if named.sheet is not None:
        notes["bsds_risk_score"] = f"{named.sheet.risk_score:.6f}"
        notes["bsds_hazard_band"] = str(named.sheet.hazard_band)
        notes["bsds_handling_class"] = str(named.sheet.handling_class)
        notes["bsds_resource_profile"] = str(named.sheet.resource_profile)
        notes["bsds_provenance"] = str(named.sheet.provenance)
    return notes
