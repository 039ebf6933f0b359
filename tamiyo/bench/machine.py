"""Facts that the figures depend on, and when they are doubtful."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tamiyo.bench.timing import Figures

__all__ = ["doubt", "facts", "load"]

PACKAGES = ("numpy", "torch", "torch-geometric", "openvino")

BUSY_PER_CPU = 0.7
"""Of the load of one minute: from there on something else wants a core that a measurement may stand in line for."""


def facts(folder: Path) -> Figures:
    """Processor, kernel, Python, versions of what computes, and the file system that `folder` lies on."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    kind, options = max(_mounts(folder), default=(0, "unknown", ""))[1:]
    return {
        "cpu": models[0] if models else "unknown",
        "cpus": os.cpu_count(),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "file_system": kind,
        "mount_options": options,
    }


def load() -> Figures:
    """How busy the machine has been for a minute: processes that run or wait to."""
    return {"load_1m": round(os.getloadavg()[0], 2), "cpus": os.cpu_count()}


def doubt(before: Figures, after: Figures, threads: int = 1) -> str:
    """Why these figures say little, in one sentence; empty where they are good.

    Args:
        before: the `load` before the measurement, which is all others'.
        after: the one at its end, of which `threads` are its own.
        threads: how many cores the measurement itself keeps busy.
    """
    cpus = before["cpus"] or 1
    others = max(before["load_1m"], after["load_1m"] - threads)
    if others <= BUSY_PER_CPU * cpus:
        return ""
    return (
        f"doubtful: about {others:.1f} other processes wanted these {cpus} CPUs (load {before['load_1m']} before, "
        f"{after['load_1m']} after); compare ratios and CPU times, or measure again when it is quiet"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _mounts(folder: Path) -> Iterator[tuple[int, str, str]]:
    for line in _lines("/proc/mounts"):
        _, place, kind, options = line.split()[:4]
        if folder.resolve().is_relative_to(place):
            yield len(place), kind, options


def _lines(path: str) -> list[str]:
    place = Path(path)
    return place.read_text(encoding="utf-8").splitlines() if place.exists() else []
