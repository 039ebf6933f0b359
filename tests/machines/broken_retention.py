"""Controllers whose retention is broken on purpose, each in one place: the machine must find every one of them."""

from collections.abc import Iterable
from typing import Any

import pytest
from machines.broken_controllers import Variant

import wal
from tamiyo.core.retention import Holdings, Plan, Windows, plan
from tamiyo.retention import run, survey

PRUNE = wal.Log.prune


def ignore_windows(patch: pytest.MonkeyPatch) -> None:
    """What is a moment old is old enough."""

    def hasty(now_ns: int, held: Holdings, windows: Windows, **options: Any) -> Plan:
        return plan(now_ns, held, Windows(0, dict.fromkeys(windows.payloads, 0)), **options)

    patch.setattr(run, "plan", hasty)


def drop_heads(patch: pytest.MonkeyPatch) -> None:
    """A prune keeps no proof of the heads that it is asked to keep."""
    patch.setattr(wal.Log, "prune", lambda log, before_lsn, **_: PRUNE(log, before_lsn))


def prune_one_segment_more(patch: pytest.MonkeyPatch) -> None:
    """A prune takes the first segment that is to stay, too, where that is not the last one."""

    def greedy(log: wal.Log, before_lsn: int, *, keep_heads: Iterable[wal.Head] = ()) -> wal.Pruned:
        kept = [info.first_lsn for info in log.segments() if info.first_lsn >= before_lsn]
        return PRUNE(log, kept[1] if len(kept) > 1 else before_lsn, keep_heads=keep_heads)

    patch.setattr(wal.Log, "prune", greedy)


def redact_nothing(patch: pytest.MonkeyPatch) -> None:
    """Payloads that are to go stay."""
    patch.setattr(wal.Log, "redact", lambda *_, **__: wal.Redaction(0, 0, 0))


def forget_interrupted_runs(patch: pytest.MonkeyPatch) -> None:
    """A run that an earlier process began is not finished: it never ends, or the next one finds the log shorter."""
    patch.setattr(survey._LookedBack, "unfinished", lambda _: None)


GOES = "what goes is what a plan"
ENDS = "a retention run comes to its end"
RETENTION_VARIANTS = {
    "windows that retention ignores": Variant(ignore_windows, ("nothing goes before",)),
    "a prune that drops the heads to keep": Variant(drop_heads, ("a head that a run",)),
    "a prune of one segment too many": Variant(prune_one_segment_more, (GOES, ENDS)),
    "a redaction that takes nothing": Variant(redact_nothing, (GOES,)),
    "an interrupted run that nobody finishes": Variant(
        forget_interrupted_runs, (ENDS, GOES), among=("step", "dies_amid_retention")
    ),
}
