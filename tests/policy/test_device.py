"""The forms for a device, on the processor in its place: the function, what is captured when, and every way to fail.

`test_cuda.py` runs the same on a real one.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from policy.agreement import assert_close, decision
from policy.processor import Processor
from torch import Tensor

from tamiyo.bench.chance import random_graph, random_network
from tamiyo.config import Settings
from tamiyo.core.inputs import identity_message
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.errors import SettingsInvalid
from tamiyo.graph import Graph
from tamiyo.policy.checkpoint import Checkpoint, load_policy
from tamiyo.policy.engine import Engine, build
from tamiyo.policy.engine.dense import Dense
from tamiyo.policy.engine.dense_device import KEPT_MAX, DeviceForm
from tamiyo.policy.engine.device import Device, cuda_device, device_of
from tamiyo.policy.engine.eager import EagerForm
from tamiyo.policy.engine.engine import OnDevice
from tamiyo.policy.engine.fold import Folded, fold
from tamiyo.policy.engine.form import padded
from tamiyo.policy.engine.loading import compiled, sample
from tamiyo.policy.engine.raw import Raw
from tamiyo.policy.engine.sizes import USUAL
from tamiyo.policy.engine.sparse_device import DeviceSparse
from tamiyo.policy.gnn import GnnPolicy, engine_identity
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork

IDENTITY = PolicyIdentity("test", "tamiyo_gnn_v1", "pyg")
SMALL = dict(USUAL)
OTHER = {**USUAL, "seed": 9, "blueprint": 2}
LARGE = {**USUAL, "seed": 12, "layer": 150, "activation": 40}


@pytest.fixture(scope="module", params=[(1, 1.0), (2, 20.0)], ids=["as drawn", "heads that disagree"])
def network(request: pytest.FixtureRequest) -> TamiyoNetwork:
    seed, spread = request.param
    return random_network(seed, spread=spread)


@pytest.fixture(scope="module")
def folded(network: TamiyoNetwork) -> Folded:
    return fold(network)


def on(device: Device, dtype: torch.dtype = torch.float32, *, may_capture: bool = True) -> Callable[[Folded], OnDevice]:
    def make(folded: Folded) -> OnDevice:
        small = DeviceForm(folded, device, lambda size: sample(folded, size), may_capture=may_capture)
        return OnDevice(small, DeviceSparse(folded, device, dtype), device.is_exact)

    return make


def engine_on(folded: Folded, device: Device, dtype: torch.dtype = torch.float32) -> Engine:
    engine = Engine(folded, compiled, dtype)
    engine.take_device(on(device, dtype))
    return engine


def outputs(engine: Engine, graph: Graph) -> NetworkOutput:
    found = engine.outputs(graph)
    assert found is not None
    return found


@pytest.mark.parametrize("counts", [SMALL, OTHER, LARGE, {**SMALL, "layer": 0, "parameter": 0}], ids=str)
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_a_device_says_what_the_reference_says(
    network: TamiyoNetwork, folded: Folded, counts: dict[str, int], density: float
) -> None:
    device = Processor()
    engine = engine_on(folded, device)
    for seed in range(2):
        graph = random_graph(counts, seed, density=density)
        found, expected = outputs(engine, graph), GnnPolicy(network, IDENTITY).reference_outputs(graph)
        assert_close(found, expected)
        assert decision(found, graph) == decision(expected, graph)
    assert (engine.fallbacks, engine.is_on_device) == (0, True)


def test_a_captured_size_says_the_same_and_runs_as_one(folded: Folded) -> None:
    device = Processor()
    captured, plain = engine_on(folded, device), engine_on(folded, Processor())
    captured.warm_up(USUAL)
    for seed in range(3):
        graph = random_graph(SMALL, seed)
        pairs = zip(outputs(captured, graph), outputs(plain, graph), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert (device.captures, device.replays) == (1, 3)
    assert (captured.is_compiled, plain.is_compiled) == (True, False)


def test_edges_that_are_there_twice_are_the_large_form_s(network: TamiyoNetwork, folded: Folded) -> None:
    full = random_graph(SMALL, 6, density=0.5)
    for edge_type, edges in full.edge_index.items():
        full.edge_index[edge_type] = torch.from_numpy(edges).repeat(1, 2).numpy()
        full.edge_attr[edge_type] = torch.from_numpy(full.edge_attr[edge_type]).repeat(2, 1).numpy()
    assert_close(outputs(engine_on(folded, Processor()), full), GnnPolicy(network, IDENTITY).reference_outputs(full))


def test_half_precision_differs_by_little(network: TamiyoNetwork, folded: Folded) -> None:
    graph = random_graph(LARGE, 8, density=0.1)
    found = outputs(engine_on(folded, Processor(), torch.bfloat16), graph)
    expected = GnnPolicy(network, IDENTITY).reference_outputs(graph)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) <= 0.02 * max(1.0, float(theirs.abs().max()))
        assert ours.dtype == torch.float32


def test_the_next_graph_leaves_the_answer_before_it_alone(folded: Folded) -> None:
    engine = engine_on(folded, Processor())
    engine.warm_up(USUAL)
    for counts in (SMALL, LARGE):
        first = outputs(engine, random_graph(counts, 1))
        kept = [value.clone() for value in first]
        outputs(engine, random_graph(counts, 2))
        assert all(map(torch.equal, first, kept))


def test_once_steps_have_begun_nothing_is_captured(folded: Folded) -> None:
    device = Processor()
    engine = engine_on(folded, device)
    engine.warm_up(USUAL)
    engine.expect(OTHER)
    assert engine.settle(0)
    engine.warm_up(OTHER)
    outputs(engine, random_graph(OTHER, 1))
    outputs(engine, random_graph(SMALL, 1))
    assert (device.captures, device.replays) == (1, 1)


def test_what_is_loaded_while_something_trains_captures_nothing(network: TamiyoNetwork) -> None:
    device = Processor()
    built = build(network, device=lambda: device, may_capture=False)
    assert built.engine is not None
    outputs(built.engine, random_graph(SMALL, 1))
    assert (device.captures, built.engine.is_compiled, built.engine.is_on_device) == (0, False, True)


def test_few_sizes_keep_buffers_and_the_others_run_all_the_same(folded: Folded) -> None:
    form = DeviceForm(folded, Processor(), lambda size: sample(folded, size))
    sizes = [
        padded({**USUAL, "seed": seeds, "layer": layers})
        for seeds in (5, 9, 13, 17, 25, 33)
        for layers in range(1, 97, 8)
    ]
    for size in sizes:
        form.run(sample(folded, size))
    assert len(set(sizes)) > len(form._kept) == KEPT_MAX
    form.warm_up([sizes[0], padded(USUAL)])
    assert form._kept[sizes[0]].is_captured
    assert padded(USUAL) not in form._kept


LIFE = (SMALL, OTHER, LARGE, SMALL)


def whole_life(folded: Folded, device: Device) -> tuple[Engine, list[NetworkOutput]]:
    engine = Engine(folded, EagerForm)
    engine.take_device(on(device))
    engine.warm_up(USUAL)
    return engine, [outputs(engine, random_graph(counts, 3)) for counts in LIFE]


def test_wherever_a_device_fails_the_processor_answers_and_it_is_counted_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = random_network(5)
    folded, reference, device = fold(network), GnnPolicy(network, IDENTITY), Processor()
    whole_life(folded, device)
    expected = [reference.reference_outputs(random_graph(counts, 3)) for counts in LIFE]
    assert {"buffer", "calls", "finish", "captured", "replay"} == set(device.called)
    for failing in range(1, len(device.called) + 1):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            engine, found = whole_life(folded, Processor(failing))
        for ours, theirs in zip(found, expected, strict=True):
            assert_close(ours, theirs)
        assert (engine.fallbacks, engine.is_on_device) == (1, False), device.called[:failing]
        assert engine.engine.startswith("folded fp32, torch ")
        assert caplog.text.count("the device cannot be used, the processor computes: CUDA out of memory") == 1


def test_the_form_of_the_processor_is_told_what_the_device_s_was(folded: Folded) -> None:
    device = Processor()
    engine = engine_on(folded, device)
    engine.expect(OTHER)
    device.failing = 1
    outputs(engine, random_graph(SMALL, 1))
    assert engine.settle(60)
    assert padded(OTHER) in engine._form._front.met  # type: ignore[attr-defined]


class Wrong(Processor):
    """Loses what it was given."""

    def captured(self, compute: Callable[[], Tensor], answer: Tensor) -> Callable[[], None]:
        super().captured(compute, answer.zero_())
        return lambda: None


def test_a_device_that_disagrees_with_the_reference_is_left_while_loading(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine = build(random_network(4), device=Wrong).engine
    assert engine is not None
    assert (engine.is_on_device, engine.fallbacks, engine.is_compiled) == (False, 1, True)
    assert "the processor computes: the engine's action differs from the reference's" in caplog.text


def test_a_device_of_three_digits_is_held_to_three_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tamiyo.policy.engine.loading.INEXACT_TOLERANCE", 0.0)
    left = build(random_network(4), device=lambda: Processor(is_exact=False)).engine
    assert left is not None
    assert not left.is_on_device, "it was held to the tolerance that nothing reaches"
    monkeypatch.setattr("tamiyo.policy.engine.loading.INEXACT_TOLERANCE", 0.02)
    kept = build(random_network(4), device=lambda: Processor(is_exact=False)).engine
    assert kept is not None
    assert kept.is_on_device


def test_no_device_is_a_fallback_and_the_identity_says_what_runs(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        policy = load_policy(Path(checkpoint.path), device="cuda")
    assert "there is no CUDA device: " in caplog.text
    message = identity_message(policy.identity)
    assert (message.compiled, message.compile_fallbacks) == (True, 1)
    assert message.engine.startswith("folded fp32, openvino ")
    assert message.compile_warm_ms > 0


def test_the_identity_names_device_and_version_and_follows_a_fallback(network: TamiyoNetwork) -> None:
    device = Processor()
    engine = build(network, device=lambda: device).engine
    assert engine is not None
    policy = GnnPolicy(network, engine_identity(IDENTITY, engine), engine=engine)
    assert policy.identity.engine == f"folded on processor, torch {torch.__version__}; large float32 on cpu"
    assert (policy.identity.is_compiled, policy.identity.compile_fallbacks) == (True, 0)
    device.failing = 1
    policy.outputs(random_graph(SMALL, 1))
    assert policy.identity.engine.startswith("folded fp32, openvino ")
    assert (policy.identity.is_compiled, policy.identity.compile_fallbacks) == (True, 1)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RuntimeError, match="there is no CUDA device 2, only 2"):
        cuda_device(2)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "", "CPU", "cuda0", "cuda:1:2"])
def test_what_is_no_device_is_refused_in_code_and_in_the_settings(name: str) -> None:
    with pytest.raises(ValueError, match="a policy cannot run on"):
        device_of(name)
    with pytest.raises((ValueError, SettingsInvalid)):
        Settings(policy_device=name)


def test_the_processor_is_the_default() -> None:
    assert Settings().policy_device == "auto"
    assert device_of("auto") is device_of("cpu") is None
    for name in ("cuda", "cuda:0", "cuda:11"):
        assert Settings(policy_device=name).policy_device == name
        assert device_of(name) is not None


def test_a_device_that_hangs_is_left_and_the_processor_answers(
    network: TamiyoNetwork, folded: Folded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tamiyo.policy.engine.device.TURN_S", 0.0)
    device = Processor()
    engine, graphs = engine_on(folded, device), [random_graph(counts, 1) for counts in (SMALL, LARGE)]
    with device.turn, caplog.at_level(logging.WARNING):  # a call on another thread, abandoned, that does not end
        for graph in graphs:
            assert_close(outputs(engine, graph), GnnPolicy(network, IDENTITY).reference_outputs(graph))
    assert (engine.fallbacks, engine.is_on_device) == (1, False)
    assert "it has not answered a call for 0 s" in caplog.text


class Waiting(Processor):
    """Tells that a call is in it, and lets it go on when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.is_in, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def finish(self) -> None:
        super().finish()
        self.is_in.set()
        self.may_go_on.wait()


@pytest.mark.parametrize("counts", [SMALL, LARGE], ids=["small", "large"])
def test_a_call_that_ends_after_its_device_was_left_is_counted_no_second_time(
    folded: Folded, monkeypatch: pytest.MonkeyPatch, counts: dict[str, int]
) -> None:
    monkeypatch.setattr("tamiyo.policy.engine.device.TURN_S", 0.0)
    device, graph = Waiting(), random_graph(counts, 1)
    engine = engine_on(folded, device)
    expected = outputs(engine, graph)
    device.is_in.clear()
    device.may_go_on.clear()
    found: list[NetworkOutput] = []
    late = threading.Thread(target=lambda: found.append(outputs(engine, graph)))
    late.start()
    device.is_in.wait()
    outputs(engine, graph)
    device.failing = 1  # and fails at last
    device.may_go_on.set()
    late.join()
    assert_close(found[0], expected)
    assert (engine.fallbacks, engine.is_on_device) == (1, False)


@pytest.mark.parametrize("counts", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_device_that_answers_with_what_is_not_finite_is_left(
    network: TamiyoNetwork,
    folded: Folded,
    monkeypatch: pytest.MonkeyPatch,
    counts: dict[str, int],
    value: float,
) -> None:
    engine, graph = engine_on(folded, Processor()), random_graph(counts, 1)
    for form in (DeviceForm, DeviceSparse):
        whole = form.run

        def broken(self: object, *given: object, whole: Callable[..., Raw] = whole) -> Raw:
            raw = whole(self, *given)
            return Raw(raw.heads, raw.seed_scores * np.float32(value), raw.blueprint_scores)

        monkeypatch.setattr(form, "run", broken)
    assert_close(outputs(engine, graph), GnnPolicy(network, IDENTITY).reference_outputs(graph))
    assert (engine.fallbacks, engine.is_on_device) == (1, False)


def test_a_compiled_form_that_answers_with_what_is_not_finite_is_left(network: TamiyoNetwork, folded: Folded) -> None:
    class Broken:
        engine = "broken"

        def run(self, dense: Dense) -> Raw:
            raw = EagerForm(folded).run(dense)
            return Raw(raw.heads + np.float32("nan"), raw.seed_scores, raw.blueprint_scores)

    engine, graph = Engine(folded, lambda _: Broken()), random_graph(SMALL, 1)
    assert_close(outputs(engine, graph), GnnPolicy(network, IDENTITY).reference_outputs(graph))
    assert (engine.fallbacks, engine.is_compiled) == (1, False)


def test_no_size_is_captured_that_is_not_kept(folded: Folded) -> None:
    device = Processor()
    form = DeviceForm(folded, device, lambda size: sample(folded, size))
    sizes = [(1, seeds, 1, layers, 4, 4) for seeds in (1, 2, 4, 8) for layers in (1, 2, 4, 8, 12, 16, 24, 32, 48)]
    form.warm_up(sizes)
    assert (len(form._kept), device.captures) == (KEPT_MAX, KEPT_MAX)


def test_a_step_of_a_known_large_topology_is_one_copy(folded: Folded, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied piece by piece is waited for piece by piece."""
    engine, graph = engine_on(folded, Processor()), random_graph(LARGE, 1, density=0.1)
    expected = outputs(engine, graph)
    for name in (f"{DeviceSparse.__module__}.device_plan_of", f"{DeviceSparse.__module__}.DeviceSparse._there"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("an array goes by itself"))
    assert all(map(torch.equal, outputs(engine, graph), expected))
    assert engine.is_on_device
