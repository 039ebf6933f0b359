"""Stands in the place of torch.cuda: a device whose answers, failures and progress the test decides."""

from collections import Counter

import torch

CALLS = (
    "is_initialized", "current_device", "mem_get_info", "utilization", "temperature", "get_device_capability",
    "current_stream", "Event",
)  # fmt: skip
FORBIDDEN = ("init", "synchronize", "set_device")
"""What wakes CUDA or waits for the device."""


class Clock:
    """Stands still until the test moves it; nanoseconds."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


class NvmlError(Exception):
    """As NVML's own: of no base but Exception."""


class Stream:
    """Copies queued on it take as long as the test says, in milliseconds, once the device reaches them."""

    def __init__(self) -> None:
        self.queued_ms = 0.0
        self.reached_ms = 0.0


class Cuda:
    """Put in place by `install`; `fails` maps a call's name to what it raises."""

    def __init__(self) -> None:
        self.initialized = True
        self.fails: dict[str, Exception] = {}
        self.asked: Counter[str] = Counter()
        self.indexes: list[int] = []
        self.memory = (24 << 30, 80 << 30)
        self.percent = 85
        self.streams = {0: Stream(), 1: Stream()}

    def install(self, monkeypatch) -> "Cuda":
        for name in CALLS:
            monkeypatch.setattr(torch.cuda, name, self._call(name))
        for name in FORBIDDEN:
            monkeypatch.setattr(torch.cuda, name, self._refuse(name))
        return self

    def _call(self, name):
        def call(*args, **options):
            self.asked[name] += 1
            if name in self.fails:
                raise self.fails[name]
            if name != "is_initialized" and not self.initialized:
                raise AssertionError(f"{name} would have initialised CUDA")
            return self._answer(name, *args, **options)

        return call

    def _refuse(self, name):
        def call(*args, **options):
            raise AssertionError(f"{name} was called")

        return call

    def _answer(self, name, *args, **options):
        if name in ("is_initialized", "current_device"):
            return {"is_initialized": self.initialized, "current_device": 1}[name]
        if name == "Event":
            return Event(self, **options)
        (index,) = args
        self.indexes.append(index)
        return {
            "mem_get_info": self.memory,
            "utilization": self.percent,
            "temperature": 61,
            "get_device_capability": (9, 0),
            "current_stream": self.streams[index],
        }[name]


class Event:
    def __init__(self, cuda: Cuda, *, enable_timing: bool) -> None:
        assert enable_timing
        self.cuda = cuda

    def _may_fail(self, name: str) -> None:
        if name in self.cuda.fails:
            raise self.cuda.fails[name]

    def record(self, stream: Stream) -> None:
        self._may_fail("record")
        self.stream, self.at_ms = stream, stream.queued_ms

    def query(self) -> bool:
        self._may_fail("query")
        return self.stream.reached_ms >= self.at_ms

    def elapsed_time(self, end: "Event") -> float:
        self._may_fail("elapsed_time")
        assert self.query()
        assert end.query()
        return end.at_ms - self.at_ms

    def synchronize(self) -> None:
        raise AssertionError("waited for the device")
