"""The engine says what the reference says: on graphs and weights by chance, in every form."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policy.agreement import assert_close, decision

from tamiyo.bench.chance import graph_of, random_graph, random_network
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.graph import Graph
from tamiyo.graph.schema import EDGE_COLUMNS, NODE_TYPES, RELATIONS
from tamiyo.policy.engine import Engine, build
from tamiyo.policy.engine.dense import dense_of, layout_of
from tamiyo.policy.engine.eager import EagerForm
from tamiyo.policy.engine.engine import DENSE_NODES_MAX, FINITE_MAX, INPUT_MAX
from tamiyo.policy.engine.fold import INTO, Folded, bound, fold, live
from tamiyo.policy.engine.form import Form
from tamiyo.policy.engine.loading import compiled
from tamiyo.policy.engine.probe import probe_graph
from tamiyo.policy.engine.raw import output_of
from tamiyo.policy.engine.sparse import SparseForm
from tamiyo.policy.engine.vino import VinoForm
from tamiyo.policy.gnn import GnnPolicy
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork

IDENTITY = PolicyIdentity("test", "tamiyo_gnn_v1", "pyg")
SMALL = dict(zip(NODE_TYPES, (1, 4, 1, 8, 4, 4), strict=True))

Run = Callable[[Graph], NetworkOutput]


class Forms:
    """One network in every form."""

    def __init__(self, seed: int, spread: float) -> None:
        self.seed, self.spread = seed, spread
        self.network = random_network(seed, spread=spread)
        self.reference = GnnPolicy(self.network, IDENTITY)
        self.folded = fold(self.network)
        sparse = SparseForm(self.folded)
        self.forms: dict[str, Run] = {
            "openvino": self._dense(compiled(self.folded)),
            "openvino, any shape": self._dense(VinoForm(self.folded)),
            "eager": self._dense(EagerForm(self.folded)),
            "sparse": lambda graph: output_of(sparse.run(graph, topology(graph)), graph, self.folded.widths),
        }

    def _dense(self, form: Form) -> Run:
        def run(graph: Graph) -> NetworkOutput:
            layout = layout_of(graph, self.folded)
            assert layout is not None
            return output_of(form.run(dense_of(graph, layout, self.folded)), graph, self.folded.widths)

        return run


def topology(graph: Graph) -> bytes:
    return repr([graph.node_counts(), *(graph.edge_index[one.edge_type].tolist() for one in RELATIONS)]).encode()


@pytest.fixture(scope="module", params=[(1, 1.0), (2, 20.0)], ids=["as drawn", "heads that disagree"])
def forms(request: pytest.FixtureRequest) -> Forms:
    return Forms(*request.param)


COUNTS = st.fixed_dictionaries(
    {
        "global": st.just(1), "seed": st.integers(0, 9), "blueprint": st.integers(0, 4), "layer": st.integers(0, 13),
        "activation": st.integers(0, 9), "parameter": st.integers(0, 9),
    }
)  # fmt: skip


@given(counts=COUNTS, seed=st.integers(0, 2**32), density=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
@settings(max_examples=25, deadline=None)
def test_every_form_agrees_with_the_reference_on_any_graph(
    forms: Forms, counts: dict[str, int], seed: int, density: float
) -> None:
    graph = random_graph(counts, seed, density=density)
    expected = forms.reference.outputs(graph)
    for run in forms.forms.values():
        found = run(graph)
        assert_close(found, expected)
        if graph.candidates:
            assert decision(found, graph) == decision(expected, graph)


def test_the_classes_differ_from_graph_to_graph_so_that_agreement_means_something() -> None:
    forms = Forms(2, 20.0)
    graphs = [random_graph({**SMALL, "seed": 2 + seed % 5}, seed, density=0.4) for seed in range(40)]
    chosen = [decision(forms.forms["openvino"](graph), graph) for graph in graphs]
    assert chosen == [decision(forms.reference.outputs(graph), graph) for graph in graphs]
    assert len({choice[0] for choice in chosen}) >= 3


@pytest.mark.parametrize("present", RELATIONS, ids=lambda relation: relation.label)
def test_one_relation_alone_is_heard(forms: Forms, present: object) -> None:
    full = random_graph(SMALL, 5, density=0.7)
    index = {
        one.edge_type: full.edge_index[one.edge_type] if one is present else np.zeros((2, 0), np.int64)
        for one in RELATIONS
    }
    graph = graph_of(SMALL, index, np.random.default_rng(5))
    expected = forms.reference.outputs(graph)
    for run in forms.forms.values():
        assert_close(run(graph), expected)


def test_duplicate_edges_count_twice_as_in_the_reference(forms: Forms) -> None:
    full = random_graph(SMALL, 6, density=0.5)
    index = {kind: np.concatenate([edges, edges[:, :2]], axis=1) for kind, edges in full.edge_index.items()}
    graph = graph_of(SMALL, index, np.random.default_rng(6))
    assert layout_of(graph, forms.folded) is None
    engine = Engine(forms.folded, compiled)
    found = engine.outputs(graph)
    assert found is not None
    assert_close(found, forms.reference.outputs(graph))


def test_a_graph_past_the_dense_form_agrees(forms: Forms) -> None:
    graph = random_graph({**SMALL, "layer": DENSE_NODES_MAX + 50, "parameter": 60}, 7, density=0.1)
    found = Engine(forms.folded, compiled).outputs(graph)
    assert found is not None
    assert_close(found, forms.reference.outputs(graph))


def test_half_precision_differs_by_little(forms: Forms) -> None:
    graph = random_graph({**SMALL, "layer": 200}, 8, density=0.1)
    raw = SparseForm(forms.folded, torch.bfloat16).run(graph, b"")
    expected = forms.reference.outputs(graph)
    for found, theirs in zip(output_of(raw, graph, forms.folded.widths), expected, strict=True):
        assert float((found - theirs).abs().max()) <= 0.002 * max(1.0, float(theirs.abs().max()))
        assert found.dtype == torch.float32


@pytest.mark.parametrize("has_bf16", [True, False])
def test_large_graphs_are_in_half_precision_where_the_processor_has_it(
    has_bf16: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: has_bf16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    engine = build(random_network(3), bf16=True).engine
    assert engine is not None
    assert engine.engine.partition("; large ")[2].startswith("bfloat16" if has_bf16 else "float32")
    assert caplog.text.count("does not multiply in bf16") == (0 if has_bf16 else 1)


def test_every_form_is_bit_equal_from_run_to_run(forms: Forms) -> None:
    graph, other = random_graph(SMALL, 9), random_graph({**SMALL, "seed": 7}, 10)
    for run in forms.forms.values():
        first = run(graph)
        run(other)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, run(graph), strict=True))


def test_sizes_that_change_and_come_back_leave_no_trace(forms: Forms) -> None:
    graphs = [random_graph({**SMALL, "seed": seeds}, seeds) for seeds in (2, 4, 7, 12)]
    fresh = Forms(forms.seed, forms.spread)
    first = [fresh.forms["openvino"](graph) for graph in graphs]
    for place in (3, 0, 2, 2, 1, 3, 0):
        again = fresh.forms["openvino"](graphs[place])
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(again, first[place], strict=True))
        assert_close(again, forms.reference.outputs(graphs[place]))


def test_the_one_global_node_is_attended_with_one_head(forms: Forms) -> None:
    for layer in forms.folded.gat:
        for kind, part in layer.items():
            assert part.heads == tuple(1 if relation.source == "global" else 4 for relation in INTO[kind])


def test_calls_at_the_same_time_do_not_disturb_each_other(forms: Forms) -> None:
    engine = Engine(forms.folded, compiled)
    graphs = [random_graph({**SMALL, "seed": 3 + place}, place) for place in range(4)]  # the usual size and past it
    expected = [engine.outputs(graph) for graph in graphs]
    wrong: list[int] = []

    def ask(place: int) -> None:
        for _ in range(20):
            found, wanted = engine.outputs(graphs[place]), expected[place]
            assert found is not None
            assert wanted is not None
            if not all(torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)):
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(graphs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def changed(graph: Graph, value: float, where: str) -> Graph:
    if where == "edges":
        graph.edge_attr["seed", "peer", "seed"][0, 0] = value
    else:
        graph.features[where][0, 0] = value
    return graph


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["global", "seed", "layer", "edges"])
def test_what_is_not_finite_stays_visible(forms: Forms, value: float, where: str) -> None:
    policy = GnnPolicy(forms.network, IDENTITY, engine=Engine(forms.folded, compiled))
    output = policy.outputs(changed(random_graph(SMALL, 11, density=1.0), value, where))
    assert not bool(torch.isfinite(output.action).all())
    assert not bool(torch.isfinite(output.seed_scores).all())
    assert policy.identity.compile_fallbacks == 1


@pytest.mark.parametrize("counts", [SMALL, {**SMALL, "layer": 150}], ids=["small", "large"])
def test_what_only_the_reference_may_take_is_counted_each_time_and_said_once(
    forms: Forms, caplog: pytest.LogCaptureFixture, counts: dict[str, int]
) -> None:
    engine = Engine(forms.folded, compiled)
    graph = changed(random_graph(counts, 11), np.nan, "seed")
    assert [engine.outputs(graph) for _ in range(3)] == [None] * 3
    assert engine.fallbacks == 3
    assert caplog.text.count("the reference takes a graph") == 1


def test_an_input_past_all_measure_is_the_references(forms: Forms) -> None:
    policy = GnnPolicy(forms.network, IDENTITY, engine=Engine(forms.folded, compiled))
    graph = changed(random_graph(SMALL, 12, density=1.0), 2 * INPUT_MAX, "seed")
    expected = forms.reference.outputs(graph)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(policy.outputs(graph), expected, strict=True))


def test_the_bound_holds_for_extreme_inputs(forms: Forms) -> None:
    graph = random_graph(SMALL, 13, density=1.0)
    for features in graph.features.values():
        features[:] = np.sign(features) * INPUT_MAX
    output = forms.reference.outputs(graph)
    most = max(float(value.abs().max()) for value in output)
    assert most <= bound(forms.folded, INPUT_MAX) < FINITE_MAX


def test_weights_that_could_overflow_are_the_references(caplog: pytest.LogCaptureFixture) -> None:
    network = random_network(3)
    for layer in (network.sage1, network.sage2, network.gat1, network.gat2):
        for weights in layer.parameters():
            weights.mul_(1e6)
    with caplog.at_level(logging.WARNING):
        assert build(network).engine is None
    assert "the network runs as PyTorch Geometric has it" in caplog.text


def test_the_last_layers_compute_only_what_a_head_reads() -> None:
    first, second, third, fourth = live(4)
    assert first == second == NODE_TYPES
    assert set(NODE_TYPES) - set(third) == {"activation"}
    assert fourth == ("global", "seed", "blueprint")


def failing(error: Exception) -> Callable[[Folded], EagerForm]:
    def compile_form(folded: Folded) -> EagerForm:
        raise error

    return compile_form


@pytest.mark.parametrize("error", [ImportError("no openvino here"), RuntimeError("no such instruction")], ids=repr)
def test_without_the_compiled_form_plain_torch_answers_and_it_is_said_once(
    forms: Forms, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        engine = Engine(forms.folded, failing(error))
        graph = random_graph(SMALL, 14)
        found = [engine.outputs(graph) for _ in range(3)][-1]
    assert found is not None
    assert_close(found, forms.reference.outputs(graph))
    assert (engine.is_compiled, engine.fallbacks) == (False, 1)
    assert engine.engine.startswith("folded fp32, torch ")
    assert caplog.text.count(str(error)) == 1


class BreakingForm(EagerForm):
    engine = "breaks"

    def run(self, dense: object) -> object:  # type: ignore[override]
        raise RuntimeError("it broke while it ran")


def test_a_compiled_form_that_fails_in_a_run_is_replaced_and_the_identity_says_so(forms: Forms) -> None:
    policy = GnnPolicy(forms.network, IDENTITY, engine=Engine(forms.folded, BreakingForm))
    graph = random_graph(SMALL, 15)
    assert_close(policy.outputs(graph), forms.reference.outputs(graph))
    policy.outputs(graph)
    assert policy.identity.compile_fallbacks == 1
    assert policy.identity.engine.startswith("folded fp32, torch ")


class WrongForm(EagerForm):
    """Reads other weights than it was given."""

    def __init__(self, folded: Folded) -> None:
        super().__init__(fold(random_network(99)))


def test_an_engine_that_disagrees_with_the_reference_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tamiyo.policy.engine.loading.compiled", WrongForm)
    with caplog.at_level(logging.WARNING):
        assert build(random_network(4)).engine is None
    assert "differs from the reference's" in caplog.text


def test_the_probe_is_a_valid_graph_with_every_relation() -> None:
    graph = probe_graph()
    for relation in RELATIONS:
        assert graph.edge_index[relation.edge_type].shape[1] > 0
        assert graph.edge_attr[relation.edge_type].shape[1] == EDGE_COLUMNS
    assert_close(*(2 * [GnnPolicy(TamiyoNetwork(), IDENTITY).outputs(graph)]))


def test_a_network_that_knows_fewer_indices_reads_the_rest_as_unknown() -> None:
    network = random_network(5)
    network.know_registries({"seed_id": 3, "layer_type": 2})
    graph = random_graph(SMALL, 16)
    found = Engine(fold(network), compiled).outputs(graph)
    assert found is not None
    assert_close(found, GnnPolicy(network, IDENTITY).outputs(graph))


def test_openvino_runs_without_its_telemetry() -> None:
    code = (
        "import sys, tamiyo.policy.engine.vino; "
        "sys.exit(any(name.startswith('openvino_telemetry') and sys.modules[name] for name in list(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_ctrl_c_is_heard_after_networks_came_and_went() -> None:
    code = """
import ctypes, faulthandler, gc, os, signal
from tamiyo.policy.engine.fold import fold
from tamiyo.policy.engine.vino import VinoForm
from tamiyo.policy.network import TamiyoNetwork

def signal_stack():
    found = (ctypes.c_size_t * 3)()  # address, flags, size
    ctypes.CDLL(None).sigaltstack(None, found)
    return list(found)

faulthandler.enable()  # gives this thread a signal stack of its own
before = signal_stack()
first, second = (VinoForm(fold(TamiyoNetwork())) for _ in range(2))
del first  # the older one first: each used to bring back the signal stack that it had found
del second
gc.collect()
heard = []
signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
os.kill(os.getpid(), signal.SIGINT)
assert heard == [signal.SIGINT]
assert signal_stack() == before
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
