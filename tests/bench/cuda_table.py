"""What the engine takes on a CUDA device, beside the processor, in turns: p50, p95 and p99 in milliseconds, as JSON.

Where `fallbacks` is not 0, the processor was measured in that one's place.

python tests/bench/cuda_table.py [device]
"""

import json
import sys
from typing import Any

import torch

from tamiyo.bench.chance import large_graph, random_network
from tamiyo.bench.samples import small_graph
from tamiyo.bench.timing import Turn, in_turns
from tamiyo.core.proposal import PolicyIdentity
from tamiyo.policy.engine import build
from tamiyo.policy.engine.device import device_of
from tamiyo.policy.gnn import GnnPolicy, engine_identity

IDENTITY = PolicyIdentity("bench", "tamiyo_gnn_v1", "")


def policy_on(name: str, *, bf16: bool = False, may_capture: bool = True) -> GnnPolicy:
    network = random_network(1)
    engine = build(network, bf16=bf16, device=device_of(name), may_capture=may_capture).engine
    assert engine is not None
    return GnnPolicy(network, engine_identity(IDENTITY, engine), engine=engine)


def figures(name: str, rounds: int) -> dict[str, Any]:
    small, large = small_graph(), large_graph(1)
    captured, plain = policy_on(name), policy_on(name, may_capture=False)
    half, processor = policy_on(name, bf16=True), policy_on("cpu")
    measured = {
        "small": in_turns(
            {
                "captured": Turn(lambda: captured.propose(small), 20),
                "kernel by kernel": Turn(lambda: plain.propose(small), 20),
                "processor": Turn(lambda: processor.propose(small), 20),
            },
            rounds,
        ),
        "large": in_turns(
            {
                "fp32": Turn(lambda: captured.propose(large), 5),
                "bf16": Turn(lambda: half.propose(large), 5),
                "processor": Turn(lambda: processor.propose(large), 2),
            },
            rounds,
        ),
    }
    on_device = {"captured": captured, "kernel by kernel": plain, "bf16": half}
    return {
        "torch": torch.__version__,
        "engines": {name: policy.identity.engine for name, policy in on_device.items()},
        "fallbacks": {name: policy.identity.compile_fallbacks for name, policy in on_device.items()},
        **measured,
    }


if __name__ == "__main__":
    found = figures(sys.argv[1] if len(sys.argv) > 1 else "cuda", 30)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
