"""Histories that were never lived are as good as lived ones: they fold, audit and reopen."""

from hypothesis import given, settings
from live import SECRET
from rig import packet, proposal

import wal
from tamiyo.audit import replay
from tamiyo.core import journal_pb2 as journal
from tamiyo.service import TamiyoService
from tamiyo.testing import FixedPolicy, History
from tamiyo.testing.machine.bounds import check_bounds
from tamiyo.testing.machine.breakers import BreakerBook
from tamiyo.testing.machine.decisions import DecisionBook
from tamiyo.testing.strategies import histories
from wal.testing import MemoryDisk


@settings(max_examples=100)
@given(histories())
def test_any_history_passes_the_audit(history: History) -> None:
    found = replay(history.entries())
    assert found.divergence is None, str(found.divergence)
    assert found.state.digest() == history.state.digest()


@settings(max_examples=60)
@given(histories())
def test_any_history_keeps_the_laws_of_the_machine(history: History) -> None:
    breakers = BreakerBook()
    decisions = DecisionBook(breakers)
    for lsn, event in enumerate(history.events, start=1):
        breakers.take(event)
        decisions.take(lsn, event)
    breakers.check(history.state)
    decisions.check()
    check_bounds(history.state)


@settings(max_examples=25)
@given(histories(max_deeds=10))
def test_a_service_goes_on_from_any_history(history: History) -> None:
    disk = MemoryDisk()
    with wal.Log.open("/controller/wal", segment_bytes=2**20, disk=disk) as log:
        log.append([(entry.kind, entry.payload) for entry in history.entries()])
    service = TamiyoService.open("/controller", policy=FixedPolicy(1), secret=SECRET, disk=disk)
    assert service.state.steps_received == history.state.steps_received
    assert service.evaluate_step(packet()).annotations["risk_reason"]
    assert replay(service.log.read()).divergence is None
    service.close()


def test_histories_hold_every_kind_of_record() -> None:
    """The strategy leaves nothing out that a service writes."""
    seen: set[str] = set()

    @settings(max_examples=150, database=None, derandomize=True)
    @given(histories())
    def look(history: History) -> None:
        seen.update(event.DESCRIPTOR.name for event in history.events)

    look()
    written = {
        "ServiceOpened", "StepReceived", "GraphLayoutObserved", "GraphObserved", "InferenceObserved",
        "InferenceTimedOut", "InferenceFailed", "InferenceSkipped", "DecisionMade", "FieldReportIssued",
        "BlueprintObserved", "BreakerMoved", "ConservativeModeChanged", "CommitLate", "StepPaused", "StepsUnrecorded",
        "OperatorDirected", "CommandDelivered", "WindowClosed", "PublishAttempted", "FieldReportsDropped",
        "TelemetryDrained", "TelemetryDropped",
    }  # fmt: skip
    assert written <= seen


def test_what_cannot_follow_is_left_out() -> None:
    history = History()
    for deed in (history.commit_is_late, history.drain, lambda: history.deliver("applied")):
        deed()
    history.publish(succeeded=True)
    assert [type(event) for event in history.events] == [journal.ServiceOpened, journal.TelemetryDrained]


def test_a_history_is_told_in_deeds() -> None:
    history = History()
    history.step(packet(), proposal(1))
    history.commit_is_late()
    history.step(packet(), "failure")
    late = [event for event in history.events if isinstance(event, journal.CommitLate)]
    assert [event.cause for event in late] == ["timeout_wal"]
    assert history.state.breakers["inference"].failures == 1
    assert history.state.decisions == 2
