"""One retention run after the other: each goes on from what the last one left, and keeps what that one promised."""

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner
from live import PATIENT
from retention_rig import (
    DIRECTORY,
    LOG,
    Order,
    bases,
    check,
    entries_of,
    history,
    planned,
    retain,
    retain_directory,
    write,
)
from rig import SECRET, packet, proposal

import wal
from tamiyo import Settings, TamiyoService
from tamiyo.cli import main
from tamiyo.retention import preview
from tamiyo.retention.source import Files
from tamiyo.testing import FixedPolicy, ManualClock, MemoryBus
from wal.testing import MemoryDisk

MINUTES_10 = 1 / 6


@pytest.mark.parametrize("segment_bytes", [9_216, 2**14])
def test_payloads_come_of_age_before_a_base_whose_predecessor_speaks_of_what_was_pruned(segment_bytes: int) -> None:
    """No telemetry is published any more, so one base stays, whatever comes of age before it."""
    made = history(steps=12, base_every=2, drained=False)
    for _ in range(6):
        made.pass_time(600)
        made.step(packet(validation_loss=0.5), proposal())
    disk = MemoryDisk()
    aged = write(disk, made, segment_bytes=segment_bytes)
    plans = []
    for run_id, log_hours, report_hours in [("segments", 10, None), ("payloads", None, 9.1)]:
        settings = Settings(
            log_retention_hours=log_hours and log_hours * MINUTES_10,
            field_report_retention_hours=report_hours and report_hours * MINUTES_10,
        )
        report = retain_directory(DIRECTORY, Order(run_id), settings, clock=aged.clock(), disk=disk)
        plans += [outcome.planned for outcome in report.outcomes]
    first, second = plans
    assert first.base_lsn == second.base_lsn
    *_, before = (base for base in bases(aged.entries[: first.base_lsn - 1]))
    assert before.at_lsn + 1 < first.prune_before_lsn <= second.payloads[0].upto_lsn, "what the test is about"
    left = check(disk, aged)
    assert any(isinstance(entry, wal.Redacted) for entry in left)
    assert wal.segments(LOG, disk=disk)[0].first_lsn == first.prune_before_lsn


def test_a_dry_run_looks_again_where_the_log_is_pruned_under_its_eyes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged = write(None, history(), tmp_path / "wal")
    settings = Settings(log_retention_hours=2, field_report_retention_hours=None)
    before_lsn = preview(tmp_path, settings, clock=aged.clock()).plan.prune_before_lsn
    read = Files.reader

    def pruned_first(files: Files, after: int | None = 0) -> wal.Reader:
        if after == 0:
            wal.prune(tmp_path / "wal", before_lsn)
        return read(files, after)

    monkeypatch.setattr(Files, "reader", pruned_first)
    found = preview(tmp_path, settings, clock=aged.clock())
    assert entries_of(None, tmp_path / "wal")[0].lsn == before_lsn
    assert found.plan.segments == ()
    assert found.horizon_lsn is not None
    assert found.horizon_lsn >= before_lsn


def test_a_head_that_was_promised_when_nothing_went_is_kept_by_every_run_after_it(tmp_path: Path) -> None:
    """Each run opens the directory anew, and none but the first knows of the head."""
    aged = write(None, history(), tmp_path / "wal")
    head, never = aged.heads[3], Settings(field_report_retention_hours=None)
    promised = retain_directory(tmp_path, Order("promise", keep_heads=(head,)), never, clock=aged.clock())
    assert promised.outcomes == ()
    firsts = []
    for number, hours in enumerate((3.5, 2.5, 1.5)):
        settings = Settings(log_retention_hours=hours, field_report_retention_hours=None)
        report = retain_directory(tmp_path, Order(f"run {number}"), settings, clock=aged.clock())
        firsts += [outcome.completed.first_lsn for outcome in report.outcomes]
        assert wal.verify(tmp_path / "wal", head).expected == "confirmed"
    assert len(firsts) == 3
    assert head.size < firsts[0] < firsts[-1]


def test_a_service_keeps_a_head_that_it_promised_when_nothing_went_also_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(**{**PATIENT, "segment_bytes": 2**16, "field_report_retention_hours": None})
    clock = ManualClock()

    def opened(**changed: float) -> TamiyoService:
        return TamiyoService.open(
            tmp_path, policy=FixedPolicy(), secret=SECRET, settings=settings.model_copy(update=changed), clock=clock
        )

    with opened() as service:
        service.evaluate_step(packet())
        head = service.log.head()
        assert service.retain(keep_heads=[head]).outcomes == ()
    with opened(log_retention_hours=0.01) as service:
        service.journal.checkpoint_steps = 4
        for _ in range(60):
            clock.advance(2.0)
            service.evaluate_step(packet())
            service._keeper.keep()
        assert asyncio.run(service.publish_history(MemoryBus()))
        (outcome,) = service.retain().outcomes
        assert outcome.completed.first_lsn > head.size
    assert wal.verify(tmp_path / "wal", head).expected == "confirmed"


def test_a_request_carries_its_heads_also_when_nothing_goes(tmp_path: Path) -> None:
    aged = write(None, history(), tmp_path / "wal")
    head = aged.heads[3]
    settings = Settings(**{**PATIENT, "field_report_retention_hours": None, "segment_bytes": 2**16})
    with TamiyoService.open(
        tmp_path, policy=FixedPolicy(), secret=SECRET, settings=settings, clock=aged.clock()
    ) as service:
        said = CliRunner().invoke(main, ["retain", str(tmp_path), "--keep-head", str(head)])
        assert (said.exit_code, said.output.splitlines()[0]) == (0, "nothing to take"), said.output
        assert wal.segments(service.log.path)[0].first_lsn == 1
    windows = Settings(log_retention_hours=2, field_report_retention_hours=None)
    retain_directory(tmp_path, Order("later"), windows, clock=aged.clock())
    assert wal.segments(tmp_path / "wal")[0].first_lsn > head.size
    assert wal.verify(tmp_path / "wal", head).expected == "confirmed"


def test_more_heads_than_there_is_room_for_are_refused_before_anything_is_planned() -> None:
    disk = MemoryDisk()
    aged = write(disk, history())
    with pytest.raises(wal.LogError, match="keep fewer heads"):
        retain(disk, aged, "many", keep_heads=aged.heads[:100])
    assert planned(entries_of(disk)) == []
    assert retain(disk, aged, "next").outcomes
    check(disk, aged)
