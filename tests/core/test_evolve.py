"""The fold: legal events move the state, illegal ones raise and change nothing."""

import pytest
from rig import Bench, packet, skipped

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import MESSAGES
from tamiyo.core.evolve import FOLDS, evolve
from tamiyo.core.norms import PRIORS, packed, recorded, updated
from tamiyo.core.state import UNDECIDED_MAX, State
from tamiyo.errors import InvariantViolation
from tamiyo.leyline import leyline_pb2 as pb


def test_every_event_has_a_fold_and_every_fold_an_event() -> None:
    assert set(FOLDS) == set(MESSAGES.values())


@pytest.mark.parametrize("lsn", [0, 2, 7])
def test_lsns_are_dense(lsn: int) -> None:
    with pytest.raises(InvariantViolation, match="LSNs are dense"):
        evolve(State(), lsn, journal.ServiceOpened(event_time_ns=1))


ILLEGAL = {
    "time goes back": journal.ServiceOpened(event_time_ns=1),
    "a step is left out": journal.StepReceived(step_index=2, event_time_ns=99),
    "nothing awaits this decision": journal.DecisionMade(step_lsn=44),
    "the registry skips a number": journal.RegistryAssigned(kind="seed_id", keys=["a"], first_index=2),
    "a name comes twice": journal.RegistryAssigned(kind="seed_id", keys=["a", "a"], first_index=1),
    "the registry is unknown": journal.RegistryAssigned(kind="colour", keys=["a"], first_index=1),
    "the breaker is elsewhere": journal.BreakerMoved(breaker="log", from_state=2, to_state=1),
    "the mode is off already": journal.ConservativeModeChanged(active=False),
    "no commit is unsettled": journal.CommitLate(decision_lsn=1),
    "steps before were counted": journal.StepsUnrecorded(first_step_index=5, last_step_index=6, count=2),
    "the layout is unknown": journal.GraphObserved(layout_lsn=44),
    "the graph does not fit its layout": journal.GraphObserved(layout_lsn=2, present=[1, 1]),
    "a norm has no value": journal.GraphObserved(
        layout_lsn=2, present=[1], total=[1], norms_present=5, norm_values=[1.0]
    ),
    "there is no such norm": journal.GraphObserved(
        layout_lsn=2, present=[1], total=[1], norms_present=256, norm_values=[1]
    ),
    "content is missing": journal.BlueprintObserved(blueprint_id="b", digest="d", event_time_ns=9),
}


@pytest.mark.parametrize("event", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_an_illegal_event_raises_and_says_so(event: object) -> None:
    bench = Bench()
    before = bench.state
    with pytest.raises(InvariantViolation, match="nothing was written"):
        bench.fold(event)
    assert bench.state is before


def test_an_undecided_packet_changes_nothing_but_its_list() -> None:
    bench = Bench()
    before = bench.state
    bench.inputs(packet(validation_loss=1.0))
    after = bench.state
    assert after.undecided == (before.last_lsn + 1,)
    assert (after.norms, after.loss, after.breakers) == (before.norms, before.loss, before.breakers)


def test_the_list_of_undecided_packets_is_bounded() -> None:
    bench = Bench()
    for index in range(UNDECIDED_MAX + 5):
        bench.fold(journal.StepReceived(step_index=index + 1, event_time_ns=bench.state.event_time_ns + 1))
    assert len(bench.state.undecided) == UNDECIDED_MAX


def test_norms_move_once_for_each_recorded_input() -> None:
    bench = Bench()
    bench.fold(
        journal.GraphObserved(
            layout_lsn=bench.layout_lsn, present=[1], total=[1], norm_inputs=[journal.NormInput(index=2, value=5000.0)]
        )
    )
    assert bench.state.norms[2] == updated(PRIORS[2], 5000.0)
    assert bench.state.norms[:2] == PRIORS[:2]


def test_norm_inputs_are_read_in_either_form() -> None:
    given = ((0, 0.5), (2, 5000.0), (7, 0.25))
    old = journal.GraphObserved(norm_inputs=[journal.NormInput(index=index, value=value) for index, value in given])
    present, values = packed(given)
    new = journal.GraphObserved(norms_present=present, norm_values=values)
    assert tuple(recorded(old)) == tuple(recorded(new)) == given


def test_opening_again_restarts_the_cool_downs() -> None:
    bench = Bench()
    bench.fold(journal.BreakerMoved(breaker="inference", from_state=1, to_state=2, event_time_ns=50))
    bench.fold(journal.ConservativeModeChanged(active=True, reason="test", event_time_ns=60))
    bench.fold(journal.ServiceOpened(event_time_ns=1_000))
    assert bench.state.breakers["inference"].moved_at_ns == 1_000
    assert bench.state.conservative.since_ns == 1_000


def test_the_same_events_give_the_same_digest_and_another_event_another() -> None:
    one, other = Bench(), Bench()
    assert one.state.digest() == other.state.digest()
    for bench in (one, other):
        bench.step(packet(pb.SEED_STAGE_FOSSILIZED), skipped("no_seed_candidates"))
    assert one.state.digest() == other.state.digest()
    other.fold(journal.RegistryAssigned(kind="seed_id", keys=["a"], first_index=1))
    assert one.state.digest() != other.state.digest()


def test_the_digest_names_its_version() -> None:
    assert State().digest().startswith("3:")
