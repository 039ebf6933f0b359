"""Behaviour flags: an old log replays as it was written; one from a newer version is refused."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

import wal
from tamiyo.audit import replay
from tamiyo.beginning import beginning
from tamiyo.core import behaviour
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.base import base_of, read_base
from tamiyo.core.behaviour import CURRENT, EXPLAINED, FLAGS, retired, unknown
from tamiyo.core.events import decode, encode
from tamiyo.core.evolve import evolve
from tamiyo.core.state import State
from tamiyo.core.telemetry import TelemetryReader
from tamiyo.errors import JournalUnreadable

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "journal"


def recorded(name: str) -> tuple[list[wal.Entry], int]:
    stored = json.loads((GOLDEN / name).read_text(encoding="utf-8"))
    records = [(kind, base64.b64decode(payload)) for kind, payload in stored["records"]]
    return [wal.Entry(lsn, *record) for lsn, record in enumerate(records, start=1)], stored["decisions"]


def under(name: str, *flags: str) -> list[wal.Entry]:
    """The same records, as if the service had written them with other flags."""
    changed = []
    for entry in recorded(name)[0]:
        event = decode(entry.kind, entry.payload)
        if isinstance(event, journal.ServiceOpened):
            event.behaviour_flags[:] = flags
        changed.append(wal.Entry(entry.lsn, *encode(event)))
    return changed


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.json")))
def test_a_log_of_an_earlier_behaviour_is_recomputed_as_it_was_written(name: str) -> None:
    entries, decisions = recorded(name)
    found = replay(entries)
    assert found.divergence is None, str(found.divergence)
    assert found.decisions == decisions


def test_a_log_of_the_first_behaviour_says_otherwise_under_today_s() -> None:
    found = replay(under("behaviour-0.json", EXPLAINED)).divergence
    assert found is not None
    assert "loss_delta" in str(found) or "command_id" in str(found)


def test_a_log_whose_late_steps_were_clean_says_otherwise_under_today_s() -> None:
    found = replay(under("behaviour-1.json", *CURRENT)).divergence
    assert found is not None
    assert "conservative" in str(found).lower()


def test_telemetry_is_made_of_an_old_log_too() -> None:
    entries, decisions = recorded("behaviour-0.json")
    reader = TelemetryReader()
    packets = [told for e in entries if (told := reader.take(e.lsn, decode(e.kind, e.payload))) is not None]
    assert sum(told.system_health.indicators["policy_arch"] != "" for told in packets) >= decisions


def test_a_flag_of_a_newer_version_is_refused_by_name() -> None:
    with pytest.raises(JournalUnreadable, match="99-later"):
        evolve(State(), 1, journal.ServiceOpened(event_time_ns=1, behaviour_flags=[*CURRENT, "99-later"]))
    assert unknown([*CURRENT, "99-later"]) == ("99-later",)


def test_a_base_of_a_newer_version_is_refused_by_name_too(tmp_path: Path) -> None:
    """Its flags were put down before the base, and whoever begins there never sees that record."""
    newer = State(last_lsn=1, behaviour_flags=(*CURRENT, "99-later"))
    base = base_of(newer, {}, event_time_ns=2)
    with pytest.raises(JournalUnreadable, match="99-later"):
        read_base(base)
    with wal.Log.open(tmp_path) as log:
        log.append([encode(journal.StepReceived(step_index=1)), encode(base)])
        with pytest.raises(JournalUnreadable, match="99-later"):
            beginning(log, None)


def test_flags_are_numbered_in_order_and_a_service_writes_with_all_that_are_not_retired() -> None:
    numbers = [int(name.split("-", 1)[0]) for name in FLAGS]
    assert numbers == list(range(1, len(FLAGS) + 1))
    assert tuple(name for name, flag in FLAGS.items() if not flag.retired) == CURRENT
    assert retired(CURRENT) == ()


def test_a_log_from_before_a_retired_flag_can_be_read_but_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviour, "FLAGS", {EXPLAINED: replace(FLAGS[EXPLAINED], retired=True)})
    entries, _ = recorded("behaviour-0.json")
    with pytest.raises(JournalUnreadable, match="no longer recomputed"):
        replay(entries)
    base = base_of(State(last_lsn=1), {}, event_time_ns=2)
    with pytest.raises(JournalUnreadable, match="no longer recomputed"):
        replay([wal.Entry(2, *encode(base))], base=base)
