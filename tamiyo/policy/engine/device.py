"""What the engine needs of a CUDA device, and nothing else of CUDA anywhere: tests put another in its place.

It shares the process, and often the device, with a trainer, so:

    own stream      ours neither waits for the trainer's kernels nor holds them up, but for the device itself; of high
                    priority, for there are few of them and a step waits
    no settings     TF32 is a setting of the whole process, and other threads multiply meanwhile: it is read, not set
    capture early   while a CUDA graph is captured, another thread that draws random numbers on the device (dropout) can
                    be refused. Graphs are captured while nothing trains, and never once steps have begun
    no waiting      `torch.cuda.graph` would wait for the whole device and empty its cache; a capture here does neither
    no scratch      what a capture takes for products must be the graph's own. cuBLAS has scratch memory for each stream
                    it was called on, which others may clear (a trainer's `torch.compile` with "reduce-overhead" does);
                    a graph that had been captured with it would write where a trainer's tensors are by then. So a
                    stream of its own is used for captures and nothing else: its scratch is taken in the first of them,
                    from the graphs' pool
    once            all that is loaded in a process shares both streams and the pool. torch has 32 streams that it hands
                    out in turns, and the scratch memory of each, 32 MB on a Hopper, is there until the process ends: a
                    policy for each update would take a GB, and at last a stream that others use
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor

from tamiyo.policy.ambient import uncast

__all__ = ["TURN_S", "CudaDevice", "Device", "Turn", "cuda_device", "device_of"]

WARM_UP_RUNS = 3
"""Before a capture: what a library allocates at its first call must not happen in it."""


TURN_S = 5.0
"""A device that has been at one call for so long hangs: the largest graph takes milliseconds, beside a trainer too."""


class Turn:
    """Whose turn it is on a device, which does one thing at a time.

    Raises:
        RuntimeError: on entering, where a call before has not ended for TURN_S; one that hangs would hold up every
            other for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Wait for it."""
        if not self._lock.acquire(timeout=TURN_S):
            raise RuntimeError(f"it has not answered a call for {TURN_S:g} s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the next one in."""
        self._lock.release()


class Device(Protocol):
    """Where tensors are and how work on them is queued. Any method may raise RuntimeError: it has failed for good."""

    @property
    def turn(self) -> Turn:
        """Who calls holds it until the answer is there."""

    @property
    def place(self) -> torch.device:
        """As torch calls it."""

    @property
    def name(self) -> str:
        """The device, its driver's version, and how it multiplies fp32, in words."""

    @property
    def is_exact(self) -> bool:
        """It multiplies fp32 as fp32, not as TF32."""

    def buffer(self, count: int) -> Tensor:
        """So many float32 in the host's memory, from and to which copies need no waiting."""

    @contextmanager
    def calls(self) -> Iterator[None]:
        """What is called within is queued for the device."""
        yield

    def finish(self) -> None:
        """Wait for all that was queued."""

    def captured(self, compute: Callable[[], Tensor], answer: Tensor) -> Callable[[], None]:
        """How to queue the work of a computation again, as one, and the copy of its result to `answer`."""


class _Shared:
    """What all policies of a process have of one CUDA device, made once and there until the process ends.

    Args:
        place: which.
    """

    def __init__(self, place: torch.device) -> None:
        self.stream = torch.cuda.Stream(place, priority=-1)  # type: ignore[no-untyped-call]
        self.captures = torch.cuda.Stream(place, priority=-1)  # type: ignore[no-untyped-call]
        self.capturing = threading.Lock()
        self.replaying = threading.Lock()
        """From the beginning of a graph until its result is copied: another may write to where that is."""
        self.pool = torch.cuda.graph_pool_handle()
        """Of all graphs: they run one after the other on one stream, and what one leaves in it no other reads."""
        self.first: torch.cuda.CUDAGraph | None = None
        """Kept when its policy goes, or failed: torch lets no graph into a pool that has none any more."""
        self.broken: list[torch.cuda.CUDAGraph] = []


class CudaDevice:
    """One CUDA device, for one policy: while another is loaded, nobody waits for its turn.

    Args:
        place: which.
        shared: what there is of it already.
    """

    def __init__(self, place: torch.device, shared: _Shared) -> None:
        self.place, self._shared = place, shared
        self.turn = Turn()

    @property
    def is_exact(self) -> bool:
        """It multiplies fp32 as fp32, not as TF32: what the process has set."""
        return str(torch.backends.cuda.matmul.fp32_precision) != "tf32"

    @property
    def name(self) -> str:
        """The device, CUDA's version, and how it multiplies fp32."""
        precision = "fp32" if self.is_exact else "tf32"
        return f"{self.place} {torch.cuda.get_device_name(self.place)}, {precision}, CUDA {torch.version.cuda}"

    def buffer(self, count: int) -> Tensor:
        """Pinned memory."""
        with torch.cuda.device(self.place):  # else another device might be woken for it
            return torch.empty(count, dtype=torch.float32, device="cpu", pin_memory=True)

    @contextmanager
    def calls(self) -> Iterator[None]:
        """On our stream, without gradients."""
        with self._on(self._shared.stream):
            yield

    @contextmanager
    def _on(self, stream: torch.cuda.Stream) -> Iterator[None]:
        # The device first. On a thread of ours the current one is 0, whatever the trainer's is, and leaving a stream of
        # another device sets the one before by `cudaSetDevice`: a context on 0, half a GB, for each process of a host.
        with torch.inference_mode(), uncast(), torch.cuda.device(self.place), torch.cuda.stream(stream):
            yield

    def finish(self) -> None:
        """Wait for our stream alone, with the interpreter lock released."""
        self._shared.stream.synchronize()

    def captured(self, compute: Callable[[], Tensor], answer: Tensor) -> Callable[[], None]:
        """As a CUDA graph."""
        with self.calls():
            for _ in range(WARM_UP_RUNS):
                compute()
        self.finish()
        shared, graph = self._shared, torch.cuda.CUDAGraph()
        with shared.capturing, self._on(shared.captures):
            try:
                # "thread_local": what other threads allocate meanwhile is no error of theirs or ours
                graph.capture_begin(pool=shared.pool, capture_error_mode="thread_local")
                result = compute()
            except BaseException:  # whatever stops it: a stream left in capture refuses all later work
                with suppress(RuntimeError):  # that the capture is broken says less than what broke it
                    self._end(graph)
                raise
            self._end(graph)

        def again() -> None:
            with shared.replaying:
                graph.replay()
                answer.copy_(result, non_blocking=True)

        return again

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a capture, for torch's allocators too, which torch itself leaves out where the capture was broken.

        They would take it to be under way for ever: of what a trainer used on two streams nothing was freed any more,
        and no cache was emptied when its memory ran out.
        """
        shared = self._shared
        try:
            graph.capture_end()
        except RuntimeError:
            shared.broken.append(graph)  # the allocator of pinned memory still asks it which streams were its own
            with suppress(RuntimeError):  # it had come that far
                torch._C._cuda_endAllocateToPool(self.place.index, shared.pool)  # noqa: SLF001  nothing else says so
            # that allocator lets nobody into the same pool again, and the pool stays, with all that is in it
            shared.pool, shared.first = torch.cuda.graph_pool_handle(), None
            raise
        shared.first = shared.first or graph


_known: dict[torch.device, _Shared] = {}
_finding = threading.Lock()


def cuda_device(index: int | None = None) -> CudaDevice:
    """The one of that index; the thread's current one when None.

    Raises:
        RuntimeError: there is none, no driver, or not that many.
    """
    try:
        place = _place(index)
        with _finding:
            if place not in _known:
                _known[place] = _Shared(place)
            return CudaDevice(place, _known[place])
    except (AssertionError, torch.cuda.DeferredCudaCallError) as error:  # what torch raises where CUDA cannot begin
        raise RuntimeError(f"CUDA cannot begin in this process: {error!s:.200}") from error


def _place(index: int | None) -> torch.device:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "this torch is built without CUDA" if built is None else f"no device answers a torch of CUDA {built}"
        raise RuntimeError(f"there is no CUDA device: {why}; TAMIYO_POLICY_DEVICE=cpu says so")
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if index is None else index
    if index >= count:
        raise RuntimeError(f"there is no CUDA device {index}, only {count}: correct TAMIYO_POLICY_DEVICE")
    return torch.device("cuda", index)


def device_of(name: str) -> Callable[[], Device] | None:
    """What makes the device of this name; None for the processor, which "auto" is too.

    Raises:
        ValueError: it is no such name.
    """
    if name in {"auto", "cpu"}:
        return None
    kind, colon, index = name.partition(":")
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise ValueError(f"a policy cannot run on {name!r}: choose auto, cpu, cuda or cuda:N")
    return lambda: cuda_device(int(index) if index else None)
