"""One run of every measure of the network's engine, as a table: `python tests/bench/engine_table.py`; nothing asserted.

    PYTHONPATH=tests python tests/bench/engine_table.py [--json FILE] [--quick]

`--quick` takes a few of each. The JSON in `results/` is the last run kept.
"""

import argparse
import datetime as dt
import json
import sys
from pathlib import Path

import engine_measures as measures
from engine_measures import Figures
from log_measures import machine

RESULTS = Path(__file__).parent / "results" / "engine-speed.json"


def run(*, quick: bool) -> Figures:
    """Measure everything."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": {
            name: value for name, value in machine(Path.cwd()).items() if "file" not in name and "mount" not in name
        },
        "load_before": measures.load(),
        "small": measures.small(4 if quick else 40),
        "large": measures.large(2 if quick else 4),
        "layout": measures.layouts(),
        "agreement": measures.agreement(20 if quick else 300),
        "load_after": measures.load(),
    }


def table(figures: Figures) -> str:
    """Return the figures as text."""
    small, large = figures["small"], figures["large"]
    rows = {
        "small, hot": small["hot"]["engine"],
        "small, cold": small["cold"]["engine"],
        "small, PyG, hot": small["hot"]["pyg"],
        "reading its weights once": small["reading_the_weights_once"],
        "layout of a small topology": figures["layout"],
        "large, fp32": large["fp32"],
        "large, bf16": large["bf16"],
        "large, PyG": large["pyg"],
        "plan of a large topology": large["plan"],
    }
    facts, before, after = figures["machine"], figures["load_before"]["load_1m"], figures["load_after"]["load_1m"]
    lines = [
        f"{facts['cpu']}, {facts['cpus']} CPUs, Python {facts['python']}; load {before} before, {after} after",
        f"{small['engine']}; large graph of {large['edges']} edges on {large['threads']} threads",
        f"{'ms':28}{'wall p50':>10}{'p95':>9}{'p99':>9}{'CPU p50':>10}{'p95':>9}{'p99':>9}",
    ]
    for name, row in rows.items():
        times = [row[clock][share] for clock in ("wall_ms", "cpu_ms") for share in ("p50", "p95", "p99")]
        lines.append(f"{name:28}" + "".join(f"{one:{9 + (place % 3 == 0)}.3f}" for place, one in enumerate(times)))
    times_faster = small["times_faster"]
    lines += [
        f"small: {times_faster['wall_ms']} times faster than PyG by the clock, {times_faster['cpu_ms']} in CPU time"
    ]
    for name, row in figures["agreement"].items():
        lines.append(
            f"{name}: {row['equal_percent']} % of {row['graphs']} decisions equal, "
            f"largest error {row['largest_error']}, {row['actions_chosen']} actions chosen"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to keep the figures")
    parser.add_argument("--quick", action="store_true", help="a few of each")
    given = parser.parse_args()
    figures = run(quick=given.quick)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.stdout.write(table(figures))


if __name__ == "__main__":
    main()
