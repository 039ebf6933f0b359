import pytest
import torch
from kasmina_rig import Rig

torch.set_num_threads(1)  # these networks are tiny: on a busy machine more threads wait for each other


@pytest.fixture
def rig() -> Rig:
    return Rig()
