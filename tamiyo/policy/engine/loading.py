"""From a network to its engine, compiled, warmed up, and compared with the reference before anything relies on it."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tamiyo.graph.schema import NODE_TYPES
from tamiyo.policy.ambient import unswayed
from tamiyo.policy.engine.dense import Dense, dense_of, layout_of
from tamiyo.policy.engine.dense_device import DeviceForm
from tamiyo.policy.engine.device import Device
from tamiyo.policy.engine.engine import Engine, OnDevice
from tamiyo.policy.engine.fold import Folded, fold
from tamiyo.policy.engine.form import Form, Size, padded
from tamiyo.policy.engine.probe import blank_graph, probe_graph
from tamiyo.policy.engine.sizes import USUAL, sizes_of
from tamiyo.policy.engine.sparse_device import DeviceSparse
from tamiyo.policy.engine.warming import WarmedForm
from tamiyo.policy.hetero import to_hetero
from tamiyo.policy.network import NetworkOutput, TamiyoNetwork

__all__ = ["PROBE_TOLERANCE", "WARM_UP_RUNS", "Built", "build"]

PROBE_TOLERANCE = 1e-4
"""Of the largest output: a hundred times what fp32 in another order brings, and a tenth of what a mistake does."""

WARM_UP_RUNS = 3

MORE = {**USUAL, "seed": 2 * USUAL["seed"]}
"""Past the usual size: what the form for all others is tried on."""

LARGE = {**USUAL, "seed": 32, "layer": 64, "activation": 48}
"""Past the dense form: what the large form of a device is tried on."""

INEXACT_TOLERANCE = 0.02
"""The same where a device multiplies in TF32, or large graphs are computed in bf16: three digits."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Built:
    """`engine` is None where the reference has to do; `warm_ms` is what folding, compiling and warming up took."""

    engine: Engine | None
    warm_ms: float


@unswayed()
def build(
    network: TamiyoNetwork, *, bf16: bool = False, device: Callable[[], Device] | None = None, may_capture: bool = True
) -> Built:
    """Build a network's engine; in `bf16`, large graphs are computed in half precision where the processor can.

    A `device` computes, if there is one and it says what the reference says, else the processor does. `may_capture`:
    nothing trains on it yet.

    Whatever the engine cannot do is the reference's, and the log says so once.
    """
    started_ns = time.perf_counter_ns()
    engine: Engine | None = None
    try:
        dtype = torch.bfloat16 if bf16 else torch.float32
        engine = Engine(fold(network), compiled, dtype if not bf16 or has_bf16() else torch.float32)
        for counts in (USUAL, MORE):
            _compare(engine, network, counts)
        if device is not None:
            engine.take_device(lambda folded: _on_device(folded, device, dtype, may_capture=may_capture))
            _try_device(engine, network)
    except (ArithmeticError, ValueError) as error:
        logger.warning("the network runs as PyTorch Geometric has it, many times slower: %s", str(error))
        engine = None
    return Built(engine, (time.perf_counter_ns() - started_ns) / 1e6)


def has_bf16() -> bool:
    """Whether torch multiplies in bf16 by this processor's own instructions; says so where it does not.

    Without them it takes 33 times as long as in fp32 (AVX2 of a Zen 4, torch 2.13).
    """
    mkldnn = torch.ops.mkldnn
    is_there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    has = is_there and mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001  torch 2.11 has no other
    if not has:
        logger.warning("this processor does not multiply in bf16: large graphs are computed in fp32 on it")
    return bool(has)


def compiled(folded: Folded) -> Form:
    """Compile the form for small graphs.

    Raises:
        ImportError: OpenVINO is not there, or not for this machine.
        RuntimeError: it cannot compile the network here.
    """
    from tamiyo.policy.engine.vino import VinoForm  # noqa: PLC0415  what cannot be imported is a fallback

    usual = VinoForm(folded, sizes_of(USUAL, folded))
    return WarmedForm(lambda: VinoForm(folded), lambda size: sample(folded, size), {padded(USUAL): usual})


def sample(folded: Folded, size: Size) -> Dense:
    """A graph of a size, as the dense form takes it."""
    graph = blank_graph(dict(zip(NODE_TYPES, size, strict=True)))
    layout = layout_of(graph, folded)
    assert layout is not None  # noqa: S101  without an edge none is there twice
    return dense_of(graph, layout, folded)


def _on_device(folded: Folded, device: Callable[[], Device], dtype: torch.dtype, *, may_capture: bool) -> OnDevice:
    found = device()
    return OnDevice(
        small=DeviceForm(folded, found, lambda size: sample(folded, size), may_capture=may_capture),
        large=DeviceSparse(folded, found, dtype),
        is_exact=found.is_exact,
    )


def _try_device(engine: Engine, network: TamiyoNetwork) -> None:
    """Capture the sizes that a run begins with, and leave a device that does not say what the reference says."""
    if not engine.is_on_device:
        return
    try:
        for counts in (USUAL, MORE):
            engine.warm_up(counts)
            _compare(engine, network, counts)
        _compare(engine, network, LARGE)
    except ArithmeticError as error:
        engine.leave_device(error)


def _compare(engine: Engine, network: TamiyoNetwork, counts: Mapping[str, int]) -> None:
    """Raise ArithmeticError unless the engine says what the reference says."""
    graph = probe_graph(counts)
    tolerance = PROBE_TOLERANCE if engine.is_exact and counts is not LARGE else INEXACT_TOLERANCE
    found = [engine.outputs(graph) for _ in range(WARM_UP_RUNS)][-1]
    data = to_hetero(graph)
    with torch.inference_mode():
        expected: NetworkOutput = network(data.x_dict, data.categories_dict, data.edge_index_dict, data.edge_attr_dict)
    if found is None:
        raise ArithmeticError("the engine does not take the graph that it is tried on")
    for name, ours, theirs in zip(NetworkOutput._fields, found, expected, strict=True):
        error, most = _largest(ours - theirs), max(1.0, _largest(theirs))
        if not error <= tolerance * most:
            raise ArithmeticError(f"the engine's {name} differs from the reference's by {error:.3g}")


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
