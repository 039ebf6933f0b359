"""What the network of one seed says of the golden graphs (`tests/graph/golden.py`); run it to write them anew."""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from graph.golden import CASES, OUTPUTS, graph_of, plain, write

from tamiyo.policy.checkpoint import init_checkpoint, load_policy
from tamiyo.policy.protocol import Policy

SEED = 7
"""That of the checkpoint of `conftest.py`."""


def outputs(policy: Policy) -> dict[str, Any]:
    """A proposal for every golden graph that a policy is asked about."""
    graphs = {case: graph_of(case) for case in CASES}
    return {case: plain(policy.propose(graph)._asdict()) for case, graph in graphs.items() if graph.candidates}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "untrained.safetensors"
        init_checkpoint(path, SEED)
        write(OUTPUTS, outputs(load_policy(path)))


if __name__ == "__main__":
    main()
