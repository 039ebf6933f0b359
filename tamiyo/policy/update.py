"""A learner's side of a policy update: a checkpoint as a `PolicyUpdate`, signed as commands are."""

from pathlib import Path

from tamiyo.core.policies import UPDATE_VERSION
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.checkpoint import parse_checkpoint

__all__ = ["policy_update"]


def policy_update(data: bytes, *, policy_id: str, issued_unix_ns: int, training_run_id: str = "") -> pb.PolicyUpdate:
    """The update that carries a checkpoint; `tamiyo.signing.sign_update` signs it.

    Args:
        data: of `tamiyo.policy.checkpoint.checkpoint_bytes`.
        policy_id: names this update among all others.
        issued_unix_ns: wall clock; later than that of every update before it, or a service calls it stale.
        training_run_id: of the run that it was learned from.

    Raises:
        CheckpointRejected: the bytes are no checkpoint.
    """
    update = pb.PolicyUpdate(
        version=UPDATE_VERSION,
        policy_id=policy_id,
        training_run_id=training_run_id,
        tamiyo_policy_version=parse_checkpoint(data, Path(policy_id)).version,
        payload=data,
    )
    update.issued_at.FromNanoseconds(issued_unix_ns)
    return update
