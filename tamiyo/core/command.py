"""The unsigned command: type, payload and annotations, from what was decided."""

from collections.abc import Mapping
from uuid import UUID, uuid5

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.blueprint import Blueprint
from tamiyo.core.coverage import Coverage
from tamiyo.core.inputs import Inputs
from tamiyo.core.intent import Intent
from tamiyo.core.observation import Observation
from tamiyo.core.proposal import BLENDING_METHODS, Proposal, argmax
from tamiyo.core.signals import packet_signals, policy_risk_score
from tamiyo.leyline import leyline_pb2 as pb

__all__ = ["blending", "command_bytes", "param_delta", "safe_pause", "unsigned_command"]

ISSUED_BY = "tamiyo"
VERSION = 1


def command_bytes(command: pb.AdaptationCommand) -> bytes:
    """The deterministic form: fields by number, map keys sorted. What is journaled is what is signed."""
    return command.SerializeToString(deterministic=True)


def unsigned_command(
    inputs: Inputs, final: Intent, proposed: Intent, reason: str, named: Blueprint | None, covered: Coverage
) -> pb.AdaptationCommand:
    """Build the command of a decision. `named` is the blueprint that the proposal names, where it is known."""
    command = _shell(inputs.received.decision_id, inputs.received.received_unix_ns, final.command_type)
    command.execution_deadline_ms = inputs.received.budget_ms
    if final.command_type == pb.COMMAND_SEED:
        _fill_seed(command, final, inputs.proposal)
    elif final.command_type == pb.COMMAND_OPTIMIZER:
        command.optimizer_adjustment.hyperparameters["lr_delta"] = final.lr_delta
    elif final.command_type == pb.COMMAND_CIRCUIT_BREAKER:
        command.circuit_breaker.desired_state = final.breaker_state  # type: ignore[assignment]  # from the table, a Leyline value
        command.circuit_breaker.rationale = reason
    command.annotations.update(_annotations(inputs, proposed, reason, named, covered))
    return command


def safe_pause(observation: Observation, decision_id: str, received_unix_ns: int, cause: str) -> pb.AdaptationCommand:
    """The PAUSE that may be released without a durable record: a pure function of the received packet and the cause.

    Its id is UUIDv5 of (the decision's id, cause), so that it can be recognised for what it is. The coverage it
    reports is that of the signals in the packet alone: no graph stands behind it.
    """
    command = _shell(str(uuid5(UUID(decision_id), cause)), received_unix_ns, pb.COMMAND_PAUSE)
    covered = Coverage.of(_packet_counts(observation))
    action = "timeout" if cause.startswith("timeout") else "none"
    command.annotations.update({"policy_version": "none", "risk_reason": cause, **covered.annotations()})
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


def _shell(command_id: str, issued_unix_ns: int, command_type: int) -> pb.AdaptationCommand:
    command = pb.AdaptationCommand(version=VERSION, command_id=command_id, issued_by=ISSUED_BY)
    command.command_type = command_type  # type: ignore[assignment]  # from the tables, a Leyline value
    command.issued_at.FromNanoseconds(issued_unix_ns)
    return command


def _fill_seed(command: pb.AdaptationCommand, final: Intent, proposal: Proposal | None) -> None:
    assert final.seed is not None  # noqa: S101  a SEED intent is made from a seed
    assert proposal is not None  # noqa: S101  and from a proposal
    method, alpha, start, end = blending(proposal)
    command.target_seed_id = final.seed.seed_id
    seed_operation = command.seed_operation
    seed_operation.operation = final.operation  # type: ignore[assignment]  # from the lifecycle table, a Leyline value
    seed_operation.blueprint_id = final.blueprint_id
    seed_operation.parameters["alpha"] = alpha
    seed_operation.parameters["blending_method_index"] = method
    seed_operation.parameters["blending_schedule_start"] = start
    seed_operation.parameters["blending_schedule_end"] = end


def blending(proposal: Proposal) -> tuple[int, float, float, float]:
    """(method index, alpha, schedule start, schedule end) of a proposal; the last three from 0 to 1."""
    start, end = sorted(min(max((x + 1.0) / 2.0, 0.0), 1.0) for x in proposal.schedule)
    alpha = min(max(0.1 + proposal.param_deltas[0], 0.0), 1.0)
    return argmax(proposal.blending_method), alpha, start, end


def param_delta(proposal: Proposal) -> float:
    """The parameter output that the proposed action uses: p1 for OPTIMIZER, else p0."""
    return proposal.param_deltas[1 if argmax(proposal.action) == 1 else 0]


def _annotations(
    inputs: Inputs, proposed: Intent, reason: str, named: Blueprint | None, covered: Coverage
) -> dict[str, str]:
    notes = {
        "policy_version": inputs.inference.identity.version,
        "risk_reason": reason,
        **covered.annotations(),
    }
    notes.update(_proposal_notes(inputs))
    if proposed.seed is not None:
        notes["selected_seed"] = proposed.seed.seed_id
        notes["selected_blueprint"] = proposed.blueprint_id
    if named is not None:
        notes.update(_blueprint_notes(named))
    return notes


def _proposal_notes(inputs: Inputs) -> Mapping[str, str]:
    proposal = inputs.proposal
    if proposal is None:
        timed_out = isinstance(inputs.inference, journal.InferenceTimedOut)
        return _no_proposal_notes("timeout" if timed_out else "none")
    method, _, _, _ = blending(proposal)
    return {
        "policy_action": str(argmax(proposal.action)),
        "policy_param_delta": f"{param_delta(proposal):.6f}",
        "policy_value_estimate": f"{proposal.value:.6f}",
        "policy_risk_index": str(argmax(proposal.risk)),
        "policy_risk_score": f"{policy_risk_score(proposal):.6f}",
        "blending_method": BLENDING_METHODS[method],
        "blending_method_index": str(method),
        "blending_schedule_units": "fraction_0_1",
    }


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
