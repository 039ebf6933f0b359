"""Model beside target: the state that `evolve` folds, and the rows that the projection holds, over legal histories."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from projection_rig import append, command, decided, layout, made_new, observed, open_log, opened, received

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.breakers import BREAKERS
from tamiyo.core.evolve import evolve
from tamiyo.core.registries import PRESEEDED
from tamiyo.core.state import State
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import Projection

OPEN, CLOSED, HALF_OPEN = pb.CIRCUIT_STATE_OPEN, pb.CIRCUIT_STATE_CLOSED, pb.CIRCUIT_STATE_HALF_OPEN
TYPES = (pb.COMMAND_PAUSE, pb.COMMAND_SEED, pb.COMMAND_OPTIMIZER, pb.COMMAND_CIRCUIT_BREAKER)

ids = st.sampled_from(["s-1", "s-2", "", "a\x00b", "\\u0000", "ünï 💥", "x" * 512])
kinds = st.sampled_from(["seed_id", "blueprint_id", "optimizer_family"])
floats = st.floats(-1e6, 1e6, width=32)
norm_inputs = st.dictionaries(st.integers(0, 7), floats, max_size=4).map(lambda found: sorted(found.items()))
COUNTS_MAX = 3
counts = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=COUNTS_MAX)
steps = st.fixed_dictionaries(
    {
        "keys": st.lists(st.tuples(kinds, ids), max_size=3),
        "graph": st.none() | st.tuples(norm_inputs, counts),
        "decision": st.none() | st.tuples(st.sampled_from(TYPES), ids, ids),
        "late": st.booleans(),
        "breaker": st.none() | st.sampled_from(BREAKERS),
        "mode": st.booleans(),
        "reopened": st.booleans(),
    }
)


class History:
    """Writes legal events: every one is folded by `evolve`, which refuses any other.

    `pace_ns` is the event time from one event to the next. Two histories whose paces have no small multiple in common
    never write the same record at the same LSN again once they part, as real ones do not.
    """

    def __init__(self):
        self.state = State()
        self.batches = []
        self.pace_ns = 1
        self.layout_lsns = []
        for features in range(COUNTS_MAX + 1):
            self.write(layout(features))
            self.layout_lsns.append(self.state.last_lsn)
        self.open()

    def write(self, *events):
        for event in events:
            self.state = evolve(self.state, self.state.last_lsn + 1, event)
        self.batches.append(list(events))

    def now_ns(self):
        return self.state.event_time_ns + self.pace_ns

    def open(self):
        self.write(opened(f"v{len(self.batches)}", event_time_ns=self.now_ns()))

    def step(self, keys, graph, decision, late, breaker, mode, reopened):
        """One step; without a decision it is a packet that its process died with."""
        self.write(received(self.state.steps_received + 1, self.now_ns()))
        step_lsn = self.state.last_lsn
        if decision is not None:
            self.write(*self._assigned(keys), *self._graph(step_lsn, graph), self._decision(step_lsn, *decision))
            if late:
                self.write(self._late(step_lsn))
        if breaker is not None:
            self.write(self._moved(breaker))
        if mode:
            self.write(self._mode())
        if reopened:
            self.open()

    def _assigned(self, keys):
        taken = {kind: dict(entries) for kind, entries in self.state.registries.items()}
        for kind, key in keys:
            if key and key not in taken[kind]:
                taken[kind][key] = len(taken[kind]) + 1
                yield journal.RegistryAssigned(kind=kind, keys=[key], first_index=taken[kind][key])

    def _graph(self, step_lsn, graph):
        if graph is not None:
            inputs, counted = graph
            yield observed(step_lsn, inputs, counted, self.layout_lsns[len(counted)])

    def _decision(self, step_lsn, command_type, seed_id, reason):
        made = command(command_type, selected_seed=seed_id, policy_version="v")
        return decided(step_lsn, made, reason, event_time_ns=self.now_ns())

    def _late(self, step_lsn):
        lsn, now_ns = self.state.last_lsn, self.now_ns()
        return journal.CommitLate(decision_lsn=lsn, step_lsn=step_lsn, released_command_id="safe", event_time_ns=now_ns)

    def _moved(self, breaker):
        state = self.state.breakers[breaker].state
        to_state = {CLOSED: OPEN, OPEN: HALF_OPEN, HALF_OPEN: CLOSED}[state]
        return journal.BreakerMoved(breaker=breaker, from_state=state, to_state=to_state, event_time_ns=self.now_ns())

    def _mode(self):
        active = not self.state.conservative.active
        return journal.ConservativeModeChanged(active=active, reason="for the test", event_time_ns=self.now_ns())


def written(directory, *parts):
    """A log of one history; each part of it has a pace of its own."""
    history = History()
    for pace_ns, part in parts:
        history.pace_ns = pace_ns
        for step in part:
            history.step(**step)
    with open_log(directory) as log:
        append(log, *history.batches)
    return history.state


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=6), st.lists(st.integers(1, 7), max_size=5))
def test_rows_are_the_state_and_following_in_pieces_gives_what_a_rebuild_gives(history_steps, pieces):
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        state = written(directory, (1, history_steps))
        for piece in pieces:  # each piece is a process of its own
            with Projection.open(directory) as projection:
                projection.catch_up(directory / "wal", limit=piece)
        with Projection.open(directory) as projection:
            projection.catch_up(directory / "wal")
            followed = projection.contents()
            rows_are_the_state(projection, state)
            assert projection.rebuilt_because == ""
            assert followed == made_new(directory)
            projection.rebuild(directory / "wal")
            assert projection.contents() == followed


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=2), st.lists(steps, max_size=2), st.lists(steps, max_size=4))
def test_rows_of_a_log_that_was_cut_and_went_on_otherwise_become_the_new_ones(shared, first, second):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        written(Path(one), (1, shared), (1_000, first))
        state = written(Path(other), (1, shared), (1_000_001, second))
        with Projection.open(other) as projection:
            projection.catch_up(Path(one, "wal"))
            projection.catch_up(Path(other, "wal"))
            rows_are_the_state(projection, state)
            assert projection.contents() == made_new(Path(other))


def rows_are_the_state(projection, state):
    summary = projection.summary()
    assert projection.applied_lsn == state.last_lsn
    assert projection.norms() == state.norms
    assert projection.registries() == state.registries
    assert summary.registry_sizes["optimizer_family"] >= len(PRESEEDED["optimizer_family"])
    assert summary.decisions == state.decisions
    assert summary.undecided == len(state.undecided)
    assert summary.superseded == state.commits_late
    assert dict(summary.breakers) == {name: record.state for name, record in state.breakers.items()}
    assert summary.conservative == state.conservative.active
    assert [row[0] for row in projection.contents()["undecided_steps"]] == list(state.undecided)
