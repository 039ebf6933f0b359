"""Which policy speaks: updates that were installed or refused, and the way back.

    ServiceOpened ──▶ the policy that it names speaks
    PolicyInstalled ─▶ the new one speaks, on probation until it has proposed `PROBATION_PROPOSALS` times
    PolicyRolledBack ▶ the one from before it speaks, or the baseline

Rule 1: a step is answered by the policy that was in force when its packet was received, so that a step that is under
        way when another is installed keeps its own.
Rule 2: what an update must be in a log (its registries, its time) is asked when it is folded: no service can record
        an installation that the log itself speaks against.
Rule 3: on probation one proposal that raises or is malformed is one too many, and so is an inference breaker that
        opens: the same defect would only come back, and every step meanwhile is a PAUSE.
"""

from collections.abc import Mapping
from dataclasses import replace

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import OPEN
from tamiyo.core.draft import Draft, Standing
from tamiyo.core.registries import CAPACITIES, RegistryStamp, additions, extended, require_stamp
from tamiyo.core.state import InstalledPolicy, Policies
from tamiyo.errors import RegistryConflict

__all__ = [
    "CAUSES",
    "CHECKPOINT_MISSING",
    "INSTALL_REASONS",
    "PROBATION_PROPOSALS",
    "REASONS",
    "UPDATE_VERSION",
    "failed_probation",
    "inference_failed",
    "inference_observed",
    "policy_installed",
    "policy_rejected",
    "policy_rolled_back",
    "registry_imported",
]

UPDATE_VERSION = 1
"""Of the `PolicyUpdate` message; another is refused."""

PROBATION_PROPOSALS = 3
"""As many as a breaker takes failures before it opens."""

REASONS = (
    "invalid_signature", "version_mismatch", "stale_update", "invalid_payload", "shape_mismatch", "registry_mismatch",
)  # fmt: skip
"""Why an update is refused."""
CHECKPOINT_MISSING = "checkpoint_missing"
INSTALL_REASONS = (*REASONS, CHECKPOINT_MISSING)
"""The same, and why the installed policy cannot speak when a service opens."""

CAUSES = ("operator", "inference_failed", "breaker_open")
"""What a policy is rolled back for; the last two end its probation."""


def policy_installed(draft: Draft, lsn: int, event: journal.PolicyInstalled) -> None:
    """A new policy speaks from here on."""
    held = draft.policies
    if not event.version or not event.checkpoint_digest:
        raise draft.refusal(event, "a policy has a version and the digest of its checkpoint")
    if event.version == draft.policy_version:
        raise draft.refusal(event, f"policy {event.version!r} speaks already")
    if event.issued_unix_ns and event.issued_unix_ns <= held.issued_unix_ns:
        raise draft.refusal(event, f"an update of {held.issued_unix_ns} or later was installed before")
    for stamp in event.registries:
        try:
            require_stamp(draft.registries, stamp.kind, RegistryStamp(stamp.count, stamp.digest))
        except RegistryConflict as conflict:
            raise draft.refusal(event, str(conflict)) from conflict
    if event.request_id and event.request_id in draft.directives:
        raise draft.refusal(event, f"request {event.request_id} was taken up before")
    _require_earlier(draft, event)
    proven = held.current is not None and not held.proposals_left
    before = held.current if proven else held.previous
    draft.policies = replace(
        held,
        current=InstalledPolicy(event.version, event.checkpoint_digest, event.policy_id, lsn),
        previous=None if before is None or before.version == event.version else before,  # nobody goes back to itself
        issued_unix_ns=event.updates_after_unix_ns or max(held.issued_unix_ns, event.issued_unix_ns),
        proposals_left=PROBATION_PROPOSALS,
        failures=0,
    )
    draft.policy_version = event.version
    draft.note_request(event.request_id)
    draft.advance(event.event_time_ns)


def policy_rejected(draft: Draft, _: int, event: journal.PolicyRejected) -> None:
    """An update was refused; whoever speaks goes on."""
    if event.reason not in INSTALL_REASONS:
        raise draft.refusal(event, f"there is no reason {event.reason!r}")
    draft.advance(event.event_time_ns)


def policy_rolled_back(draft: Draft, _: int, event: journal.PolicyRolledBack) -> None:
    """The policy from before speaks again, or one that needs no checkpoint."""
    held = draft.policies
    if event.from_version != draft.policy_version or event.version in ("", draft.policy_version):
        raise draft.refusal(event, f"policy {draft.policy_version!r} speaks, not {event.from_version!r}")
    if event.cause not in CAUSES:
        raise draft.refusal(event, f"there is no cause {event.cause!r}")
    if event.cause != "operator" and failed_probation(draft) != event.cause:
        raise draft.refusal(event, f"policy {event.from_version!r} has not failed its probation so")
    if event.request_id and event.request_id in draft.directives:
        raise draft.refusal(event, f"request {event.request_id} was taken up before")
    back = held.previous
    if event.checkpoint_digest and (back is None or back.checkpoint_digest != event.checkpoint_digest):
        raise draft.refusal(event, f"checkpoint {event.checkpoint_digest[:12]!r} is not that of the policy before")
    _require_earlier(draft, event)
    draft.policies = replace(
        held,
        current=back if event.checkpoint_digest else None,
        previous=None,
        issued_unix_ns=event.updates_after_unix_ns or held.issued_unix_ns,
        proposals_left=0,
        failures=0,
    )
    draft.policy_version = event.version
    draft.note_request(event.request_id)
    draft.advance(event.event_time_ns)


def _require_earlier(draft: Draft, event: journal.PolicyInstalled | journal.PolicyRolledBack) -> None:
    """An operator may set back when the newest update was issued, where a clock had stood ahead; nobody else."""
    after_ns = event.updates_after_unix_ns
    if after_ns and not (event.operator and 0 < after_ns < draft.policies.issued_unix_ns):
        raise draft.refusal(event, "only an operator sets back when the newest update was issued")


def inference_observed(draft: Draft, _: int, event: journal.InferenceObserved) -> None:
    """A policy on probation made a proposal."""
    held = draft.policies
    if _is_on_probation(held, event.identity.version) and not held.failures:
        draft.policies = replace(held, proposals_left=held.proposals_left - 1)


def inference_failed(draft: Draft, _: int, event: journal.InferenceFailed) -> None:
    """A policy on probation raised, or answered what is no proposal."""
    held = draft.policies
    if _is_on_probation(held, event.identity.version) and event.attempted:
        draft.policies = replace(held, failures=held.failures + 1)


def _is_on_probation(held: Policies, version: str) -> bool:
    """Not so for a policy of the host's own, or the baseline, that speaks in an installed one's place."""
    return bool(held.proposals_left) and held.current is not None and held.current.version == version


def failed_probation(state: Standing) -> str:
    """Why the policy on probation is to be rolled back, one of `CAUSES`; "" where it is not."""
    held = state.policies
    if not held.proposals_left or held.current is None or held.current.version != state.policy_version:
        return ""
    if held.failures:
        return "inference_failed"
    return "breaker_open" if state.breakers["inference"].state == OPEN else ""


def registry_imported(draft: Draft, _: int, event: journal.RegistryImported) -> None:
    """An operator brought names that another system numbered."""
    found: Mapping[str, int] = {key: event.first_index + place for place, key in enumerate(event.keys)}
    live = draft.registries.get(event.kind, {})
    try:
        fresh = additions(draft.registries, event.kind, {**live, **found})
    except RegistryConflict as conflict:
        raise draft.refusal(event, str(conflict)) from conflict
    if fresh != list(event.keys) or len(live) + len(fresh) > CAPACITIES[event.kind]:
        raise draft.refusal(event, f"its {len(event.keys)} names cannot follow {len(live)} in {event.kind}")
    draft.registries = extended(draft.registries, {event.kind: fresh})
    draft.advance(event.event_time_ns)
