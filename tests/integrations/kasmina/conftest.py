import pytest
from kasmina_rig import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()
