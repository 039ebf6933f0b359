"""The engine on a real CUDA device: `python -m pytest -m cuda` where there is one.

What needs no device is in `test_device.py`. Figures: `python tests/bench/cuda_table.py`.
"""

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import torch
from policy.agreement import assert_close, decision

from tamiyo.bench.chance import large_graph, random_graph, random_network
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.graph import Graph
from tamiyo.graph.schema import NODE_TYPES
from tamiyo.integrations.tolaria.statistics import ConflictRate
from tamiyo.policy.checkpoint import Checkpoint, load_policy
from tamiyo.policy.engine import Engine, build
from tamiyo.policy.engine.device import cuda_device, device_of
from tamiyo.policy.engine.sizes import USUAL
from tamiyo.policy.gnn import GnnPolicy
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device answers here"),
]

IDENTITY = PolicyIdentity("test", "tamiyo_gnn_v1", "pyg")
SIZES = {
    "usual": dict(USUAL),
    "not captured": dict(zip(NODE_TYPES, (1, 9, 2, 20, 6, 6), strict=True)),
    "large": dict(zip(NODE_TYPES, (1, 12, 1, 150, 40, 20), strict=True)),
}


@pytest.fixture(scope="module", autouse=True)
def exact() -> Iterator[None]:
    """Products in fp32, whatever the process was started with."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    yield
    torch.backends.cuda.matmul.fp32_precision = before


@pytest.fixture(scope="module")
def network() -> TamiyoNetwork:
    return random_network(2, spread=20.0)


def engine_of(network: TamiyoNetwork, *, bf16: bool = False, may_capture: bool = True) -> Engine:
    engine = build(network, bf16=bf16, device=device_of("cuda"), may_capture=may_capture).engine
    assert engine is not None
    assert engine.is_on_device, "see the log: it fell back"
    return engine


@pytest.fixture(scope="module")
def engine(network: TamiyoNetwork) -> Engine:
    return engine_of(network)


def outputs(engine: Engine, graph: Graph) -> NetworkOutput:
    found = engine.outputs(graph)
    assert found is not None
    assert engine.is_on_device, "see the log: it fell back"
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_the_device_says_what_the_reference_says(
    network: TamiyoNetwork, engine: Engine, size: str, density: float
) -> None:
    reference = GnnPolicy(network, IDENTITY)
    for seed in range(5):
        graph = random_graph(SIZES[size], seed, density=density)
        found, expected = outputs(engine, graph), reference.reference_outputs(graph)
        assert_close(found, expected)
        assert decision(found, graph) == decision(expected, graph)
    assert engine.is_compiled


@pytest.mark.parametrize("size", SIZES)
def test_the_device_is_bit_equal_from_run_to_run(engine: Engine, size: str) -> None:
    graph, other = (random_graph(SIZES[size], seed) for seed in (1, 2))
    first = outputs(engine, graph)
    outputs(engine, other)
    assert all(map(torch.equal, first, outputs(engine, graph)))


def test_ten_thousand_nodes_in_both_precisions(network: TamiyoNetwork, engine: Engine) -> None:
    graph = large_graph(1)
    expected = GnnPolicy(network, IDENTITY).reference_outputs(graph)
    assert_close(outputs(engine, graph), expected)
    for found, theirs in zip(outputs(engine_of(network, bf16=True), graph), expected, strict=True):
        assert float((found - theirs).abs().max()) <= 0.05 * max(1.0, float(theirs.abs().max()))


def test_tf32_is_followed_where_the_process_has_it_and_never_set(network: TamiyoNetwork) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        engine = engine_of(network)
        assert ", tf32, CUDA" in engine.engine
        graph = random_graph(SIZES["usual"], 1)
        expected = GnnPolicy(network, IDENTITY).reference_outputs(graph)
        for found, theirs in zip(outputs(engine, graph), expected, strict=True):
            assert float((found - theirs).abs().max()) <= 0.02 * max(1.0, float(theirs.abs().max()))
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    assert ", fp32, CUDA" in engine_of(network).engine
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


class Trainer:
    """Trains on the same device meanwhile: dropout draws random numbers, which a capture could refuse it."""

    def __init__(self) -> None:
        self.steps = 0
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error
        assert self.steps

    def _run(self) -> None:
        try:
            model = torch.nn.Sequential(
                torch.nn.Linear(512, 512), torch.nn.Dropout(0.5), torch.nn.Linear(512, 8)
            ).cuda()
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            while not self._stop.is_set() or not self.steps:
                optimizer.zero_grad()
                model(torch.randn(256, 512, device="cuda")).square().mean().backward()
                optimizer.step()
                self.steps += 1
        except BaseException as error:  # noqa: BLE001  it is raised where the trainer ends
            self.error = error


def test_beside_a_trainer_both_go_on(network: TamiyoNetwork, engine: Engine) -> None:
    graphs = [random_graph(counts, seed) for counts in SIZES.values() for seed in range(3)]
    expected = [outputs(engine, graph) for graph in graphs]
    with Trainer():
        for _ in range(30):
            for graph, alone in zip(graphs, expected, strict=True):
                assert all(map(torch.equal, outputs(engine, graph), alone))


def test_a_policy_loaded_beside_a_trainer_captures_nothing(network: TamiyoNetwork) -> None:
    graph = random_graph(SIZES["usual"], 1)
    with Trainer():
        late = engine_of(network, may_capture=False)
        assert_close(outputs(late, graph), GnnPolicy(network, IDENTITY).reference_outputs(graph))
        assert not late.is_compiled


def test_a_captured_graph_needs_no_scratch_memory_that_others_clear(engine: Engine) -> None:
    """As `torch.compile` with "reduce-overhead" clears it for a trainer, which then fills what it was given."""
    graph = random_graph(SIZES["usual"], 3)
    expected = outputs(engine, graph)
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    filled = [torch.full((2**20,), torch.nan, device="cuda") for _ in range(64)]
    assert all(map(torch.equal, outputs(engine, graph), expected))
    assert all(bool(one.isnan().all()) for one in filled), "a graph wrote where a trainer's tensors are"


def test_nobody_gets_the_memory_that_a_captured_graph_reads(engine: Engine) -> None:
    graph, device = random_graph(SIZES["usual"], 4), cuda_device()
    expected = outputs(engine, graph)
    with device.calls():  # whatever is free on the stream that the graph's inputs were made on
        filled = [
            torch.full((count,), -1, dtype=torch.int32, device=device.place)
            for count in (8, 128, 512, 4096, 2**20)
            for _ in range(64)
        ]
    device.finish()
    assert all(map(torch.equal, outputs(engine, graph), expected))
    assert all(bool((one == -1).all()) for one in filled)


def test_a_capture_that_breaks_leaves_the_allocators_whole_and_later_policies_capture(network: TamiyoNetwork) -> None:
    device = cuda_device()
    with pytest.raises(RuntimeError):  # it waits for the device, as nothing in a capture may
        device.captured(lambda: torch.ones(1, device=device.place).cpu(), device.buffer(1))
    torch.cuda.empty_cache()
    assert engine_of(network).is_compiled


ANOTHER_DEVICE = """
import threading, torch
from tamiyo.bench.chance import random_graph, random_network
from tamiyo.policy.engine import build
from tamiyo.policy.engine.device import device_of
from tamiyo.policy.engine.sizes import USUAL
engine = build(random_network(1), device=device_of("cuda:1")).engine
thread = threading.Thread(target=lambda: engine.outputs(random_graph(USUAL, 1)))
thread.start()
thread.join()
assert engine.is_on_device, "see the log: it fell back"
assert [torch._C._cuda_hasPrimaryContext(index) for index in (0, 1)] == [False, True]
"""


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second device here")
def test_no_other_device_is_woken() -> None:
    subprocess.run([sys.executable, "-c", ANOTHER_DEVICE], check=True, timeout=300)


def test_what_a_trainer_sets_for_its_thread_changes_nothing(checkpoint: Checkpoint, graph: Graph) -> None:
    expected = load_policy(Path(checkpoint.path), device="cuda").propose(graph)
    with torch.device("cuda"), torch.autocast("cuda", dtype=torch.bfloat16):
        policy = load_policy(Path(checkpoint.path), device="cuda")
        assert policy.propose(graph) == expected
    assert "cuda" in policy.identity.engine
    assert policy.identity.compile_fallbacks == 0


def test_calls_at_the_same_time_do_not_disturb_each_other(engine: Engine) -> None:
    graphs = [random_graph(counts, seed) for counts in SIZES.values() for seed in range(2)]
    expected = [outputs(engine, graph) for graph in graphs]
    wrong: list[int] = []

    def ask(place: int) -> None:
        answers = (outputs(engine, graphs[place]) for _ in range(30))
        wrong.extend(place for found in answers if not all(map(torch.equal, found, expected[place])))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(graphs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_without_room_on_the_device_the_processor_computes(network: TamiyoNetwork) -> None:
    gc.collect()  # what is left of other policies, on the stream that all share, would be room enough
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        built = build(network, device=device_of("cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert built.engine is not None
    assert (built.engine.is_on_device, built.engine.fallbacks) == (False, 1)
    graph = random_graph(SIZES["usual"], 1)
    found = built.engine.outputs(graph)
    assert found is not None
    assert_close(found, GnnPolicy(network, IDENTITY).reference_outputs(graph))


def test_a_checkpoint_loads_onto_the_device_and_says_so(checkpoint: Checkpoint) -> None:
    policy = load_policy(Path(checkpoint.path), device="cuda:0")
    assert "cuda:0" in policy.identity.engine
    assert policy.identity.is_compiled
    assert policy.identity.compile_fallbacks == 0


def test_gradients_on_two_devices_are_compared() -> None:
    parameters = [torch.nn.Parameter(torch.ones(3, device=place)) for place in ("cuda", "cpu")]
    rate = ConflictRate()
    for sign in (1.0, -1.0):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, sign)
        rate.update(parameters)
    assert rate.value == 1.0
