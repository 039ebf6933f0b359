"""What an update must be before a policy desk takes it: signed, whole, fresh, and good for an answer.

Each function asks one thing, and raises `Refused` with one of `tamiyo.core.policies.REASONS` where it is not so.
"""

import hmac

from google.protobuf.message import DecodeError, EncodeError, Message

from tamiyo import signing
from tamiyo.core.blueprint import unobserved
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import read_packet
from tamiyo.core.policies import UPDATE_VERSION
from tamiyo.core.proposal import malformation
from tamiyo.core.registries import Registries
from tamiyo.core.state import State
from tamiyo.errors import CheckpointRejected
from tamiyo.graph import BlueprintInput, Graph, GraphBuilder
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.store import CHECKPOINT_MAX_BYTES
from tamiyo.speakers import Load, Speaker
from tamiyo.words import printable
from tamiyo.workers import in_words

__all__ = [
    "UPDATE_MAX_BYTES",
    "Refused",
    "issued_unix_ns",
    "parsed",
    "require_fresh",
    "require_newer",
    "require_signature",
    "require_version",
    "tried_out",
    "update_bytes",
    "updates_after_unix_ns",
]

UPDATE_MAX_BYTES = CHECKPOINT_MAX_BYTES + 2**16  # a checkpoint, and what the message adds
FUTURE_TOLERANCE_NS = 5 * 10**9  # as a verifier of commands has it
TRIES = 2
"""The second is as steps will see it: what a first call allocates or compiles is there."""


class Refused(Exception):
    """An update is refused for `reason`; `detail` may be journaled."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = printable(detail)


def update_bytes(update: object) -> bytes:
    """A `PolicyUpdate`'s bytes, of our bindings or others, or the bytes that were given."""
    if not isinstance(update, Message | bytes | bytearray | memoryview):
        raise Refused("invalid_payload", f"a {type(update).__name__} is no PolicyUpdate, and not its bytes")
    try:
        if isinstance(update, Message):
            return update.SerializeToString(deterministic=True)
        data = bytes(update)
    except (EncodeError, ValueError) as error:
        raise Refused("invalid_payload", f"a {type(update).__name__} gives no bytes: {error}") from error
    if len(data) > UPDATE_MAX_BYTES:
        raise Refused("invalid_payload", f"it has {len(data)} bytes, more than {UPDATE_MAX_BYTES}")
    return data


def require_signature(data: bytes, signature: object, key: bytes) -> None:
    """Nothing of an update is looked at before this: `key` is the controller's."""
    given = signature.encode("utf-8", "replace") if isinstance(signature, str) else b""
    expected = signing.update_signature(data, key)
    if not key or not hmac.compare_digest(expected.encode(), given):
        raise Refused("invalid_signature", "it is not signed with the key of this controller")


def parsed(data: bytes) -> pb.PolicyUpdate:
    """The update that these bytes are."""
    try:
        update = pb.PolicyUpdate.FromString(data)
    except DecodeError as error:
        raise Refused("invalid_payload", f"its {len(data)} bytes are no PolicyUpdate: {error}") from error
    if update.version != UPDATE_VERSION:
        raise Refused("version_mismatch", f"it is of version {update.version}, not {UPDATE_VERSION}")
    if not update.policy_id:
        raise Refused("invalid_payload", "it has no policy_id")
    return update


def issued_unix_ns(update: pb.PolicyUpdate) -> int:
    """When it was issued, 0 where it does not say."""
    return update.issued_at.seconds * 10**9 + update.issued_at.nanos


def require_fresh(update: pb.PolicyUpdate, *, wall_ns: int, freshness_ns: int) -> None:
    """It says when it was issued, and that is neither long ago nor in the future."""
    if not update.HasField("issued_at"):
        raise Refused("stale_update", "it does not say when it was issued")
    age_ns = wall_ns - issued_unix_ns(update)
    if age_ns > freshness_ns:
        limit_s = freshness_ns / 1e9
        raise Refused("stale_update", f"it is {age_ns / 1e9:.0f} s old, and TAMIYO_UPDATE_FRESHNESS_SEC is {limit_s:g}")
    if -age_ns > FUTURE_TOLERANCE_NS:
        raise Refused("stale_update", f"it was issued {-age_ns / 1e9:.0f} s in the future: compare the clocks")


def require_newer(state: State, issued_ns: int, *, wall_ns: int) -> None:
    """Updates are taken in the order they were issued, each once."""
    newest_ns = state.policies.issued_unix_ns
    if issued_ns > newest_ns:
        return
    detail = "it, or one that was issued later, was installed before"
    if newest_ns - wall_ns > FUTURE_TOLERANCE_NS:
        detail += (
            f", {(newest_ns - wall_ns) / 1e9:.0f} s ahead of this clock: if a clock stood ahead then, let an operator "
            "install another checkpoint or roll back, and updates issued since are taken"
        )
    raise Refused("stale_update", detail)


def updates_after_unix_ns(state: State, *, wall_ns: int) -> int:
    """From when on updates are to be taken once an operator has acted; 0 where none was issued ahead of the clock.

    Only an operator can say which clock is wrong: that of then, or that of now, behind which old updates look new.
    """
    return wall_ns if state.policies.issued_unix_ns - wall_ns > FUTURE_TOLERANCE_NS else 0


def require_version(update: pb.PolicyUpdate, version: str) -> None:
    """It says of its payload what that says of itself."""
    if update.tamiyo_policy_version != version:
        said = printable(update.tamiyo_policy_version, 80)
        raise Refused("version_mismatch", f"it says {said!r} and carries {version!r}")


def tried_out(load: Load, data: bytes, name: str, registries: Registries) -> Speaker:
    """Load a checkpoint, and see it answer: what comes with a file is somebody else's."""
    try:
        policy = load(data, name, registries)
        identity = policy.identity
    except CheckpointRejected as rejected:
        raise Refused(rejected.reason, str(rejected)) from rejected
    except Exception as error:  # a file that nobody foresaw is refused as well, and its caller is not to fall over
        raise Refused("invalid_payload", f"loading it raised {in_words(error)}") from error
    graph, packet = _example(registries)
    for _ in range(TRIES):
        try:
            proposal = policy.propose(graph)
        except Exception as error:  # whatever it raises, in a step it would raise again
            raise Refused("invalid_payload", f"tried out, it raised {in_words(error)}") from error
        fault = malformation(proposal, read_packet(packet, UNLIMITED), 1)
        if fault is not None:
            raise Refused("invalid_payload", f"tried out, it proposed what is none: {fault}")
    return Speaker(policy, identity)


def _example(registries: Registries) -> tuple[Graph, bytes]:
    """A small graph with one candidate: enough for each part of a policy to be run once."""
    packet = pb.SystemStatePacket(version=1, training_run_id="try-out")
    packet.seed_states.add(seed_id="try-out", stage=pb.SEED_STAGE_TRAINING)
    data = packet.SerializeToString()
    inputs = [BlueprintInput(unobserved("try-out"), {})]
    graph = GraphBuilder().build(read_packet(data, UNLIMITED), norms=PRIORS, registries=registries, blueprints=inputs)
    return graph, data
