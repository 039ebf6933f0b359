"""Audit: trust nothing, recompute everything, name the first difference.

Level 1 checks the integrity of the log. Level 2 recomputes every decision from replayed state and the
recorded facts of its step, and compares what followed bit for bit. Level 3 builds every graph and runs every
inference again (`inference`, the one module here that knows graph and policies). Each level is PASS, FAIL or
UNVERIFIABLE.
"""

from tamiyo.audit.differences import Difference, differences
from tamiyo.audit.replay import Auditor, Divergence, Replay, replay
from tamiyo.audit.report import AuditReport, Level, audit

__all__ = ["AuditReport", "Auditor", "Difference", "Divergence", "Level", "Replay", "audit", "differences", "replay"]
