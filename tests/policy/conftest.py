from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from graph.sketch import small_graph

from tamiyo.graph import Graph
from tamiyo.policy.checkpoint import Checkpoint, init_checkpoint, load_policy
from tamiyo.policy.gnn import GnnPolicy


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads for so little arithmetic wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """One untrained network for all tests of the folder: 14 million weights take a while to draw."""
    return init_checkpoint(tmp_path_factory.mktemp("policy") / "untrained.safetensors", 7)


@pytest.fixture(scope="session")
def policy(checkpoint: Checkpoint) -> GnnPolicy:
    return load_policy(Path(checkpoint.path))


@pytest.fixture(scope="session")
def graph() -> Graph:
    return small_graph()
