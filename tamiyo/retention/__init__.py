"""Retention: what a log need no longer hold is planned, taken and accounted for, and what is left proves the same.

The plan is a pure function (`tamiyo.core.retention`). Here it is made from a log (`survey`), carried out (`run`), and
proven (`prove`): beside a live service by `TamiyoService.retain`, without one by `retain_directory`; `preview` changes
nothing. `docs/operations.md` says what goes when, and what an auditor can do after it.
"""

from tamiyo.retention.offline import preview, prune_unrecorded, retain_directory
from tamiyo.retention.report import Outcome, Preview, Report
from tamiyo.retention.run import Order, Retention

__all__ = ["Order", "Outcome", "Preview", "Report", "Retention", "preview", "prune_unrecorded", "retain_directory"]
