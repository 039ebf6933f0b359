"""What a container allows: the processor quota and the memory limit of this process's control group.

/proc/stat and /proc/meminfo tell of the whole machine, inside a container too: one that may use 2 of 64 cores
would see itself at 3 % when it can do no more. Both versions of control groups are read. The tightest limit
among the group and its parents counts, and with it what the group that has it used; parents outside the
container are not visible from inside.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CpuQuota", "MemoryLimit", "cpu_quota", "memory_limit"]

MEMBERSHIP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")
UNIFIED = ""
"""The name that version 2 has in MEMBERSHIP, where version 1 names a controller."""

_US_PER_S = 1e6
_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """So many cores at most, for all processes of the group together."""

    cores: float
    usage: Path
    entry: str  # of the file, "" where a number is all of it
    per_s: float

    def used_s(self) -> float:
        """The processor time that the group has used so far."""
        return _entry(self.usage, self.entry) / self.per_s


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """So much memory at most, for all processes of the group together."""

    limit_bytes: int
    usage: Path
    statistics: Path
    reclaimable: str  # its entry of pages that the kernel takes back before it refuses any

    def free_bytes(self) -> int:
        """What the group may still have; files read once and long ago count as free, as in MemAvailable."""
        used = _entry(self.usage, "") - _entry(self.statistics, self.reclaimable)
        return max(0, self.limit_bytes - used)


def cpu_quota(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> CpuQuota | None:
    """The tightest quota that holds for this process; None where there is none.

    Raises:
        OSError: a file is there and cannot be read.
        ValueError: what it holds is not what the kernel writes.
    """
    return min(_quotas(membership, mount), key=lambda quota: quota.cores, default=None)


def memory_limit(membership: Path = MEMBERSHIP, mount: Path = MOUNT) -> MemoryLimit | None:
    """The tightest limit that holds for this process; None where there is none.

    Raises:
        OSError: a file is there and cannot be read.
        ValueError: what it holds is not what the kernel writes.
    """
    return min(_limits(membership, mount), key=lambda limit: limit.limit_bytes, default=None)


def _quotas(membership: Path, mount: Path) -> Iterator[CpuQuota]:
    for group in _groups(membership, UNIFIED):
        quota, *period = _words(mount / group / "cpu.max")
        if quota.isdigit():
            (period_us,) = period
            yield CpuQuota(int(quota) / int(period_us), mount / group / "cpu.stat", "usage_usec", _US_PER_S)
    for group in _groups(membership, "cpu"):
        (quota,) = _words(mount / "cpu" / group / "cpu.cfs_quota_us")
        if quota.isdigit():  # -1 where there is none
            (period_us,) = _words(mount / "cpu" / group / "cpu.cfs_period_us")
            usage = mount / "cpuacct" / group / "cpuacct.usage"
            yield CpuQuota(int(quota) / int(period_us), usage, "", _NS_PER_S)


def _limits(membership: Path, mount: Path) -> Iterator[MemoryLimit]:
    for group in _groups(membership, UNIFIED):
        place = mount / group
        (limit,) = _words(place / "memory.max")
        if limit.isdigit():
            yield MemoryLimit(int(limit), place / "memory.current", place / "memory.stat", "inactive_file")
    for group in _groups(membership, "memory"):
        place = mount / "memory" / group
        (limit,) = _words(place / "memory.limit_in_bytes")
        if limit.isdigit():
            usage = place / "memory.usage_in_bytes"
            yield MemoryLimit(int(limit), usage, place / "memory.stat", "total_inactive_file")


def _groups(membership: Path, controller: str) -> list[str]:
    """This process's group and its parents, relative to where the controller is mounted; the last is "".

    Inside a container the path may be the one outside, of which only the mount itself, its end, is visible.
    """
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            parts = [] if ".." in path else path.strip("/").split("/")
            return ["/".join(parts[:end]) for end in range(len(parts), -1, -1)]
    return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []


def _words(path: Path) -> list[str]:
    """The words of a file; one empty word where there is no such file: the root of a machine has no limits."""
    return " ".join(_lines(path)).split() or [""]


def _entry(path: Path, name: str) -> int:
    """A number of a file: its only one, or the one beside `name`."""
    words = path.read_text().split()
    return int(words[words.index(name) + 1] if name else words[0])
