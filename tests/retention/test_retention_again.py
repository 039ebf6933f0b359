"""One retention run after the other: each goes on from what the last one left, and keeps what that one promised."""

from pathlib import Path

import pytest
from retention_rig import DIRECTORY, LOG, Order, bases, check, entries_of, history, retain_directory, write
from rig import packet, proposal

import wal
from tamiyo.config import Settings
from tamiyo.retention import preview
from tamiyo.retention.source import Files
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
