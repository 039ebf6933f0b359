"""The dry run: what would go, and what could not be recomputed any more. It reads only."""

from collections.abc import Callable, Mapping
from contextlib import suppress

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import KINDS
from tamiyo.core.paced import Pace, without_rest
from tamiyo.core.retention import Plan, Windows, plan
from tamiyo.core.state import State
from tamiyo.retention.report import Preview
from tamiyo.retention.source import Source
from tamiyo.retention.survey import count_payloads, event_time_at, horizon_of, survey

__all__ = ["preview_of", "untrimmed"]

LOOKS = 8


def untrimmed(look: Callable[[], Preview]) -> Preview:
    """Look again where a run prunes what is being looked at. Raises wal.Trimmed where that never stops."""
    for _ in range(LOOKS - 1):
        with suppress(wal.Trimmed):
            return look()
    return look()


def preview_of(source: Source, state: State, windows: Windows, now_ns: int, pace: Pace = without_rest) -> Preview:
    """What a run would take at event time `now_ns`, of a log that comes to `state`. Raises what reading raises."""
    found = survey(source, state.outbox, windows, now_ns, pace)
    drafted = plan(now_ns, found.holdings, windows)
    segments = source.segments()
    first_lsn = segments[0].first_lsn if segments else 1
    missing_lsn = max(first_lsn - 1, *_unrecomputable(found.holdings.taken), 0)
    missing_after = max(missing_lsn, drafted.prune_before_lsn - 1, *_unrecomputable(drafted.payloads))
    return Preview(
        plan=drafted,
        payloads=count_payloads(source, drafted, found.holdings.taken, pace),
        times=_times(source, drafted),
        horizon_lsn=horizon_of(source, missing_lsn, pace),
        horizon_after_lsn=horizon_of(source, missing_after, pace),
        unfinished="" if found.unfinished is None else found.unfinished[1].run_id,
        windows=windows.payloads,
    )


def _unrecomputable(payloads: Mapping[int, int]) -> list[int]:
    """Of the payloads that go, those that an audit cannot do without: a field report follows from its decision."""
    return [upto_lsn for kind, upto_lsn in payloads.items() if kind != KINDS[journal.FieldReportIssued]]


def _times(source: Source, drafted: Plan) -> tuple[int, int] | None:
    if not drafted.segments:
        return None
    first = event_time_at(source, drafted.segments[0].first_lsn)
    last = event_time_at(source, drafted.prune_before_lsn)
    return first, last
