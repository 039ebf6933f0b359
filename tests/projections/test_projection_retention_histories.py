"""A rebuild gives the rows that following gave, whatever became of the log meanwhile: pruned, redacted, reopened."""

import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from rig import packet, proposal

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS, encode
from tamiyo.projections import Projection
from tamiyo.projections import projection as module
from tamiyo.projections.standing import FOLDS
from tamiyo.testing import History
from tamiyo.testing.strategies.histories import DEEDS, STEPS
from wal.testing import MemoryDisk

SEGMENT_BYTES = 12_288  # small, so that a short history fills several; a base must still fit
BATCH_RECORDS = 5  # what is cut in two here, no row may depend on
KEPT_WHOLE = {journal.StateBase, journal.RetentionPlanned}
TAKEN = sorted(set(KINDS) - KEPT_WHOLE, key=KINDS.__getitem__)


@dataclass(frozen=True)
class Run:
    """A retention run: what share of the log may go, whose payloads, and how much of it is done before a crash."""

    prune: float
    redact: tuple[tuple[type, float], ...]
    done: str  # "planned", "redacted", "pruned" or "completed"


shares = st.just(1.0) | st.floats(0, 1)
runs = st.builds(
    Run,
    shares,
    st.lists(st.tuples(st.sampled_from(TAKEN), shares), max_size=16, unique_by=lambda window: window[0]).map(tuple),
    st.sampled_from(("planned", "redacted", "pruned", "completed")),
)
happenings = st.one_of(
    STEPS,
    STEPS,
    DEEDS,
    st.sampled_from(("train", "base")),
    runs,
    st.sampled_from(("follow", "follow to the end")),
    st.just("reopen the log"),
    st.just("reopen the projection"),
    st.just("die in a transaction"),
    st.just("prune without a word"),
)
chapters = st.lists(happenings, max_size=8)
stories = st.builds(
    lambda parts, endings: [what for part, run in zip(parts, endings, strict=False) for what in (*part, *run)],
    st.lists(chapters, min_size=1, max_size=5),
    st.lists(
        runs.map(lambda run: ("train", "base", "train", "follow to the end", run)) | st.just(()), min_size=5, max_size=5
    ),
)


class World:
    """A history, its log on a disk, and a projection that follows it in a file."""

    def __init__(self, directory):
        self.history = History()
        self.disk = MemoryDisk()
        self.directory = directory
        self.log = self.opened_log()
        self.projection = Projection.open(directory)
        self.written = 0
        self.write()

    def opened_log(self):
        return wal.Log.open("/wal", segment_bytes=SEGMENT_BYTES, disk=self.disk, heartbeat_ms=60_000)

    def close(self):
        self.projection.close()
        self.log.close()

    def write(self):
        fresh = [encode(event) for event in self.history.events[self.written :]]
        for records in batched(fresh, BATCH_RECORDS):
            self.log.append(records)
        self.written = len(self.history.events)

    def happen(self, what):
        if isinstance(what, Run):
            self.retain(what)
        elif callable(what):
            what(self.history)
        else:
            getattr(self, what.replace(" ", "_"))()
        self.write()

    def train(self):
        for _ in range(6):
            self.history.step(packet(), proposal())
        self.history.publish(succeeded=len(self.history.events) % 2 == 0)

    def base(self):
        self.history.base()

    def follow(self):
        self.projection.catch_up(self.log, limit=7)

    def follow_to_the_end(self):
        self.projection.catch_up(self.log)

    def reopen_the_log(self):
        self.log.close()
        self.log = self.opened_log()

    def reopen_the_projection(self):
        self.projection.close()
        self.projection = Projection.open(self.directory)

    def die_in_a_transaction(self):
        with dying(), suppress(KeyboardInterrupt):
            self.projection.catch_up(self.log)
        self.reopen_the_projection()

    def retain(self, run):
        """Plan and do as a retention job does: below a base, payloads that the state folds below it too."""
        bases = [(lsn, e) for lsn, e in enumerate(self.history.events, 1) if isinstance(e, journal.StateBase)]
        if not bases:
            return
        base_lsn, base = bases[-1]
        plan = journal.RetentionPlanned(
            run_id=f"run-{base_lsn}-{len(self.history.events)}",
            event_time_ns=self.history.state.event_time_ns + 1,
            prune_before_lsn=round(base.needs_lsn * run.prune),
            base_lsn=base_lsn,
        )
        for message, share in run.redact:
            upto_lsn = round((base.at_lsn if message in FOLDS else len(self.history.events)) * share)
            plan.payloads.add(kind=KINDS[message], window_ns=1, upto_lsn=upto_lsn)
        self.history._fold(plan)
        self.write()
        if run.done != "planned":
            upto = {window.kind: 0 for window in plan.payloads}
            for window in plan.payloads:
                upto[window.kind] = max(upto[window.kind], window.upto_lsn)
            event(
                "redacted" if self.log.redact(lambda entry: entry.lsn <= upto.get(entry.kind, 0)).records else "not r"
            )
        if run.done in ("pruned", "completed"):
            event("pruned" if self.log.prune(plan.prune_before_lsn).segments else "not p")
        if run.done == "completed":
            self.complete(plan)

    def prune_without_a_word(self):
        """As on a disk that is too full for a plan."""
        bases = [event for event in self.history.events if isinstance(event, journal.StateBase)]
        if bases:
            self.log.prune(bases[-1].needs_lsn)

    def complete(self, plan):
        done = journal.RetentionCompleted(
            run_id=plan.run_id,
            event_time_ns=plan.event_time_ns + 1,
            first_lsn=1,
            freed_bytes=1,
            segments=[journal.PrunedSegment(segment=1, first_lsn=1, last_lsn=2, size_bytes=3)],
        )
        self.history._fold(done)


@contextmanager
def dying():
    def die(connection, position):
        raise KeyboardInterrupt

    move, module._move = module._move, die
    try:
        yield
    finally:
        module._move = move


def batched(records, size):
    return [records[at : at + size] for at in range(0, len(records), size)]


def rebuilt(log):
    with Projection.in_memory() as fresh:
        fresh.catch_up(log)
        return fresh.canonical()


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(stories)
def test_a_rebuild_gives_what_following_gave_with_bases_retention_crashes_and_restarts_mixed_in(story):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for what in story:
            world.happen(what)
        world.projection.catch_up(world.log)
        followed = world.projection.canonical()
        assert followed == rebuilt(world.log)
        world.projection.rebuild(world.log)
        assert world.projection.canonical() == followed
        the_state_is_in_the_rows(world.projection, world.history.state)
        world.close()


def the_state_is_in_the_rows(projection, state):
    summary = projection.summary()
    assert summary.applied_lsn == state.last_lsn
    assert projection.registries() == state.registries
    assert repr(projection.norms()) == repr(state.norms)  # repr: NaN is not equal to itself
    assert (summary.decisions, summary.superseded) == (state.decisions, state.commits_late)
    assert summary.conservative == state.conservative.active
    assert dict(summary.breakers) == {name: record.state for name, record in state.breakers.items()}
