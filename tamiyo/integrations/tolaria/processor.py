"""How busy the processors are that this process may use, and how much memory it may have."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil

from tamiyo.integrations.tolaria.cgroups import CpuQuota, cpu_quota, memory_limit

__all__ = ["Memory", "ProcessorLoad", "host_memory"]

_NS_PER_S = 1e9


class Memory(NamedTuple):
    """Of a device, in bytes; what other processes hold is not free."""

    free_bytes: int
    total_bytes: int


class _Count(NamedTuple):
    """Processor time since some beginning: what was used, and what was to be had."""

    used_s: float
    total_s: float
    processors: frozenset[int] = frozenset()  # whose it is, where that can change


class ProcessorLoad:
    """The share of the processor time to be had that was used since the last reading, by any process, in percent.

    To be had is what the container's quota allows, and what was used then is the container's; without a quota
    that is smaller, it is the time of the processors that this process may run on. A quota is looked up once.

    Raises:
        OSError, ValueError, psutil.Error: in `percent`, where the system does not say.
    """

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        quota: Callable[[], CpuQuota | None] = cpu_quota,
    ) -> None:
        self._clock_ns = clock_ns
        self._find_quota = quota
        self._count: Callable[[], _Count] | None = None
        self._last: _Count | None = None

    def percent(self) -> float | None:
        """From 0 to 100; None the first time, and where no time has passed by the system's own counters."""
        if self._count is None:
            self._count = self._counter()
        now, last = self._count(), self._last
        if last is None or last.processors != now.processors or now.total_s < last.total_s:
            self._last = now
            return None
        if now.total_s == last.total_s:  # the next reading begins where this one would have
            return None
        self._last = now
        share = (now.used_s - last.used_s) / (now.total_s - last.total_s)
        return 100.0 * min(1.0, max(0.0, share))  # a group may use in bursts what it saved

    def _counter(self) -> Callable[[], _Count]:
        quota = self._find_quota()
        if quota is None or quota.cores >= len(_allowed()):
            return _machine_count
        return lambda: _Count(quota.used_s(), quota.cores * self._clock_ns() / _NS_PER_S)


def host_memory() -> Memory:
    """Of the machine, or of the container where that may have less.

    Raises:
        OSError, ValueError, psutil.Error: the system does not say.
    """
    machine = psutil.virtual_memory()
    limit = memory_limit()
    if limit is None or limit.limit_bytes >= machine.total:
        return Memory(machine.available, machine.total)
    return Memory(min(machine.available, limit.free_bytes()), limit.limit_bytes)


def _allowed() -> frozenset[int]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _machine_count() -> _Count:
    """Of the processors that this process may run on, whoever used them."""
    every = psutil.cpu_times(percpu=True)
    allowed = _allowed()
    times = [each for number, each in enumerate(every) if number in allowed]
    if len(times) != len(allowed):  # some are offline, and the others' numbers have moved
        times = every
    used_s = total_s = 0.0
    for each in times:
        all_s = sum(each) - getattr(each, "guest", 0.0) - getattr(each, "guest_nice", 0.0)  # both are in user, too
        total_s += all_s
        used_s += all_s - each.idle - getattr(each, "iowait", 0.0)
    return _Count(used_s, total_s, allowed)
