"""OpenVINO as it is set up: what it keeps for sizes that it met is bounded."""

import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tamiyo.bench.chance import random_network
from tamiyo.policy.engine import runtime
from tamiyo.policy.engine.fold import fold
from tamiyo.policy.engine.loading import sample
from tamiyo.policy.engine.runtime import ENTRIES_MAX, compile_for_cpu, openvino, ops
from tamiyo.policy.engine.sizes import SIZES
from tamiyo.policy.engine.vino import VinoForm

PROPERTY = "CPU_RUNTIME_CACHE_CAPACITY"


class Core:
    """The process's runtime, which says what it was asked for, and perhaps does not know of the bound."""

    def __init__(self, error: str = "") -> None:
        self.whole = runtime._core[0]
        self.error = error
        self.asked: list[dict[str, Any]] = []

    def compile_model(self, model: Any, device: str, properties: dict[str, Any]) -> Any:
        self.asked.append(properties)
        if self.error and (PROPERTY in properties or PROPERTY not in self.error):
            raise RuntimeError(self.error)
        return self.whole.compile_model(model, device, properties)


def model() -> Any:
    given = ops.parameter(openvino.PartialShape([-1, 4]), float)
    return openvino.Model([ops.relu(given)], [given], "little")


@pytest.fixture(autouse=True)
def set_up() -> None:
    compile_for_cpu(model(), {})


def test_this_openvino_takes_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()
    monkeypatch.setattr(runtime, "_core", [core])
    compile_for_cpu(model(), {"NUM_STREAMS": 1})
    assert core.asked == [{"NUM_STREAMS": 1, PROPERTY: ENTRIES_MAX}]


def test_one_that_does_not_know_it_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core(f"NotFound: Unsupported property {PROPERTY} by CPU plugin.")
    monkeypatch.setattr(runtime, "_core", [core])
    assert compile_for_cpu(model(), {"NUM_STREAMS": 1}).inputs
    assert core.asked[1:] == [{"NUM_STREAMS": 1}]


def test_what_cannot_be_compiled_is_not_tried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core("no memory for kernels")
    monkeypatch.setattr(runtime, "_core", [core])
    with pytest.raises(RuntimeError, match="no memory for kernels"):
        compile_for_cpu(model(), {})
    assert len(core.asked) == 1


@pytest.mark.long
def test_hundreds_of_sizes_take_no_more_memory_than_some() -> None:
    """Without a bound every one takes 1.7 MB more, for ever."""
    folded = fold(random_network(1))
    form = VinoForm(folded)
    sizes = [size for size in itertools.product((1,), SIZES, SIZES[:5], SIZES, SIZES[:7], SIZES[:7]) if sum(size) < 128]
    random.Random(1).shuffle(sizes)
    taken = []
    for number, size in enumerate(sizes[:700], 1):
        form.run(sample(folded, size))
        if number in {400, 700}:
            taken.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert taken[1] - taken[0] < 100 * 2**20
