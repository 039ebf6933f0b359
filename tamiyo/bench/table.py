"""The figures as text."""

from collections.abc import Iterator
from typing import Any

from tamiyo.bench.timing import Figures

__all__ = ["table"]

LABEL = 40
AGREEMENT = {"small_fp32": "small graphs", "large_fp32": "large graphs", "large_bf16": "large graphs in bf16"}


def table(figures: Figures) -> str:
    """What `tamiyo bench` prints: times in milliseconds, by the clock and in CPU time."""
    parts = [_head(figures)]
    parts += [draw(figures[name]) for name, draw in DRAWN.items() if name in figures]
    if figures["doubt"]:
        parts.append([figures["doubt"]])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(figures: Figures) -> list[str]:
    facts = figures["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return [
        f"{facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, {facts['file_system']}",
        f"Python {facts['python']}, {packages}",
        f"load {figures['load_before']['load_1m']} before, {figures['load_after']['load_1m']} after",
    ]


def _builder(found: Figures) -> list[str]:
    rows = [
        (f"{name} graph, {'known' if kind == 'known' else 'plan of a new'} blueprint", found[name][kind])
        for name in ("small", "large")
        for kind in ("known", "new")
    ]
    return [_columns("graph builder, ms"), *(_row(*row) for row in rows)]


def _network(found: Figures) -> list[str]:
    small, large = found["small"], found["large"]
    half = "large graph in bf16" if "bfloat16" in found["half_engine"] else "large graph, bf16 asked for in vain"
    rows = {
        "small graph, hot": small["hot"],
        "small graph, cold": small["cold"],
        "small graph, PyTorch Geometric": small["pyg"],
        "new small topology": small["new_topology"],
        "reading its weights, nothing else": small["reading_the_weights"],
        "large graph": large["fp32"],
        half: large["bf16"],
        "large graph, PyTorch Geometric": large["pyg"],
        "new large topology": large["new_topology"],
    }
    faster_small, faster_large = (size["times_faster"]["wall_ms"] for size in (small, large))
    return [
        _columns("network, ms"),
        *(_row(*row) for row in rows.items()),
        f"policy: {found['policy']}; runs as {found['engine']}",
        f"{'compiled' if found['compiled'] else 'NOT compiled'}, {found['fallbacks']} fallbacks",
        f"the large graph has {large['nodes']:,} nodes, {large['edges']:,} edges and {large['threads']} threads",
        f"faster than PyTorch Geometric: {faster_small} times small, {faster_large} times large",
        *(_agreed(AGREEMENT[name], row) for name, row in found["agreement"].items()),
    ]


def _agreed(name: str, row: Figures) -> str:
    return (
        f"{name}: {row['equal']} of {row['graphs']} decisions equal, largest error {row['largest_error']}, "
        f"{row['actions_chosen']} different actions"
    )


def _step(found: Figures) -> list[str]:
    bare = found["bare_sync"]
    lines = [f"{'evaluate_step, ms':{LABEL}}{'p50':>10}{'p95':>10}{'p99':>10}"]
    for name in ("baseline", "network"):
        for stage, row in _stages(found[name]["stages_ms"]):
            lines.append(f"{f'{name}, {stage}':{LABEL}}{_shares(row)}")
    floor = f"bare write and sync of {bare['size_bytes']:,} bytes"
    lines.append(f"{floor:{LABEL}}{_shares(bare['wall_ms'])}")
    for name in ("baseline", "network"):
        answers = ", ".join(f"{count} {kind}" for kind, count in found[name]["answers"].items())
        over = found[name]["over_budget"]
        lines.append(
            f"{name}: {answers}; of {found[name]['calls']} counted, {over['inference']} over the budget of the policy, "
            f"{over['commit']} over that of the commit"
        )
    return lines


def _stages(stages: Figures) -> Iterator[tuple[str, Figures]]:
    """The whole first; the rest in the order of the step."""
    yield "whole step", stages["total"]
    yield from ((name, row) for name, row in stages.items() if name != "total")


DRAWN = {"builder": _builder, "network": _network, "step": _step}


def _columns(title: str) -> str:
    return f"{title:{LABEL}}{'p50':>10}{'p95':>10}{'p99':>10}{'CPU p50':>12}{'p95':>10}{'p99':>10}"


def _row(name: str, row: dict[str, Any]) -> str:
    return f"{name:{LABEL}}{_shares(row['wall_ms'])}  {_shares(row['cpu_ms'])}"


def _shares(row: dict[str, float]) -> str:
    return "".join(f"{row[share]:10.3f}" for share in ("p50", "p95", "p99"))
