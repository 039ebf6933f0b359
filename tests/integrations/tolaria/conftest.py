import pytest
import torch
from cuda_double import Clock, Cuda

torch.set_num_threads(1)  # these networks are tiny: on a busy machine more threads wait for each other


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cuda(monkeypatch) -> Cuda:
    return Cuda().install(monkeypatch)
