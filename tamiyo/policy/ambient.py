"""What a trainer may have set in torch, kept out of the network: it shares the process, and often the thread.

autocast, default device    a thread's own: put aside on ours while we compute or load
no_grad, inference_mode     a thread's own, too: put aside while we learn
default dtype               the whole process's: never touched, for a trainer's threads go on meanwhile; what we make
                            says what it is made of instead
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["float32_made", "learning", "threads", "threads_from_now_on", "uncast", "unswayed"]

_AUTOCAST = ("cpu", "cuda")
_MADE = frozenset({torch.empty, torch.ones, torch.zeros})
"""What modules make their parameters with."""


class _Float32(TorchFunctionMode):
    """On this thread, what is made of no type in particular is float32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        given = dict(kwargs or {})
        if func in _MADE and given.get("dtype") is None:
            given["dtype"] = torch.float32
        return func(*args, **given)


@contextmanager
def float32_made() -> Iterator[None]:
    """Modules made inside have float32 parameters, whatever the process's default is."""
    if torch.get_default_dtype() == torch.float32:
        yield
        return
    with _Float32():
        yield


@contextmanager
def uncast() -> Iterator[None]:
    """Compute inside in the types that are said; a microsecond where nothing is cast."""
    casting = [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]
    if not casting:
        yield
        return
    with ExitStack() as stack:
        for kind in casting:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def unswayed() -> Iterator[None]:
    """As `uncast`, and what is made inside is on the processor where nothing else is said; ten microseconds to ask."""
    with uncast(), ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def learning() -> Iterator[None]:
    """As `unswayed`, and what is computed inside has gradients, whatever the caller computes without."""
    with unswayed(), torch.inference_mode(mode=False), torch.enable_grad():
        yield


@contextmanager
def threads(count: int) -> Iterator[int]:
    """Let torch use so many, and as many as before afterwards: the whole process, so not beside a trainer."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


def threads_from_now_on(count: int) -> None:
    """Let torch use so many: for a process that does nothing else."""
    torch.set_num_threads(count)
