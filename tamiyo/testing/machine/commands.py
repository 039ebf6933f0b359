"""What every command must be and carry, stated apart from the code that makes it."""

from uuid import UUID, uuid5

from tamiyo.core.proposal import BLENDING_METHODS
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.testing.machine.law import require

__all__ = ["ANNOTATIONS", "SAFE_CAUSES", "check_command", "is_bare", "restrictiveness", "safe_id", "unsigned"]

ANNOTATIONS = (
    "policy_version", "policy_action", "policy_param_delta", "policy_value_estimate", "policy_risk_index",
    "policy_risk_score", "risk_reason", "feature_coverage", "coverage_types", "coverage_map", "blending_method",
    "blending_method_index", "signature",
)  # fmt: skip
"""On every command."""
SAFE_CAUSES = ("timeout_wal", "log_full", "log_failed")
"""Why a PAUSE may leave without a durable record."""
PAYLOADS = {
    pb.COMMAND_SEED: "seed_operation",
    pb.COMMAND_OPTIMIZER: "optimizer_adjustment",
    pb.COMMAND_CIRCUIT_BREAKER: "circuit_breaker",
    pb.COMMAND_PAUSE: None,
}
RANKS = {pb.COMMAND_OPTIMIZER: 1, pb.COMMAND_CIRCUIT_BREAKER: 2, pb.COMMAND_PAUSE: 3}
SEED_PARAMETERS = {"alpha", "blending_method_index", "blending_schedule_start", "blending_schedule_end"}


def restrictiveness(command: pb.AdaptationCommand) -> int:
    """SEED 0 < OPTIMIZER = CULL 1 < CIRCUIT_BREAKER 2 < PAUSE 3."""
    if command.command_type == pb.COMMAND_SEED:
        return int(command.seed_operation.operation == pb.SEED_OP_CULL)
    return RANKS[command.command_type]


def unsigned(command: pb.AdaptationCommand) -> bytes:
    """The command without its signature, in the deterministic form that is journaled and signed."""
    bare = pb.AdaptationCommand()
    bare.CopyFrom(command)
    bare.annotations.pop("signature", None)
    return bare.SerializeToString(deterministic=True)


def is_bare(command: pb.AdaptationCommand) -> bool:
    """Whether it is a PAUSE that could be the safe one."""
    bare = command.command_type == pb.COMMAND_PAUSE and command.WhichOneof("payload") is None
    return bare and command.annotations["risk_reason"] in SAFE_CAUSES


def safe_id(decision_id: str, cause: str) -> str:
    """The id of the safe PAUSE of a step: UUIDv5 of (the decision's id, cause)."""
    return str(uuid5(UUID(decision_id), cause))


def check_command(command: pb.AdaptationCommand) -> None:
    """Raise `LawBroken` where a command lacks something, has something left over, or has a value out of range."""
    notes = command.annotations
    missing = [name for name in ANNOTATIONS if name not in notes]
    require(not missing, "every command carries its annotations", missing)
    require(bool(notes["risk_reason"]), "every command names its reason", command)
    require(bool(command.command_id) and command.HasField("issued_at"), "every command has an id and a time", command)
    kind, payload = command.command_type, command.WhichOneof("payload")
    require(kind in PAYLOADS and PAYLOADS[kind] == payload, "a command's payload is that of its type", command)
    is_seed = kind == pb.COMMAND_SEED
    require(is_seed == bool(command.target_seed_id), "a command names a seed where it is for one", command)
    if is_seed:
        _check_seed(command)
    if notes["policy_action"] == "timeout":
        require(kind == pb.COMMAND_PAUSE, "a timeout is a PAUSE", command)


def _check_seed(command: pb.AdaptationCommand) -> None:
    law = "a SEED command's parameters are all there and in range"
    given = command.seed_operation.parameters
    require(set(given) == SEED_PARAMETERS, law, dict(given))
    start, end = given["blending_schedule_start"], given["blending_schedule_end"]
    require(0.0 <= given["alpha"] <= 1.0 and 0.0 <= start <= end <= 1.0, law, dict(given))
    require(given["blending_method_index"] in range(len(BLENDING_METHODS)), law, dict(given))
    notes = command.annotations
    index = int(given["blending_method_index"])
    same = notes["blending_method"] == BLENDING_METHODS[index] and notes["blending_method_index"] == str(index)
    require(same and notes["blending_schedule_units"] == "fraction_0_1", law, dict(notes))
