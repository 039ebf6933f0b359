"""A directory that goes while it is in use, and comes back: nothing is begun in its place."""

import shutil
from pathlib import Path

import pytest
from live import PATIENT
from rig import SECRET, packet

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.testing import FixedPolicy, ManualClock

SETTINGS = Settings(**{**PATIENT, "segment_bytes": 2**16})
STEPS_MAX = 500


def opened(directory: Path, clock: ManualClock) -> TamiyoService:
    return TamiyoService.open(directory, policy=FixedPolicy(), secret=SECRET, settings=SETTINGS, clock=clock)


def step_to(service: TamiyoService, clock: ManualClock, reason: str) -> None:
    """Steps until one is answered for that reason; each trial of a log that failed is waited for."""
    for _ in range(STEPS_MAX):
        clock.advance(1.5)
        if service.evaluate_step(packet()).annotations["risk_reason"] == reason:
            return
        service.journal.wait_for_trial()
    raise AssertionError(f"no step was answered with {reason!r}")


@pytest.mark.parametrize("left", [None, "wal"])
def test_a_directory_that_goes_is_missed_and_no_new_log_is_begun_in_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left: str | None
) -> None:
    clock = ManualClock()
    here, away = tmp_path / "controller", tmp_path / "away"
    service = opened(here, clock)
    step_to(service, clock, "policy")
    log_id, decided = service.log.head().log_id, service.state.steps_received
    here.rename(away)
    if left is not None:  # where it was mounted
        (here / left).mkdir(parents=True)
    for _ in range(4):
        step_to(service, clock, "log_failed")
        service.journal.wait_for_trial()
    assert list(here.rglob("*.wal")) == []
    assert caplog.text.count("takes no records: ") == 1
    assert str(here / "wal") in caplog.text.partition("takes no records: ")[2]
    shutil.rmtree(here, ignore_errors=True)
    away.rename(here)
    step_to(service, clock, "policy")
    assert service.log.head().log_id == log_id
    assert service.state.steps_received > decided
    service.close()
    assert wal.verify(here / "wal").sound


def test_another_log_in_the_place_of_the_one_in_use_is_refused(tmp_path: Path) -> None:
    clock = ManualClock()
    here, away = tmp_path / "controller", tmp_path / "away"
    opened(tmp_path / "other", clock).close()
    service = opened(here, clock)
    step_to(service, clock, "policy")
    log_id = service.log.head().log_id
    here.rename(away)
    (tmp_path / "other").rename(here)
    before = sorted(path.name for path in (here / "wal").glob("*.wal"))
    for _ in range(3):
        step_to(service, clock, "log_failed")
        service.journal.wait_for_trial()
    assert sorted(path.name for path in (here / "wal").glob("*.wal")) == before
    here.rename(tmp_path / "other")
    away.rename(here)
    step_to(service, clock, "policy")
    assert service.log.head().log_id == log_id
    service.close()
