"""The state as a record: what a log whose beginning was pruned is read from, and what a snapshot file holds.

Rule 1: `state_of(state_message(state))` is that state, to the bit; its digest proves it wherever it is read.
Rule 2: a field that an older base lacks reads as that of an empty log, so a base of any release stays readable.
Rule 3: maps are written in their own order, because which entry is the oldest decides which one goes first.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import require_known
from tamiyo.core.blueprint import Blueprint, SafetySheet
from tamiyo.core.breakers import BREAKERS, Breaker
from tamiyo.core.layout import read_layout
from tamiyo.core.norms import PRIORS, Norm
from tamiyo.core.options import Options
from tamiyo.core.paced import Pace, paced, without_rest
from tamiyo.core.registries import extended, initial
from tamiyo.core.signals import LossMemory
from tamiyo.core.state import (
    DIGEST_VERSION,
    Condition,
    Conservative,
    Deliveries,
    InstalledPolicy,
    ObservedBlueprint,
    Outbox,
    Policies,
    Retry,
    Sample,
    State,
    Unsettled,
    Window,
    Windows,
)
from tamiyo.core.thresholds import Thresholds
from tamiyo.errors import JournalUnreadable

__all__ = [
    "CHECKPOINT_STEPS",
    "CONTENTS_MAX_BYTES",
    "base_of",
    "contents_of",
    "needs_lsn",
    "read_base",
    "state_message",
    "state_of",
]

CONTENTS_MAX_BYTES = 8 << 20
"""Of blueprints' contents in one base: half of the longest record. What has no room keeps its own record alive."""
CHECKPOINT_STEPS = 1_024
"""A running service looks back at its state at every step with such a number: just after the packet was received."""

_COUNTERS = (
    "last_lsn", "event_time_ns", "log_id", "metadata_budget_ms", "policy_version", "steps_received",
    "steps_unrecorded", "decisions", "commits_late", "unsettled_report_lsn", "reports_issued",
)  # fmt: skip
"""Fields that are the same in the message and in the state."""


def base_of(
    state: State,
    contents: Mapping[str, bytes],
    event_time_ns: int,
    *,
    contents_max_bytes: int = CONTENTS_MAX_BYTES,
    digest: str = "",
    pace: Pace = without_rest,
) -> journal.StateBase:
    """The record of a state.

    Args:
        state: as it was after its `last_lsn`.
        contents: `BlueprintContent` by digest; those of the state's blueprints are taken along while there is room.
        event_time_ns: of the record.
        contents_max_bytes: how much room there is for them.
        digest: the state's, where it is known already.
        pace: called all along; a state as large as it may become takes some tenths of a second.
    """
    kept = _kept(state, contents, contents_max_bytes)
    return journal.StateBase(
        at_lsn=state.last_lsn,
        digest=digest or state.digest(pace),
        needs_lsn=needs_lsn(state, kept),
        state=state_message(state, pace),
        contents=[journal.KeptContent(digest=digest, content=content) for digest, content in kept.items()],
        event_time_ns=event_time_ns,
    )


def read_base(event: journal.StateBase, pace: Pace = without_rest) -> State:
    """The state that a base holds. A digest of another version says nothing here; then the log's own chain vouches.

    `pace` is called all along.

    Raises:
        JournalUnreadable: it is not the state that its digest names.
    """
    state = state_of(event.state)
    comparable = event.digest.partition(":")[0] == str(DIGEST_VERSION)
    found = state.digest(pace) if comparable else event.digest
    if found != event.digest or state.last_lsn != event.at_lsn:
        raise JournalUnreadable(
            f"the base of LSN {event.at_lsn} reads as a state of LSN {state.last_lsn} with digest {found}, not "
            f"{event.digest}: this version does not read it as it was written; open the log with the version that did"
        )
    return state


def contents_of(event: journal.StateBase) -> dict[str, bytes]:
    """The contents that a base brings along, by digest."""
    return {kept.digest: kept.content for kept in event.contents}


def needs_lsn(state: State, kept: Iterable[str] = ()) -> int:
    """The first record that going on from a state needs, its own at the latest.

    The next batch may say that the last commit was late, and the PAUSE for that is made from that step's packet.
    Contents that are not kept with the state are read from their records.
    """
    kept = frozenset(kept)
    needed = [state.last_lsn or 1]
    if state.unsettled is not None:
        needed.append(state.unsettled.step_lsn)
    needed += [
        seen.content_lsn
        for seen in state.blueprints.values()
        if seen.blueprint is not None and seen.blueprint.digest not in kept
    ]
    return min(needed)


def _kept(state: State, contents: Mapping[str, bytes], left: int) -> dict[str, bytes]:
    """What has room, the newest first: old contents are the likelier ones to be replaced before long."""
    kept: dict[str, bytes] = {}
    for seen in reversed(list(state.blueprints.values())):
        content = contents.get(seen.blueprint.digest) if seen.blueprint is not None else None
        if seen.blueprint is not None and content is not None and len(content) <= left:
            kept[seen.blueprint.digest] = content
            left -= len(content)
    return kept


def state_message(state: State, pace: Pace = without_rest) -> journal.BaseState:
    """A state as a message; `pace` is called all along."""
    message = journal.BaseState(**{name: getattr(state, name) for name in _COUNTERS})
    message.thresholds.update(state.thresholds.as_map())
    message.options.CopyFrom(state.options.message())
    message.behaviour_flags.extend(state.behaviour_flags)
    message.undecided.extend(state.undecided)
    message.directives.extend(state.directives)
    _write_decisions(message, state)
    _write_windows(message.windows, state.windows, pace)
    _write_outbox(message, state, pace)
    _write_names(message, state, pace)
    _write_policies(message, state.policies)
    return message


def _write_decisions(message: journal.BaseState, state: State) -> None:
    if state.unsettled is not None:
        message.unsettled.CopyFrom(journal.BaseUnsettled(**state.unsettled._asdict()))
    loss = state.loss
    message.loss.CopyFrom(
        journal.BaseLoss(training_run_id=loss.training_run_id, previous=loss.previous, last=loss.last)
    )
    message.norms.extend(journal.BaseNorm(mean=norm.mean, variance=norm.variance) for norm in state.norms)
    message.breakers.extend(
        journal.BaseBreaker(
            name=name,
            state=held.state,
            failures=held.failures,
            successes=held.successes,
            moved_at_ns=held.moved_at_ns,
        )
        for name, held in state.breakers.items()
    )
    mode = state.conservative
    message.conservative.CopyFrom(
        journal.BaseConservative(
            active=mode.active,
            reason=mode.reason,
            since_ns=mode.since_ns,
            clean_steps=mode.clean_steps,
            operator=mode.operator,
        )
    )
    message.conditions.extend(
        journal.BaseCondition(
            reason=reason, level=level, since_step_index=held.since_step_index, shown_step_index=held.shown_step_index
        )
        for (reason, level), held in state.conditions.items()
    )


def _write_windows(message: journal.BaseWindows, windows: Windows, pace: Pace) -> None:
    message.expired = windows.expired
    message.open.extend(
        journal.BaseWindow(
            command_id=window.command_id,
            opened_at=window.opened_at,
            length=window.length,
            start_epoch=window.start_epoch,
            training_run_id=window.training_run_id,
            seed_id=window.seed_id,
            blueprint_id=window.blueprint_id,
            policy_version=window.policy_version,
        )
        for window in paced(windows.open, pace)
    )
    message.samples.extend(
        journal.BaseSample(
            decision=sample.decision,
            loss_delta=sample.loss_delta,
            hook_latency_ms=sample.hook_latency_ms,
            critical=sample.critical,
        )
        for sample in paced(windows.samples, pace)
    )


def _write_outbox(message: journal.BaseState, state: State, pace: Pace) -> None:
    outbox = state.outbox
    message.outbox.CopyFrom(
        journal.BaseOutbox(
            telemetry_lsn=outbox.telemetry_lsn,
            reports_lsn=outbox.reports_lsn,
            retries=[
                journal.BaseRetry(
                    report_id=report_id, report_lsn=retry.report_lsn, attempts=retry.attempts, due_ns=retry.due_ns
                )
                for report_id, retry in paced(outbox.retries.items(), pace)
            ],
            published=outbox.published,
            retried=outbox.retried,
            dropped=outbox.dropped,
            superseded=outbox.superseded,
            telemetry_dropped=outbox.telemetry_dropped,
        )
    )
    message.undelivered.extend(
        journal.BaseUndelivered(command_id=command_id, lsn=lsn)
        for command_id, lsn in paced(state.undelivered.items(), pace)
    )
    held = state.deliveries
    message.deliveries.CopyFrom(
        journal.BaseDeliveries(forgotten=held.forgotten, delivered=held.delivered, unmatched=held.unmatched)
    )


def _write_names(message: journal.BaseState, state: State, pace: Pace) -> None:
    message.registries.extend(
        journal.BaseRegistry(kind=kind, keys=sorted(keys, key=keys.__getitem__))
        for kind, keys in paced(state.registries.items(), pace)
    )
    message.layouts.extend(journal.BaseLayout(lsn=lsn, layout=layout.event()) for lsn, layout in state.layouts.items())
    message.blueprints.extend(_blueprint_message(name, seen) for name, seen in paced(state.blueprints.items(), pace))
    message.seed_blueprints.extend(
        journal.BaseSeed(seed_id=seed_id, blueprint_id=blueprint_id)
        for seed_id, blueprint_id in paced(state.seed_blueprints.items(), pace)
    )


def _write_policies(message: journal.BaseState, policies: Policies) -> None:
    message.policies.issued_unix_ns = policies.issued_unix_ns
    message.policies.proposals_left, message.policies.failures = policies.proposals_left, policies.failures
    for name in ("current", "previous"):
        held: InstalledPolicy | None = getattr(policies, name)
        if held is not None:
            written = journal.BaseInstalledPolicy(**{part: getattr(held, part) for part in held.__slots__})
            getattr(message.policies, name).CopyFrom(written)


def _blueprint_message(blueprint_id: str, seen: ObservedBlueprint) -> journal.BaseBlueprint:
    message = journal.BaseBlueprint(
        blueprint_id=blueprint_id,
        content_lsn=seen.content_lsn,
        observed_at_ns=seen.observed_at_ns,
        withdrawn=seen.withdrawn,
    )
    blueprint = seen.blueprint
    if blueprint is None:
        return message
    for name in ("digest", "tier", "stage", "descriptor_risk", "quarantine_only", "approval_required"):
        setattr(message, name, getattr(blueprint, name))
    message.allowed_parameters.extend(
        journal.BaseParameter(name=name, min=least, max=most) for name, least, most in blueprint.allowed_parameters
    )
    if blueprint.sheet is not None:
        sheet = blueprint.sheet
        message.sheet.CopyFrom(journal.BaseSheet(**{name: getattr(sheet, name) for name in sheet.__slots__}))
    return message


def state_of(message: journal.BaseState) -> State:
    """The state of a message.

    Raises:
        JournalUnreadable: what it holds is no state of this version, or of a behaviour that only a newer one knows.
    """
    require_known(message.behaviour_flags)
    try:
        return State(
            **{name: getattr(message, name) for name in _COUNTERS},
            thresholds=Thresholds.from_map(message.thresholds),
            options=_options(message),
            behaviour_flags=tuple(message.behaviour_flags),
            unsettled=_unsettled(message),
            undecided=tuple(message.undecided),
            loss=LossMemory(
                message.loss.training_run_id, _optional(message.loss, "previous"), _optional(message.loss, "last")
            ),
            norms=_norms(message),
            breakers=_breakers(message),
            conservative=Conservative(**_fields(message.conservative, Conservative)),
            conditions=MappingProxyType(
                {
                    (held.reason, held.level): Condition(held.since_step_index, held.shown_step_index)
                    for held in message.conditions
                }
            ),
            windows=_windows(message.windows),
            outbox=_outbox(message.outbox),
            undelivered=MappingProxyType({held.command_id: held.lsn for held in message.undelivered}),
            deliveries=Deliveries(**_fields(message.deliveries, Deliveries)),
            directives=tuple(message.directives),
            registries=extended(initial(), _registered(message)),
            layouts=MappingProxyType({held.lsn: read_layout(held.layout) for held in message.layouts}),
            blueprints=MappingProxyType({held.blueprint_id: _observed(held) for held in message.blueprints}),
            seed_blueprints=MappingProxyType({held.seed_id: held.blueprint_id for held in message.seed_blueprints}),
            policies=_policies(message.policies),
        )
    except (KeyError, ValueError) as error:
        raise JournalUnreadable(
            f"the base of LSN {message.last_lsn} holds what is no state of this version ({error}): open the log with "
            "the version that wrote it"
        ) from error


def _fields(message: object, kind: Any) -> dict[str, Any]:
    """The fields of a flat record, by its own names."""
    return {name: getattr(message, name) for name in getattr(kind, "_fields", kind.__slots__)}


def _optional(message: Any, name: str) -> float | None:
    return getattr(message, name) if message.HasField(name) else None


def _options(message: journal.BaseState) -> Options:
    opened = journal.ServiceOpened()
    if message.HasField("options"):
        opened.options.CopyFrom(message.options)
    return Options.of(opened)


def _unsettled(message: journal.BaseState) -> Unsettled | None:
    if not message.HasField("unsettled"):
        return None
    return Unsettled(**{name: getattr(message.unsettled, name) for name in Unsettled._fields})


def _norms(message: journal.BaseState) -> tuple[Norm, ...]:
    found = tuple(Norm(norm.mean, norm.variance) for norm in message.norms)
    return found + PRIORS[len(found) :]


def _breakers(message: journal.BaseState) -> Mapping[str, Breaker]:
    found = {held.name: Breaker(**_fields(held, Breaker)) for held in message.breakers}
    return MappingProxyType({name: Breaker() for name in BREAKERS} | found)


def _windows(message: journal.BaseWindows) -> Windows:
    return Windows(
        open=tuple(Window(**_fields(window, Window)) for window in message.open),
        samples=tuple(
            Sample(held.decision, held.loss_delta, _optional(held, "hook_latency_ms"), held.critical)
            for held in message.samples
        ),
        expired=message.expired,
    )


def _outbox(message: journal.BaseOutbox) -> Outbox:
    retries = {held.report_id: Retry(held.report_lsn, held.attempts, held.due_ns) for held in message.retries}
    counters = ("telemetry_lsn", "reports_lsn", "published", "retried", "dropped", "superseded", "telemetry_dropped")
    return Outbox(**{name: getattr(message, name) for name in counters}, retries=MappingProxyType(retries))


def _policies(message: journal.BasePolicies) -> Policies:
    held = {
        name: InstalledPolicy(**_fields(getattr(message, name), InstalledPolicy)) if message.HasField(name) else None
        for name in ("current", "previous")
    }
    return Policies(
        **held,
        issued_unix_ns=message.issued_unix_ns,
        proposals_left=message.proposals_left,
        failures=message.failures,
    )


def _registered(message: journal.BaseState) -> dict[str, list[str]]:
    """The names past those that every log begins with; a kind that is new since stays as it begins."""
    first = initial()
    found: dict[str, list[str]] = {}
    for registry in message.registries:
        begun, keys = list(first[registry.kind]), list(registry.keys)
        if keys[: len(begun)] != begun:
            raise ValueError(f"registry {registry.kind} does not begin with {', '.join(begun)}")
        found[registry.kind] = keys[len(begun) :]
    return found


def _observed(held: journal.BaseBlueprint) -> ObservedBlueprint:
    blueprint = None
    if held.digest:
        blueprint = Blueprint(
            blueprint_id=held.blueprint_id,
            digest=held.digest,
            tier=held.tier,
            stage=held.stage,
            descriptor_risk=held.descriptor_risk,
            quarantine_only=held.quarantine_only,
            approval_required=held.approval_required,
            allowed_parameters=tuple((bound.name, bound.min, bound.max) for bound in held.allowed_parameters),
            sheet=SafetySheet(**_fields(held.sheet, SafetySheet)) if held.HasField("sheet") else None,
        )
    return ObservedBlueprint(blueprint, held.content_lsn, held.observed_at_ns, held.withdrawn)
