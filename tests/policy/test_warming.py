"""Sizes are met ahead of the graphs that have them, and nobody waits for that."""

import logging
import threading
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tamiyo.bench.chance import random_graph, random_network
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy import WarmsUp
from tamiyo.policy.engine import Engine, build, warming
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.fold import Folded, fold
from tamiyo.policy.engine.form import Size, grown, padded, size_of
from tamiyo.policy.engine.loading import MORE, compiled, sample
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.sizes import SIZES, USUAL, Sizes
from tamiyo.policy.engine.warming import SIZES_MAX, WANTED_MAX, WarmedForm
from tamiyo.policy.gnn import GnnPolicy

OWN, HOT, NEXT, OTHER = (1, 4, 1, 8, 4, 4), (1, 8, 1, 8, 4, 4), (1, 12, 1, 8, 4, 4), (1, 12, 2, 8, 4, 4)
NOTHING = Raw(np.zeros(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32))


def dense(size: Size) -> Dense:
    nothing = np.zeros(0, np.int64)
    sizes = Sizes(dict(zip(NODE_TYPES, size, strict=True)), nothing.astype(np.int32), nothing, nothing, ())
    return Dense(sizes, np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), ())


class Copies:
    """Makes forms that tell who met which size first; `gate` holds the runs of other threads up."""

    engine = "counting"

    def __init__(self) -> None:
        self.made = 0
        self.firsts: Counter[str] = Counter()
        self.runs: list[tuple[int, Size, bool]] = []
        self.gate: threading.Event | None = None
        self.is_waited_at = threading.Event()
        self.error: Exception | None = None
        self.caller = threading.current_thread()

    def make(self) -> "Copy":
        self.made += 1
        return Copy(self, self.made)


class Copy:
    engine = "counting"

    def __init__(self, copies: Copies, number: int) -> None:
        self.copies, self.number = copies, number
        self.met: set[Size] = set()

    def run(self, given: Dense) -> Raw:
        copies, size = self.copies, size_of(given)
        is_caller = threading.current_thread() is copies.caller
        if not is_caller and copies.gate is not None:
            copies.is_waited_at.set()
            copies.gate.wait()
        if not is_caller and copies.error is not None:
            raise copies.error
        if size not in self.met:
            copies.firsts["caller" if is_caller else "beside"] += 1
        self.met.add(size)
        copies.runs.append((self.number, size, is_caller))
        return NOTHING


@pytest.fixture
def copies() -> Copies:
    return Copies()


@pytest.fixture
def form(copies: Copies) -> WarmedForm:
    made = WarmedForm(copies.make, dense)
    made.run(dense(HOT))
    copies.firsts.clear()
    return made


def settled(form: WarmedForm, *sizes: Size) -> None:
    form.expect(sizes)
    assert form.settle(60)


def test_a_size_that_was_told_is_new_to_nobody_who_calls(copies: Copies, form: WarmedForm) -> None:
    settled(form, NEXT, OTHER)
    for size in (HOT, NEXT, OTHER, HOT):
        form.run(dense(size))
    assert copies.firsts["caller"] == 0
    assert copies.made == 2


def test_both_copies_come_to_know_every_size_so_that_either_may_answer(copies: Copies, form: WarmedForm) -> None:
    settled(form, NEXT)
    form.run(dense(OTHER))  # nobody told: the caller meets it
    assert copies.firsts["caller"] == 1
    settled(form, (1, 16, 1, 8, 4, 4))
    met = {number: {size for copy, size, _ in copies.runs if copy == number} for number in (1, 2)}
    assert met[1] == met[2] == {HOT, NEXT, OTHER, (1, 16, 1, 8, 4, 4)}


def test_who_calls_meanwhile_waits_for_nothing(copies: Copies, form: WarmedForm) -> None:
    copies.gate = threading.Event()
    form.expect([NEXT])
    form.run(dense(HOT))  # returns although the other copy does not
    form.run(dense(OTHER))
    assert not form.settle(0)
    copies.gate.set()
    assert form.settle(60)
    form.run(dense(NEXT))
    assert copies.firsts["caller"] == 1


def test_nobody_told_nothing_made(copies: Copies, form: WarmedForm) -> None:
    settled(form, HOT)
    form.warm_up([NEXT])
    form.run(dense(NEXT))
    assert copies.made == 1
    assert [is_caller for *_, is_caller in copies.runs] == [True, True, True]


def test_a_size_with_a_form_of_its_own_is_that_form_s_alone(copies: Copies) -> None:
    own = copies.make()
    form = WarmedForm(copies.make, dense, {OWN: own})
    form.expect([OWN])
    form.warm_up([OWN])
    form.run(dense(OWN))
    assert own.met == {OWN}
    assert form._front.met == set()
    assert copies.made == 2, "nothing is to come, so nothing more was made"


def test_the_newest_sizes_come_first_and_few_wait(copies: Copies, form: WarmedForm) -> None:
    copies.gate = threading.Event()
    told = [(1, seeds, 1, layers, 1, 1) for seeds in SIZES[:4] for layers in SIZES[:8]]
    form.expect(told)
    copies.gate.set()
    assert form.settle(60)
    beside = list(dict.fromkeys(size for _, size, is_caller in copies.runs if not is_caller and size != HOT))
    assert beside == list(reversed(told[-WANTED_MAX:]))


def test_one_thread_is_at_it_however_much_is_told(copies: Copies, form: WarmedForm) -> None:
    copies.gate = threading.Event()
    for seeds in SIZES[:6]:
        form.expect([(1, seeds, 1, 1, 1, 1)])
    assert sum(thread.name == "tamiyo-warm-up" and thread is form._thread for thread in threading.enumerate()) == 1
    copies.gate.set()
    assert form.settle(60)
    assert form._thread is None


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, ValueError])
def test_a_copy_that_fails_beside_is_said_once_and_callers_go_on(
    copies: Copies, form: WarmedForm, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    copies.error = kind("no memory for kernels")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            settled(form, NEXT)
    form.run(dense(NEXT))
    assert caplog.text.count("no memory for kernels") == 1
    assert {number for number, _, is_caller in copies.runs if is_caller} == {1}


def test_without_a_thread_the_caller_meets_the_size(
    copies: Copies, form: WarmedForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        settled(form, NEXT)
    form.run(dense(NEXT))
    assert copies.firsts["caller"] == 1
    settled(form, OTHER)
    form.run(dense(OTHER))
    assert copies.firsts["caller"] == 1


def test_a_form_that_rests_lets_its_second_copy_go_until_something_is_expected(
    copies: Copies, form: WarmedForm
) -> None:
    settled(form, NEXT)
    form.rest()
    assert form._back is None
    form.run(dense(NEXT))
    settled(form, NEXT)
    assert (form._back, copies.made) == (None, 2), "it has met that one"
    settled(form, OTHER)
    assert copies.made == 3
    form.run(dense(OTHER))
    assert copies.firsts["caller"] == 0


def test_a_form_that_is_at_it_rests_when_it_is_done(copies: Copies, form: WarmedForm) -> None:
    copies.gate = threading.Event()
    form.expect([NEXT, OTHER])
    form.rest()
    copies.gate.set()
    assert form.settle(60)
    assert form._back is None
    assert len({size for _, size, is_caller in copies.runs if not is_caller}) <= 3, "what nobody needs is not begun"


def test_a_form_that_is_called_upon_again_before_it_rests_keeps_its_second_copy(
    copies: Copies, form: WarmedForm
) -> None:
    copies.gate = threading.Event()
    form.expect([NEXT])
    assert copies.is_waited_at.wait(60), "at rest before it began, it would end and make another copy"
    form.rest()
    form.expect([OTHER])
    copies.gate.set()
    assert form.settle(60)
    assert form._back is not None
    form.run(dense(OTHER))
    assert (copies.firsts["caller"], copies.made) == (0, 2)


def test_a_process_that_ends_waits_for_the_size_under_way_and_begins_no_other(
    copies: Copies, form: WarmedForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies.gate = threading.Event()
    form.expect([NEXT, OTHER])
    monkeypatch.setattr(warming, "is_ending", lambda: True)
    copies.gate.set()
    assert form.settle(60)
    assert len({size for _, size, is_caller in copies.runs if not is_caller}) <= 1


def test_sizes_are_forgotten_before_there_are_too_many(form: WarmedForm) -> None:
    for size in range(SIZES_MAX + 5):
        form.run(dense((1, size, 1, 1, 1, 1)))
    assert len(form._front.met) == 6


@pytest.fixture(scope="module")
def folded() -> Folded:
    return fold(random_network(1))


def outputs(engine: Engine, seeds: int, seed: int) -> list[torch.Tensor]:
    graph = random_graph(dict(zip(NODE_TYPES, (1, seeds, 1, 8, 4, 4), strict=True)), seed)
    found = engine.outputs(graph)
    assert found is not None
    return list(found)


def test_an_answer_is_the_same_to_the_last_bit_whichever_copy_gives_it(folded: Folded) -> None:
    told, untold = Engine(folded, compiled), Engine(folded, compiled)
    for seeds in (3, 5, 9):
        told.expect({**USUAL, "seed": seeds})
        assert told.settle(60)
        for seed in range(3):
            ours, theirs = outputs(told, seeds, seed), outputs(untold, seeds, seed)
            assert all(map(torch.equal, ours, theirs))


def test_an_expected_size_is_met_with_the_next_number_of_seeds(folded: Folded) -> None:
    engine = Engine(folded, compiled)
    form = engine._form
    assert isinstance(form, WarmedForm)
    counts = {"global": 1, "seed": 3, "blueprint": 1, "layer": 7, "activation": 3, "parameter": 0}
    engine.expect(counts)
    assert engine.settle(60)
    assert form._front.met == {(1, 8, 1, 8, 4, 1)}, "the usual size has a form of its own"
    engine.expect({**counts, "blueprint": 3})
    assert engine.settle(60)
    assert form._front.met >= {(1, 4, 4, 8, 4, 1), (1, 8, 4, 8, 4, 1)}
    engine.expect({**counts, "layer": 4_000})
    assert form._thread is None, "a large graph has no size to meet"


def counts_of(*each: int) -> dict[str, int]:
    return dict(zip(NODE_TYPES, each, strict=True))


def test_seeds_grow_to_the_next_size_and_to_the_end_of_the_sizes() -> None:
    assert grown(counts_of(1, 2, 1, 20, 4, 4)) == (1, 4, 1, 24, 4, 4)
    assert grown(counts_of(1, 4, 1, 20, 4, 4)) == (1, 8, 1, 24, 4, 4)
    assert grown(counts_of(1, 1, 1, 0, 0, 0)) == (1, 8, 1, 1, 1, 1), "up to four seeds all is one size"
    assert grown(counts_of(1, SIZES[-1], 1, 9, 1, 1)) == (1, SIZES[-1], 1, 12, 1, 1)
    assert padded(counts_of(1, 3, 0, 9, 200, 13)) == (1, 4, 1, 12, 200, 16)


def test_a_sample_has_the_size_that_it_is_a_sample_of(folded: Folded) -> None:
    for size in (HOT, NEXT, OTHER):
        assert size_of(sample(folded, size)) == size


def test_a_loaded_network_has_met_what_a_run_begins_with() -> None:
    engine = build(random_network(6)).engine
    assert engine is not None
    form = engine._form
    assert isinstance(form, WarmedForm)
    assert form._front.met == {padded(MORE)}
    assert set(form._own) == {padded(USUAL)}
    assert form._back is None, "a copy is made for a network that speaks, not for one that is looked at"
    assert isinstance(GnnPolicy(random_network(6), PolicyIdentity("test", "", ""), engine=engine), WarmsUp)


def failing_after(runs: int) -> Callable[[Folded], WarmedForm]:
    class Failing(Copy):
        def run(self, given: Dense) -> Raw:
            if len(self.copies.runs) >= runs:
                raise RuntimeError("it broke while it warmed up")
            return super().run(given)

    copies = Copies()
    return lambda folded: WarmedForm(lambda: Failing(copies, 1), dense)


def test_a_form_that_fails_while_it_warms_up_is_a_fallback(folded: Folded) -> None:
    engine = Engine(folded, failing_after(0))
    engine.warm_up(USUAL)
    assert (engine.is_compiled, engine.fallbacks) == (False, 1)
    engine.warm_up(USUAL)
    engine.expect(USUAL)
    assert engine.settle(0)
