"""For tests of embedders and our own: collaborators that go wrong on demand, clocks to turn by hand, strategies.

    faults                 the vocabulary: fail, hang, late, garble, heal, release
    policies, library,     a policy, a library, a bus and a clock that speak it, and well-behaved ones
    bus, clock
    history                writes journals without a service, valid by construction
    machine                `ControllerMachine` and `run_controller_machine(factory)`
    strategies             Hypothesis strategies for whatever a controller is fed

docs/testing.md shows how a host uses them. What is named here needs nothing but Tamiyo; `strategies` and `machine`
need Hypothesis, and where that is installed importing this package registers the strategies for `from_type`.
"""

from importlib.util import find_spec

from tamiyo.testing.bus import FaultBus, MemoryBus, Message
from tamiyo.testing.clock import FaultClock, ManualClock
from tamiyo.testing.faults import Faults
from tamiyo.testing.history import History
from tamiyo.testing.library import FaultLibrary, MemoryLibrary, MemoryRecord
from tamiyo.testing.policies import FailingPolicy, FaultPolicy, FixedPolicy, HangingPolicy, ScriptedPolicy

if find_spec("hypothesis") is not None:
    import tamiyo.testing.strategies  # noqa: F401  registers them

__all__ = [
    "FailingPolicy",
    "FaultBus",
    "FaultClock",
    "FaultLibrary",
    "FaultPolicy",
    "Faults",
    "FixedPolicy",
    "HangingPolicy",
    "History",
    "ManualClock",
    "MemoryBus",
    "MemoryLibrary",
    "MemoryRecord",
    "Message",
    "ScriptedPolicy",
]
