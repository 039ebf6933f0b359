"""What stands for a device in tests: the processor, which can be told to fail."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tamiyo.policy.engine.device import Turn


class Processor:
    """A device that is none. Its `failing` call, counted from 1 on, raises, as do all after it."""

    place = torch.device("cpu")
    name = "processor"

    def __init__(self, failing: int = 0, *, is_exact: bool = True) -> None:
        self.failing, self.is_exact = failing, is_exact
        self.called: list[str] = []
        self.turn = Turn()
        self.captures = self.replays = 0

    def buffer(self, count: int) -> Tensor:
        self._call("buffer")
        return torch.empty(count)

    @contextmanager
    def calls(self) -> Iterator[None]:
        self._call("calls")
        with torch.inference_mode():
            yield

    def finish(self) -> None:
        self._call("finish")

    def captured(self, compute: Callable[[], Tensor], answer: Tensor) -> Callable[[], None]:
        self._call("captured")
        self.captures += 1
        with torch.inference_mode():
            compute()

        def again() -> None:
            self._call("replay")
            self.replays += 1
            answer.copy_(compute())

        return again

    def _call(self, what: str) -> None:
        self.called.append(what)
        if self.failing and len(self.called) >= self.failing:
            raise torch.OutOfMemoryError(f"CUDA out of memory, at {what}")
