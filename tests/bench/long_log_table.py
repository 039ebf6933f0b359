"""One run of what a long log costs, each measure in a process of its own; nothing asserted.

    PYTHONPATH=tests python tests/bench/long_log_table.py [--steps N] [--folder FOLDER] [--json FILE]

A million steps take 4.2 GB of disk, as much again for the projection and its copies, and half an hour. With a folder
given the log and each measure's figures stay there, and a run that was stopped goes on with the next measure. The JSON
in `results/` is the last run kept.
"""

import argparse
import datetime as dt
import json
import sys
import tempfile
from pathlib import Path

from long_log_measures import MEASURES, Figures, measured

from tamiyo.bench.machine import facts, load

RESULTS = Path(__file__).parent / "results" / "long-log.json"
STEPS = 1_000_000


def run(folder: Path, steps: int) -> Figures:
    """All measures of a log of so many steps, those of them that the folder does not hold yet."""
    figures: Figures = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": facts(folder),
        "steps": steps,
    }
    for name in MEASURES:
        kept = folder / f"{name}.json"
        if not kept.exists():
            sys.stderr.write(f"measuring: {name}\n")
            before = load()
            found = measured(name, folder, steps) | {"load_1m": [before["load_1m"], load()["load_1m"]]}
            kept.write_text(json.dumps(found))
        figures[name] = json.loads(kept.read_text())
    return figures


def table(figures: Figures) -> str:
    """The figures that have a bar, then speed and memory of each measure that goes through the whole log."""
    opening = figures["opening"]["with_a_fresh_snapshot_again"]["wall_ms"]
    replay = figures["replaying"]["steps_per_cpu_second"]
    lines = [
        f"{figures['steps']:,} steps, {figures['writing']['bytes_per_step']:,} bytes of log each",
        f"open with a fresh snapshot: {opening:,} ms (1,000 wanted: {_verdict(met=opening < 1_000)})",
        f"replay from nothing: {replay:,} steps/s of a core (20,000 wanted: {_verdict(met=replay >= 20_000)})",
        "",
        f"{'':14}{'steps/s of a core':>20}{'MB before':>12}{'MB at most':>12}{'MB at each tenth':>20}",
    ]
    for name in ("replaying", "auditing", "projecting", "diagnosing", "exporting"):
        of = figures[name]
        tenths = " ".join(f"{part['memory_mb']:.0f}" for part in of["parts"])
        lines.append(
            f"{name:14}{of['steps_per_cpu_second']:20,}{of['memory_before_mb']:12}{of['memory_peak_mb']:12}    {tenths}"
        )
    return "\n".join(lines) + "\n"


def _verdict(*, met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--folder", type=Path, help="where the log is written and kept; else a temporary directory")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
        figures = run(given.folder, given.steps)
    else:
        with tempfile.TemporaryDirectory(prefix="tamiyo-long-") as made:
            figures = run(Path(made), given.steps)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.stdout.write(table(figures))


if __name__ == "__main__":
    main()
