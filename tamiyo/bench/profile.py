"""A trace to look at: torch.profiler over a few steps, with the controller's own stages in it.

The file is Chrome's trace format: https://ui.perfetto.dev and chrome://tracing open it. Our spans are called
"tamiyo: STAGE", each on the thread that does the work; below the policy's lie the operators of torch that it ran.
OpenVINO runs as a whole inside "tamiyo: propose": it has no operators that torch knows.
"""

import errno
import gzip
import json
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from tamiyo.bench.builder import HOSTS, Warm
from tamiyo.bench.chance import large_graph
from tamiyo.bench.network import LARGE_THREADS, Subject
from tamiyo.bench.samples import small_graph
from tamiyo.bench.step import PREFIX as FOLDERS
from tamiyo.bench.step import Stepping
from tamiyo.bench.timing import Progress
from tamiyo.policy.ambient import threads
from tamiyo.step import Watch
from tamiyo.whole import written_to

__all__ = ["PREFIX", "STEPS", "profiled", "trace"]

PREFIX = "tamiyo: "
STEPS = 20


@contextmanager
def profiled(path: Path) -> Iterator[Watch]:
    """Trace what happens inside, on every thread, and write it to `path`; what it gives is for `service.watch`.

    It stands there whole, packed where its name ends in ".gz", or what was there before stays.

    Raises:
        OSError: the file cannot be written. A wrong place is told before anything is traced.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    every_thread = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)  # noqa: SLF001  no public way
    with written_to(path) as file, TemporaryDirectory(prefix="tamiyo-trace-") as made:
        with profile(activities=activities, experimental_config=every_thread) as profiler:
            yield lambda name: record_function(PREFIX + name)
        draft = Path(made) / "trace.json"
        profiler.export_chrome_trace(str(draft))
        data = _whole(draft)
        file.write(gzip.compress(data) if path.suffix == ".gz" else data)


def _whole(draft: Path) -> bytes:
    """The trace, which torch may have written in part without a word: a viewer would show none of it."""
    data = draft.read_bytes() if draft.exists() else b""
    try:
        json.loads(data)
    except ValueError as error:
        raise OSError(
            errno.EIO, f"the profiler wrote {len(data)} bytes that are no trace; is there room?", str(draft.parent)
        ) from error
    return data


def trace(subject: Subject, path: Path, parts: Collection[str], say: Progress, folder: Path | None = None) -> None:
    """Trace a few graphs, proposals and whole steps, all of them warm.

    Args:
        subject: the network.
        path: the trace.
        parts: of `tamiyo.bench.run.PARTS`.
        say: told what is under way.
        folder: where steps are logged; the temporary directory where None.

    Raises:
        OSError, wal.LogError: the folder or the file cannot be written.
    """
    say(f"a trace of {', '.join(parts)}")
    with ExitStack() as stack:
        stepping, builders, forms = None, {}, {}
        if "step" in parts:
            made = stack.enter_context(TemporaryDirectory(prefix=FOLDERS, dir=folder))
            stepping = stack.enter_context(Stepping(Path(made) / "service", subject.exact))
        if "builder" in parts:
            builders = {name: Warm(seeds, host()) for name, (seeds, host) in HOSTS.items()}
        if "network" in parts:
            forms = {"engine": subject.exact, "bf16": subject.half, "PyTorch Geometric": subject.reference}
            stack.enter_context(threads(LARGE_THREADS))
        graphs = {"small": small_graph(), "large": large_graph(1)} if forms else {}
        for policy in forms.values():
            for graph in graphs.values():
                policy.propose(graph)
        with profiled(path) as watch:
            for size, warm in builders.items():
                with watch(f"build a {size} graph"):
                    warm.build_next()
            for name, policy in forms.items():
                for size, graph in graphs.items():
                    with watch(f"{name}, {size} graph"):
                        policy.propose(graph)
            if stepping is not None:
                stepping.service.watch(watch)
                for _ in range(STEPS):
                    with watch("evaluate_step"):
                        stepping.step(counted=False)
                stepping.service.watch(None)
