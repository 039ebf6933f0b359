"""For tests of embedders and our own: fixed policies, clocks to turn by hand, and Hypothesis strategies.

`FixedPolicy` and `ManualClock` need nothing but Tamiyo; `tamiyo.testing.strategies` needs Hypothesis.
"""

from tamiyo.testing.clock import ManualClock
from tamiyo.testing.policies import FailingPolicy, FixedPolicy, HangingPolicy

__all__ = ["FailingPolicy", "FixedPolicy", "HangingPolicy", "ManualClock"]
