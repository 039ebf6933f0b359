"""Runs that take minutes: `pytest -m long`."""

import gc
import random
import tracemalloc

import pytest
from live import Live, library
from rig import packet

from tamiyo.testing import FailingPolicy

pytestmark = pytest.mark.long


@pytest.mark.parametrize("seed", range(20))
def test_a_thousand_steps_of_any_kind_replay(seed: int) -> None:
    """Faults, restarts, crashes and spikes at random, reproducible by their seed."""
    draw = random.Random(seed)
    policy = FailingPolicy(failing=False, action=0)
    live = Live(policy=policy, urza=library(risk=0.3))
    for _ in range(1_000):
        policy.failing = draw.random() < 0.2
        if draw.random() < 0.02:
            draw.choice([live.reopen, live.crash])()
        if draw.random() < 0.02:
            live.disk.fail(draw.choice(["fdatasync", "pwrite"]), 5)
        live.clock.advance(draw.choice([0.01, 0.3, 1.5]))
        loss = draw.choice([0.5, 0.6, 0.9, float("nan")])
        live.step(packet(validation_loss=loss, training_metrics={"grad_var": draw.random() * 2}))
        live.service.journal.wait_for_trial()
    live.disk.heal()
    live.check()
    live.close()


def test_memory_stays_flat_over_many_steps() -> None:
    """The state and what the service keeps are bounded: 20,000 steps cost no more memory than 5,000."""
    live = Live(urza=library())
    for _ in range(5_000):
        live.step(packet())
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    log_before = live.service.log.size_bytes
    for _ in range(15_000):
        live.step(packet())
    gc.collect()  # else it is a matter of when the collector came by
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    grown_by_log = live.service.log.size_bytes - log_before  # this disk is in memory
    timings = 15_000 * 400
    assert after - before < 2 * grown_by_log + timings
    live.close()
