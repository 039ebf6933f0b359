"""The controller's whole state: frozen, bounded, and the same wherever the same log is folded.

Only `evolve` makes a new one. `digest()` is SHA-256 over this module's own canonical encoding, so two
states can be compared across processes and machines; a digest of another version is not comparable.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple, Protocol

from tamiyo.core.blueprint import Blueprint
from tamiyo.core.breakers import BREAKERS, Breaker
from tamiyo.core.layout import GraphLayout
from tamiyo.core.norms import PRIORS, Norm
from tamiyo.core.options import Options
from tamiyo.core.paced import Pace, paced, without_rest
from tamiyo.core.registries import Registries, initial
from tamiyo.core.signals import LossMemory
from tamiyo.core.thresholds import Thresholds

__all__ = [
    "BLUEPRINTS_MAX",
    "CONDITIONS_MAX",
    "DIGEST_VERSION",
    "DIRECTIVES_MAX",
    "RETRIES_MAX",
    "SEED_BLUEPRINTS_MAX",
    "UNDECIDED_MAX",
    "UNDELIVERED_MAX",
    "WINDOWS_MAX",
    "Condition",
    "Conservative",
    "Deliveries",
    "InstalledPolicy",
    "ObservedBlueprint",
    "Outbox",
    "Policies",
    "Retry",
    "Sample",
    "State",
    "Unsettled",
    "Window",
    "Windows",
]

DIGEST_VERSION = 3
UNDECIDED_MAX = 1_024
BLUEPRINTS_MAX = 1_024
SEED_BLUEPRINTS_MAX = 4_096
UNDELIVERED_MAX = 1_024
RETRIES_MAX = 1_024
WINDOWS_MAX = 1_024
CONDITIONS_MAX = 256
"""More than the risk table has rows, those of earlier versions included."""
DIRECTIVES_MAX = 256


class Conservative(NamedTuple):
    """Conservative mode: on or off, why, since when (event time), and the clean steps in a row.

    `operator` is who set it and has not cleared it since: it then ends by nobody else.
    """

    active: bool = False
    reason: str = ""
    since_ns: int = 0
    clean_steps: int = 0
    operator: str = ""


@dataclass(frozen=True, slots=True)
class Condition:
    """A risk row that stays true: since which step, and at which one it was last an event."""

    since_step_index: int
    shown_step_index: int


@dataclass(frozen=True, slots=True)
class Window:
    """The observation window of one command; it closes with decision number `opened_at + length`."""

    command_id: str
    opened_at: int  # the number of the command's own decision
    length: int
    start_epoch: int
    training_run_id: str
    seed_id: str
    blueprint_id: str
    policy_version: str

    @property
    def closes_at(self) -> int:
        """The number of the decision that ends it."""
        return self.opened_at + self.length


class Sample(NamedTuple):
    """What one decision saw, for the windows that are open over it."""

    decision: int
    loss_delta: float
    hook_latency_ms: float | None
    critical: bool


class Windows(NamedTuple):
    """Open windows in the order they close; samples of the decisions after the first of them; how many expired."""

    open: tuple[Window, ...] = ()
    samples: tuple[Sample, ...] = ()
    expired: int = 0

    def after(self, decision: int) -> tuple[Sample, ...]:
        """The samples of the decisions after number `decision`; each decision since the first window has one."""
        if not self.samples:
            return ()
        return self.samples[max(0, decision + 1 - self.samples[0].decision) :]


@dataclass(frozen=True, slots=True)
class Retry:
    """A field report that the bus has refused: how often it was tried, and when (event time) it is due again."""

    report_lsn: int
    attempts: int
    due_ns: int


@dataclass(frozen=True, slots=True)
class Outbox:
    """How far telemetry and field reports are published.

    Reports up to `reports_lsn` have been tried at least once: they are published, dropped or among the retries.
    """

    telemetry_lsn: int = 0
    reports_lsn: int = 0
    retries: Mapping[str, Retry] = field(default_factory=lambda: MappingProxyType({}))  # by report id, oldest first
    published: int = 0
    retried: int = 0  # attempts after the first
    dropped: int = 0
    superseded: int = 0  # reports of commands that were never released
    telemetry_dropped: int = 0  # packets that the bus refused for good

    @property
    def closed(self) -> int:
        """Reports that are not to be published any more."""
        return self.published + self.dropped + self.superseded


class Deliveries(NamedTuple):
    """What is known of commands that are no longer in the list of the undelivered."""

    forgotten: int = 0  # undelivered, and older than the list has room for
    delivered: int = 0
    unmatched: int = 0  # words about a command that is not in the list


@dataclass(frozen=True, slots=True)
class ObservedBlueprint:
    """The last observed version of a blueprint and where its content lies; None where no library ever knew the id.

    One that its library has withdrawn keeps its last version: nothing new grows from it, and its risk still counts.
    """

    blueprint: Blueprint | None
    content_lsn: int
    observed_at_ns: int
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class InstalledPolicy:
    """A policy whose checkpoint is kept: as commands name it, and where the log says that it was installed."""

    version: str
    checkpoint_digest: str
    policy_id: str
    lsn: int


@dataclass(frozen=True, slots=True)
class Policies:
    """What was installed last, and the last one before it that is known to work.

    `issued_unix_ns` is of the newest update that was installed: none that was issued before is taken. The policy in
    force is `current` where the state's `policy_version` is its version. It is on probation while it has
    `proposals_left` to make; `failures` are those of its probation.
    """

    current: InstalledPolicy | None = None
    previous: InstalledPolicy | None = None
    issued_unix_ns: int = 0
    proposals_left: int = 0
    failures: int = 0


class Unsettled(NamedTuple):
    """The last decision, until its commit has been judged; a germination counts only if it was released."""

    step_lsn: int
    seed_id: str = ""
    blueprint_id: str = ""
    command_id: str = ""


def _breakers() -> Mapping[str, Breaker]:
    return MappingProxyType({name: Breaker() for name in BREAKERS})


class _Fields(Protocol):
    """What `Derived` reads."""

    @property
    def reports_issued(self) -> int: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def undelivered(self) -> Mapping[str, int]: ...
    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def unsettled(self) -> Unsettled | None: ...
    @property
    def seed_blueprints(self) -> Mapping[str, str]: ...


class Derived:
    """What follows from the fields of a state, frozen or under way."""

    __slots__ = ()

    @property
    def reports_pending(self: _Fields) -> int:
        """Field reports that are neither published nor given up."""
        return self.reports_issued - self.outbox.closed

    @property
    def undelivered_total(self: _Fields) -> int:
        """Commands without a word, those no longer in the list included."""
        return len(self.undelivered) + self.deliveries.forgotten

    def blueprint_of(self: _Fields, seed_id: str) -> str:
        """The blueprint that a seed was grown from, "" where none is journaled."""
        last = self.unsettled
        if last is not None and last.seed_id and last.seed_id == seed_id:
            return last.blueprint_id
        return self.seed_blueprints.get(seed_id, "")


@dataclass(frozen=True)
class State(Derived):
    """Everything a decision may depend on, folded from the log up to `last_lsn`.

    Without slots, so that a fold can thaw and freeze its fields as one mapping: that is done every step.
    """

    last_lsn: int = 0
    event_time_ns: int = 0
    thresholds: Thresholds = field(default_factory=Thresholds)
    options: Options = field(default_factory=Options)
    log_id: str = ""
    metadata_budget_ms: int = 0
    behaviour_flags: tuple[str, ...] = ()
    policy_version: str = ""
    steps_received: int = 0
    steps_unrecorded: int = 0
    decisions: int = 0
    commits_late: int = 0
    unsettled: Unsettled | None = None
    unsettled_report_lsn: int = 0  # of that decision's report
    undecided: tuple[int, ...] = ()  # LSNs of packets without a decision, oldest first
    loss: LossMemory = field(default_factory=LossMemory)
    norms: tuple[Norm, ...] = PRIORS
    breakers: Mapping[str, Breaker] = field(default_factory=_breakers)
    conservative: Conservative = field(default_factory=Conservative)
    conditions: Mapping[tuple[str, int], Condition] = field(default_factory=lambda: MappingProxyType({}))
    windows: Windows = field(default_factory=Windows)
    reports_issued: int = 0
    outbox: Outbox = field(default_factory=Outbox)
    undelivered: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Commands that nobody has said anything of yet: the last ones by id, with the LSN that tells of them."""
    deliveries: Deliveries = field(default_factory=Deliveries)
    directives: tuple[str, ...] = ()  # ids of the last requests taken up, oldest first
    registries: Registries = field(default_factory=initial)
    layouts: Mapping[int, GraphLayout] = field(default_factory=lambda: MappingProxyType({}))  # by LSN
    blueprints: Mapping[str, ObservedBlueprint] = field(default_factory=lambda: MappingProxyType({}))
    seed_blueprints: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    policies: Policies = field(default_factory=Policies)

    def digest(self, pace: Pace = without_rest) -> str:
        """SHA-256, hex, of the canonical encoding, behind the digest's version: "3:<hex>".

        A state as large as it may become takes some tenths of a second; `pace` is called all along.
        """
        return f"{DIGEST_VERSION}:{sha256(canonical(self, pace)).hexdigest()}"


def canonical(value: object, pace: Pace = without_rest) -> bytes:
    """One byte string for each value: a type tag, then length-prefixed parts; maps in key order, floats by bits."""
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"T" if value else b"F"
    if isinstance(value, int):
        return _tagged(b"i", str(value).encode())
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    if isinstance(value, str):
        return _tagged(b"s", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, _RECORDS):
        return _record(value, value._fields, pace)
    if isinstance(value, tuple):
        return _tagged(b"t", b"".join([canonical(part, pace) for part in paced(value, pace)]))
    if isinstance(value, Mapping):
        return _tagged(
            b"m", b"".join([canonical(key) + canonical(value[key], pace) for key in paced(sorted(value), pace)])
        )
    if is_dataclass(value):
        later = _LATER.get(type(value), {})
        names = [part.name for part in fields(value)]
        return _record(
            value, [name for name in names if name not in later or getattr(value, name) != later[name]], pace
        )
    raise TypeError(f"a {type(value).__name__} has no canonical encoding; keep it out of the state")


_RECORDS = (Conservative, Deliveries, Sample, Windows)
"""Named tuples, because each step makes new ones, that are encoded by the names of their fields as dataclasses are."""


_LATER: Mapping[type, Mapping[str, object]] = {Outbox: {"telemetry_dropped": 0}}
"""Fields that came once digests of this version were recorded: left out while they say nothing, so that those stay."""


def _record(value: object, names: Iterable[str], pace: Pace) -> bytes:
    return _tagged(b"r", b"".join([canonical(name) + canonical(getattr(value, name), pace) for name in names]))


def _tagged(tag: bytes, body: bytes) -> bytes:
    return tag + len(body).to_bytes(8, "big") + body
