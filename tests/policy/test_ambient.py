"""What a trainer sets in torch, for its thread or for the process, changes nothing of what a network answers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from tamiyo.bench.chance import random_graph, random_network
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.graph import Graph
from tamiyo.policy.checkpoint import Checkpoint, init_checkpoint, load_policy
from tamiyo.policy.engine import Engine, build, loading
from tamiyo.policy.engine.eager import EagerForm
from tamiyo.policy.engine.fold import fold
from tamiyo.policy.engine.sizes import USUAL
from tamiyo.policy.gnn import GnnPolicy
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork

SMALL = dict(USUAL)
LARGE = {**USUAL, "seed": 12, "layer": 150, "activation": 40}


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "double": lambda: default_dtype(torch.float64),
    "half": lambda: default_dtype(torch.bfloat16),
    "another device": lambda: default_device("meta"),  # no device is needed to see what would go there
    "a device around": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.fixture(params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[object]]:
    return SETTINGS[str(request.param)]


@pytest.fixture(scope="module")
def network() -> TamiyoNetwork:
    return random_network(2, spread=20.0)


@pytest.fixture(scope="module")
def forms(network: TamiyoNetwork) -> dict[str, Callable[[Graph], NetworkOutput | None]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "has_bf16", lambda: True)  # slow on some processors, and right on all
        fast, half = build(network).engine, build(network, bf16=True).engine
    assert fast is not None
    assert half is not None
    return {
        "compiled": fast.outputs,
        "eager": Engine(fold(network), EagerForm).outputs,
        "bf16": half.outputs,
        "reference": GnnPolicy(network, PolicyIdentity("test", "tamiyo_gnn_v1", "pyg")).reference_outputs,
    }


@pytest.mark.parametrize("counts", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("form", ["compiled", "eager", "bf16", "reference"])
def test_every_form_answers_the_same_bits(
    forms: dict[str, Callable[[Graph], NetworkOutput | None]],
    form: str,
    counts: dict[str, int],
    setting: Callable[[], AbstractContextManager[object]],
) -> None:
    graph = random_graph(counts, 1, density=0.1)
    expected = forms[form](graph)
    with setting():
        found = forms[form](graph)
    assert expected is not None
    assert found is not None
    assert all(map(torch.equal, found, expected))


def test_a_network_is_made_loaded_and_compiled_as_ever(
    checkpoint: Checkpoint, graph: Graph, tmp_path: Path, setting: Callable[[], AbstractContextManager[object]]
) -> None:
    expected = load_policy(Path(checkpoint.path)).propose(graph)
    with setting():
        assert init_checkpoint(tmp_path / "again.safetensors", 7).digest == checkpoint.digest
        policy = load_policy(Path(checkpoint.path))
        assert policy.engine is not None, "see the log: the engine was given up"
        assert policy.propose(graph) == expected
    assert (policy.identity.is_compiled, policy.identity.compile_fallbacks) == (True, 0)


def test_what_the_trainer_set_is_as_it_was(checkpoint: Checkpoint, graph: Graph) -> None:
    with torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16), default_dtype(torch.float64):
        load_policy(Path(checkpoint.path), reference=True).propose(graph)
        assert torch.get_default_device() == torch.device("meta")
        assert torch.is_autocast_enabled("cpu")
        assert torch.empty(1).dtype == torch.float64


def test_making_a_network_draws_from_nobodys_random_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` seeds every device, and a trainer's dropout would begin anew there."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    init_checkpoint(tmp_path / "new.safetensors", 3)
    assert seeded == []
    assert torch.equal(torch.get_rng_state(), before)
