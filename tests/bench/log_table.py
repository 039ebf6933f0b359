"""One run of every measure of the log, as a table: `python tests/bench/log_table.py`. Nothing is asserted.

It takes some minutes, and about 5 GB of disk in FOLDER, which should be on the file system in question:

    python tests/bench/log_table.py [--folder FOLDER] [--json FILE] [--quick]

`--quick` leaves out the 2 GB log. The JSON beside it in `results/` is the last run kept.
"""

import argparse
import datetime as dt
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import log_measures as measures
from log_measures import Figures

from tamiyo.bench.machine import facts

RESULTS = Path(__file__).parent / "results" / "log-speed.json"


def run(folder: Path, *, quick: bool) -> Figures:
    """Measure everything in a folder."""
    steps: dict[str, Callable[[Path], object]] = {
        "machine": facts,
        "sync": measures.syncs,
        "commits": measures.commits,
        "group_commit": measures.group_commit,
        "reading": measures.reading,
        "opening": measures.opening,
    }
    if not quick:
        steps["large"] = measures.large
    figures: Figures = {"date": dt.datetime.now(dt.UTC).date().isoformat()}
    for name, measure in steps.items():
        sys.stderr.write(f"measuring: {name}\n")
        with tempfile.TemporaryDirectory(dir=folder, prefix="log-bench-") as place:
            figures[name] = measure(Path(place))
    return figures


def table(figures: Figures) -> str:
    """Return the figures as text."""
    host, sync, commits, group = (figures[name] for name in ("machine", "sync", "commits", "group_commit"))
    lines = [
        f"{host['cpu']}, {host['cpus']} CPUs, Linux {host['kernel']}, Python {host['python']}",
        f"{host['file_system']} ({host['mount_options']}); a sync sends {sync['flushes_sent_per_sync']} flushes",
        "",
        f"one durable append of {commits['payload_bytes']} bytes, us (interleaved, {commits['commits_each']} each)",
        f"  {'':26}{'p50':>9}{'p95':>9}{'p99':>9}{'p50 : bare':>12}",
    ]
    for name, row in commits["stores"].items():
        lines.append(
            f"  {name:26}{row['p50_us']:9.0f}{row['p95_us']:9.0f}{row['p99_us']:9.0f}{row['p50_to_bare']:12.2f}"
        )
    lines += [f"  {name}: {reason}" for name, reason in commits["absent"].items()]
    lines += [
        "",
        "batches per second, one appender and ten: {one_per_s}, {ten_per_s}, {ratio} times".format(**group),
        "",
        "MB of frames per second of one core",
        f"  {'record':>8}{'batch of':>10}{'walk':>8}{'read':>8}{'verify':>8}",
    ]
    for row in figures["reading"]:
        speeds = "".join(f"{row[f'{name}_mb_per_s']:8}" for name in ("walk", "read", "verify"))
        lines.append(f"  {row['record_bytes']:8}{row['batch_records']:10}{speeds}")
    lines += ["", "opening, for each 64 MB since the last seal, s", f"  {'record':>8}{'left':>10}{'wall':>8}{'CPU':>8}"]
    for row in figures["opening"]:
        times = f"{row['wall_s_per_64_mb']:8.2f}{row['cpu_s_per_64_mb']:8.2f}"
        lines.append(f"  {row['record_bytes']:8}{row['left']:>10}{times}")
    if "large" in figures:
        lines += ["", "a 2 GB log, a process each", f"  {'':8}{'s':>8}{'peak MB':>9}{'before':>8}"]
        for action in ("open", "verify", "follow"):
            row = figures["large"][action]
            lines.append(f"  {action:8}{row['seconds']:8.2f}{row['peak_mb']:9.0f}{row['base_mb']:8.0f}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to measure; the default is the temporary directory")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    parser.add_argument("--quick", action="store_true", help="leave out the 2 GB log")
    given = parser.parse_args()
    figures = run(given.folder or Path(tempfile.gettempdir()), quick=given.quick)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.stdout.write(table(figures))


if __name__ == "__main__":
    main()
