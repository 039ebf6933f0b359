"""Conservative mode waits for clean steps; one that the log answered with a safe PAUSE is none."""

from collections.abc import Callable

import pytest
from live import LateClock, Live, reason
from rig import packet

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import EXPLAINED
from tamiyo.core.evolve import evolve
from tamiyo.testing import FixedPolicy


def late(live: Live, _: pytest.MonkeyPatch) -> str:
    """A commit that misses its budget."""
    live.disk.hang("fdatasync")
    live.clock.late.add("log")
    answer = reason(live.step(packet()))
    live.clock.late.clear()
    live.disk.release()
    live.durable()
    return answer


def full(live: Live, patch: pytest.MonkeyPatch, *, calls: tuple[str, ...]) -> str:
    """A log without room, for a step from its packet on or for its decision alone."""

    def refuse(*_: object, **__: object) -> None:
        raise wal.LogFull("no room")

    with patch.context() as meanwhile:
        for call in calls:
            meanwhile.setattr(live.service.log, call, refuse)
        return reason(live.step(packet()))


def unrecorded(live: Live, patch: pytest.MonkeyPatch) -> str:
    return full(live, patch, calls=("stage", "submit"))


def paused(live: Live, patch: pytest.MonkeyPatch) -> str:
    return full(live, patch, calls=("submit",))


def calming(live: Live, steps: int) -> None:
    """Clean steps in conservative mode, its cool-down over."""
    for _ in range(steps):
        live.clock.advance(2.0)
        assert reason(live.step(packet())) == "conservative_mode"
        live.durable()


@pytest.mark.parametrize("how", [late, unrecorded, paused])
def test_a_safe_pause_is_no_clean_step(
    how: Callable[[Live, pytest.MonkeyPatch], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(policy=FixedPolicy(1), clock=LateClock())
    live.step(packet(training_loss=float("nan")))
    calming(live, 1)
    assert how(live, monkeypatch) in ("timeout_wal", "log_full")
    calming(live, 3)
    assert reason(live.step(packet())) == "policy", "three clean steps running end it"
    live.check()
    live.reopen()
    live.check()
    live.close()


def test_a_log_of_before_counts_as_it_did() -> None:
    """Its decisions were made so, and are recomputed so."""
    live = Live(policy=FixedPolicy(1))
    live.step(packet(training_loss=float("nan")))
    calming(live, 2)
    state = live.service.state
    opened = journal.ServiceOpened(event_time_ns=state.event_time_ns + 1, behaviour_flags=[EXPLAINED])
    before = evolve(state, state.last_lsn + 1, opened)
    step = state.steps_received + 1
    told = journal.StepsUnrecorded(first_step_index=step, last_step_index=step, count=1, cause="log_full")
    assert evolve(before, before.last_lsn + 1, told).conservative.clean_steps == 2
    assert evolve(state, state.last_lsn + 1, told).conservative.clean_steps == 0
    live.close()
