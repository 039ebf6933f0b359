"""What the decision core costs on a typical step: `pytest tests/bench/test_core_speed.py --benchmark-only`.

The step is taken from the journal of a real service: the small graph, four seeds, a known blueprint, no row triggered,
nothing delivered so far. A second one has a blueprint with a safety sheet, so that a row is recorded with it. Compare
within one run; never asserted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from live import Live, Record
from test_speed import small_library, small_packet

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.decide import decide
from tamiyo.core.events import Event, decode, encode
from tamiyo.core.evolve import Fold, evolve_all
from tamiyo.core.inputs import Inference, Inputs, step_inputs
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.observation import read_packet
from tamiyo.core.state import State
from tamiyo.core.telemetry import TelemetryReader
from tamiyo.leyline import leyline_pb2 as pb

Benchmark = Callable[..., Any]
STEPS = 200


def history(*, sheet: bool = False, **settings: Any) -> list[wal.Entry]:
    library = small_library()
    if sheet:
        known = library.records["run-1"]
        safe = pb.BSDS(risk_score=0.2, hazard_band=pb.HAZARD_BAND_LOW, handling_class=pb.HANDLING_CLASS_STANDARD)
        library.records["run-1"] = Record(known.descriptor, {**known.extras, "bsds": safe})
    live = Live(urza=library, **settings)
    for index in range(STEPS):
        live.clock.advance(0.1)
        made = small_packet()
        made.validation_loss, made.current_epoch = 0.7 - 0.0001 * index, index
        live.step(made)
    live.check()
    entries = live.entries()
    live.close()
    return entries


@dataclass(frozen=True)
class Typical:
    """The last step of a history: the state before it, what was observed, and what `decide` reads."""

    before: State  # after the packet's arrival
    observed: tuple[Event, ...]
    inputs: Inputs
    batch: tuple[Event, ...]
    arrival: journal.StepReceived


def typical(entries: list[wal.Entry]) -> Typical:
    events = [decode(entry.kind, entry.payload) for entry in entries]
    place = max(index for index, event in enumerate(events) if isinstance(event, journal.StepReceived))
    received = events[place]
    state = evolve_all(State(), events[: place + 1])
    batch = tuple(events[place + 1 :])
    made = next(event for event in batch if isinstance(event, journal.DecisionMade))
    observed = tuple(event for event in batch if isinstance(event, journal.GraphObserved | Inference))
    inputs = step_inputs(
        made.step_lsn, received, observed, event_time_ns=made.event_time_ns, timings=made.timings,
        observation=read_packet(received.packet, UNLIMITED),
    )  # fmt: skip
    return Typical(state, observed, inputs, batch, received)


@pytest.fixture(scope="module")
def entries() -> list[wal.Entry]:
    return history()


@pytest.fixture(scope="module")
def step(entries: list[wal.Entry]) -> Typical:
    return typical(entries)


def whole(step: Typical) -> State:
    """Everything a step folds and decides: the observations, the decision, what follows from it."""
    fold = Fold(step.before)
    fold.follow(step.observed)
    fold.follow(decide(fold.standing, step.inputs).events)
    return fold.state()


def test_decide_and_evolve_of_a_typical_step(benchmark: Benchmark, step: Typical) -> None:
    assert benchmark(whole, step).decisions == step.before.decisions + 1


def test_decide_and_evolve_with_a_safety_sheet(benchmark: Benchmark) -> None:
    benchmark(whole, typical(history(sheet=True)))


def test_decide_alone(benchmark: Benchmark, step: Typical) -> None:
    state = evolve_all(step.before, step.observed)
    made = benchmark(decide, state, step.inputs)
    benchmark.extra_info["rows"] = len(made.rows)
    assert made.events[0].command == step.batch[len(step.observed)].command


def test_evolve_alone(benchmark: Benchmark, step: Typical) -> None:
    benchmark(evolve_all, step.before, step.batch)


def test_encoding_the_batch(benchmark: Benchmark, step: Typical) -> None:
    encoded = benchmark(lambda: [encode(event) for event in step.batch])
    benchmark.extra_info["bytes"] = sum(len(payload) for _, payload in encoded)


def test_reading_the_packet(benchmark: Benchmark, step: Typical) -> None:
    benchmark(read_packet, step.arrival.packet, UNLIMITED)


def told(step: Typical) -> Callable[[], bytes]:
    """The telemetry of a step, ready to be made once: the reader that is ahead of it begins anew each time."""
    begun = TelemetryReader(step.before)
    begun._step_lsn = step.before.last_lsn
    begun._read(step.before.last_lsn, step.arrival)

    def tell() -> bytes:
        for event in step.batch:
            packet = begun.take(begun.last_lsn + 1, event)
        return packet.SerializeToString(deterministic=True)

    return tell


def test_telemetry_of_a_typical_step(benchmark: Benchmark, step: Typical) -> None:
    """One packet and its bytes, folding included."""
    benchmark.pedantic(lambda tell: tell(), setup=lambda: ((told(step),), {}), rounds=2_000)


@pytest.mark.parametrize("length", [10, 1_024])
def test_decide_and_evolve_with_observation_windows(benchmark: Benchmark, length: int) -> None:
    step = typical(history(fr_obs_window_epochs=length))
    benchmark(whole, step)


def test_replaying_the_state(benchmark: Benchmark, entries: list[wal.Entry]) -> None:
    def fold() -> State:
        folding = Fold()
        for entry in entries:
            folding.take(entry.lsn, decode(entry.kind, entry.payload))
        return folding.state()

    assert benchmark.pedantic(fold, rounds=10).decisions == STEPS
    benchmark.extra_info["steps_per_second"] = STEPS / benchmark.stats.stats.median
