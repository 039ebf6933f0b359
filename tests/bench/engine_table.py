"""One run of the network's measures alone, as a table: `python tests/bench/engine_table.py`; nothing asserted.

    python tests/bench/engine_table.py [--json FILE] [--quick]

It is `tamiyo bench --only network` with the agreement of 300 graphs. The JSON in `results/` is the last run kept.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from tamiyo.bench.run import FULL, QUICK, measure
from tamiyo.bench.table import table
from tamiyo.bench.timing import Figures

RESULTS = Path(__file__).parent / "results" / "engine-speed.json"


def run(*, quick: bool) -> Figures:
    """Measure the network."""
    return measure(["network"], QUICK if quick else replace(FULL, agreement=300), lambda _: None)


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
