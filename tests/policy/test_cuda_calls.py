"""What is asked of CUDA, in which order, on which stream: `torch.cuda` replaced by one that writes it down."""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Self

import pytest
import torch
from torch import Tensor

from tamiyo.bench.chance import random_network
from tamiyo.integrations.kasmina import GraftPoint, SeedManager
from tamiyo.policy.engine import build
from tamiyo.policy.engine.device import WARM_UP_RUNS, cuda_device, device_of
from tamiyo.speakers import as_this_thread_has

DEFAULT = "default"


class Cuda:
    """Two devices. What is called stands in `told`, with the stream that was the current one."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.streams: list[int] = []
        self.pools = 0
        self.graphs: list[Graph] = []
        self.current = DEFAULT
        self.device = 0
        self.woken = {1}
        """Devices that have a context: the trainer's."""
        self.broken_begin: BaseException | None = None
        self.broken_end: Exception | None = None

    def tell(self, what: str) -> None:
        self.told.append((what, self.current))

    def new_pool(self) -> str:
        self.pools += 1
        return f"pool {self.pools}"

    def end_allocations(self, index: int, pool: object) -> None:
        assert pool == f"pool {self.pools}"
        self.tell(f"end allocations on {index}")
        if self.broken_end is None:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    def new_stream(self, place: torch.device, priority: int = 0) -> "Stream":
        self.streams.append(priority)
        return Stream(self, f"stream {len(self.streams)}", place.index)

    @contextmanager
    def on(self, stream: "Stream") -> Iterator[None]:
        """As `torch.cuda.stream`: both ways it sets the stream's device, which from CUDA 12 on wakes it."""
        before = self.current, self.device
        self.current, self.device = stream.name, stream.index
        self.woken.add(self.device)
        try:
            yield
        finally:
            self.current, self.device = before
            self.woken.add(self.device)

    @contextmanager
    def at(self, place: torch.device) -> Iterator[None]:
        """As `torch.cuda.device`: on the way back it wakes nothing."""
        before, self.device = self.device, place.index
        self.woken.add(self.device)
        try:
            yield
        finally:
            self.device = before


class Stream:
    def __init__(self, cuda: Cuda, name: str, index: int) -> None:
        self.cuda, self.name, self.index = cuda, name, index

    def synchronize(self) -> None:
        self.cuda.told.append(("synchronize", self.name))


class Graph:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        cuda.graphs.append(self)

    def capture_begin(self, pool: object, capture_error_mode: str) -> None:
        assert (pool, capture_error_mode) == (f"pool {self.cuda.pools}", "thread_local")
        self.cuda.tell("begin")
        if self.cuda.broken_begin is not None:
            raise self.cuda.broken_begin

    def capture_end(self) -> None:
        self.cuda.tell("end")
        if self.cuda.broken_end is not None:
            raise self.cuda.broken_end

    def replay(self) -> None:
        self.cuda.tell("replay")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    monkeypatch.setattr("tamiyo.policy.engine.device._known", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Stream", made.new_stream)
    monkeypatch.setattr(torch.cuda, "stream", made.on)
    monkeypatch.setattr(torch.cuda, "device", made.at)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", made.new_pool)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(made))
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", made.end_allocations, raising=False)
    return made


class Answer(Tensor):
    """Memory of the host; a copy to it is told."""

    cuda: Cuda

    def __new__(cls, cuda: Cuda) -> Self:
        made = torch.zeros(1).as_subclass(cls)
        made.cuda = cuda
        return made

    def copy_(self, src: Tensor, non_blocking: bool = False) -> Self:
        assert non_blocking
        self.cuda.tell("copy")
        return self


def computing(cuda: Cuda) -> Tensor:
    cuda.tell("compute")
    return torch.zeros(1)


def test_captures_have_a_stream_that_nothing_else_is_ever_queued_on(cuda: Cuda) -> None:
    """cuBLAS keeps scratch memory for each stream: that of a graph has to be the graph's own."""
    device = cuda_device(0)
    for _ in range(2):
        with device.calls():
            cuda.tell("kernel by kernel")
        again = device.captured(lambda: computing(cuda), Answer(cuda))
        with device.calls():
            again()
    once = [
        *[("compute", "stream 1")] * WARM_UP_RUNS,
        ("synchronize", "stream 1"),
        ("begin", "stream 2"),
        ("compute", "stream 2"),
        ("end", "stream 2"),
        ("replay", "stream 1"),
        ("copy", "stream 1"),
    ]
    assert cuda.told == [("kernel by kernel", "stream 1"), *once] * 2
    assert cuda.streams == [-1, -1], "a graph's kernels have the priority of the stream that they were captured on"
    assert cuda.current == DEFAULT


@pytest.mark.parametrize("broken_end", [None, RuntimeError("operation failed due to a previous error during capture")])
def test_a_capture_that_breaks_ends_and_says_what_broke_it(cuda: Cuda, broken_end: Exception | None) -> None:
    device, cuda.broken_end = cuda_device(0), broken_end

    def compute() -> Tensor:
        found = computing(cuda)
        if cuda.current == "stream 2":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        device.captured(compute, Answer(cuda))
    ends = [("end", "stream 2")] + [("end allocations on 0", "stream 2")] * (broken_end is not None)
    assert cuda.told[-len(ends) :] == ends
    assert (device._shared.first is None) == (broken_end is not None), "a pool whose graphs are all gone takes no other"
    assert cuda.current == DEFAULT


def test_a_capture_that_breaks_at_its_end_is_over_for_the_allocator_too(cuda: Cuda) -> None:
    """torch skips that where the stream's capture was invalid, and keeps asking the graph which streams it has."""
    device, cuda.broken_end = cuda_device(0), RuntimeError("operation failed due to a previous error during capture")
    with pytest.raises(RuntimeError, match="a previous error"):
        device.captured(lambda: computing(cuda), Answer(cuda))
    assert cuda.told[-2:] == [("end", "stream 2"), ("end allocations on 0", "stream 2")]
    assert len(device._shared.broken) == 1
    cuda.broken_end = None
    device.captured(lambda: computing(cuda), Answer(cuda))
    assert cuda.pools == 2, "the allocator of pinned memory still takes the first for one that is captured into"


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (KeyboardInterrupt(), None),  # it comes as soon as the call returns
        (RuntimeError("CUDA error: out of memory"), RuntimeError("Capture must end on the same stream it began on.")),
    ],
    ids=["an interrupt", "an error"],
)
def test_a_capture_that_breaks_as_it_begins_ends_as_well(
    cuda: Cuda, error: BaseException, end: Exception | None
) -> None:
    """torch tells its allocators of a capture before it asks CUDA for one."""
    device, cuda.broken_begin, cuda.broken_end = cuda_device(0), error, end
    with pytest.raises(type(error)):
        device.captured(lambda: computing(cuda), Answer(cuda))
    ends = [("end", "stream 2")] + [("end allocations on 0", "stream 2")] * (end is not None)
    assert cuda.told[-len(ends) - 1 :] == [("begin", "stream 2"), *ends]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.DeferredCudaCallError("CUDA call failed lazily at initialization with error: device >= 0"),
        AssertionError("Torch not compiled with CUDA enabled"),
        RuntimeError("Found no NVIDIA driver on your system"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_cuda_that_cannot_begin_is_a_fallback_whatever_it_raises(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, name: str, error: Exception
) -> None:
    def begin(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.cuda, "current_device", begin)
    monkeypatch.setattr(torch.cuda, "Stream", begin)
    engine = build(random_network(4), device=device_of(name)).engine
    assert engine is not None
    assert (engine.is_on_device, engine.fallbacks, engine.is_compiled) == (False, 1, True)
    assert cuda.told == []


def test_what_a_trainer_casts_is_not_cast_on_the_device(cuda: Cuda) -> None:
    device = cuda_device(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with device.calls():
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


def test_a_thread_whose_current_device_is_another_does_not_wake_that_one(cuda: Cuda) -> None:
    """A context is half a GB of somebody else's device."""
    device = cuda_device(1)
    again = device.captured(lambda: computing(cuda), Answer(cuda))
    with device.calls():
        assert cuda.device == 1
        again()
    assert (cuda.device, cuda.woken) == (0, {1})


def test_policies_that_are_loaded_one_after_another_share_streams_and_pool(cuda: Cuda) -> None:
    """torch has 32 streams, and keeps the scratch memory of each that was multiplied on."""
    for _ in range(20):
        for name, index in (("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)):
            make = device_of(name)
            assert make is not None
            assert make().place.index == index
    assert len(cuda.streams) == 4


def test_a_step_does_not_wait_for_its_turn_while_another_policy_is_loaded(cuda: Cuda) -> None:
    with cuda_device(0).turn, cuda_device(0).turn:
        assert len(cuda.streams) == 2


def test_the_pool_lives_on_when_the_policy_is_gone_that_captured_first(cuda: Cuda) -> None:
    device = cuda_device(0)
    first = device.captured(lambda: computing(cuda), Answer(cuda))
    graph = weakref.ref(cuda.graphs[0])
    cuda.graphs.clear()
    device.captured(lambda: computing(cuda), Answer(cuda))
    del first
    assert graph() is not None


@pytest.mark.parametrize(
    ("name", "begun", "expected"),
    [
        ("cuda", True, "cuda:1"),
        ("cuda", False, "cuda"),
        ("cuda:0", True, "cuda:0"),
        ("auto", True, "auto"),
        ("cpu", True, "cpu"),
    ],
)
def test_the_device_of_the_host_s_thread_is_that_of_the_threads_that_load_for_it(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch, name: str, begun: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: begun)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert as_this_thread_has(name) == expected


def test_seeds_are_built_where_the_thread_was_that_made_their_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the thread of `InTime` the current device is the first, whatever the trainer's is."""
    monkeypatch.setattr(torch, "empty", lambda *_, device: SimpleNamespace(device=torch.device(device, 1)))
    manager = SeedManager({"a": GraftPoint(4, 1)}, verifier=None, device="cuda")  # type: ignore[arg-type]
    assert manager.slots["a"].device == torch.device("cuda", 1)


def test_between_a_graph_and_the_copy_of_its_result_no_other_policy_s_graph_comes(cuda: Cuda) -> None:
    """They share memory, and one may lie where the other's result is."""
    one, other = cuda_device(0), cuda_device(0)

    class Interrupted(Answer):
        def copy_(self, src: Tensor, non_blocking: bool = False) -> Self:
            threads.append(threading.Thread(target=others))
            threads[0].start()
            threads[0].join(0.05)
            return super().copy_(src, non_blocking)

    threads: list[threading.Thread] = []
    others = other.captured(lambda: computing(cuda), Answer(cuda))
    again = one.captured(lambda: computing(cuda), Interrupted(cuda))
    cuda.told.clear()
    again()
    threads[0].join()
    assert [what for what, _ in cuda.told] == ["replay", "copy"] * 2
