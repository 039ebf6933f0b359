"""What the tests of the log's command line share: small logs on the real disk, and a way to call a command."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from log_rig import Record, open_log

import wal
from wal.tools import main

BATCHES: list[list[Record]] = [
    [(1, b"the first record"), (2, b"")],
    [(3, b"\xff\x00binary\x1b[31m")],
    *[[(4, b"record %d," % n * 40)] for n in range(12)],
]
COUNT = sum([len(batch) for batch in BATCHES])


def run(*arguments: object, **environment: str) -> Result:
    """Call `python -m wal` with these arguments, in this process."""
    return CliRunner().invoke(main, [str(one) for one in arguments], env=environment, catch_exceptions=False)


def run_json(*arguments: object) -> Any:
    """Call it with --json, and return the one object it printed."""
    return json.loads(run(*arguments, "--json").stdout)


def rows(*arguments: object) -> list[dict[str, Any]]:
    """Call it with --json, and return the objects it printed, one a line."""
    return [json.loads(row) for row in run(*arguments, "--json").stdout.splitlines()]


def write_log(path: Path, batches: Sequence[Sequence[Record]] = BATCHES) -> Path:
    """Write a closed log of several segments."""
    with open_log(wal.OsDisk(), path) as log:
        for batch in batches:
            log.append(batch)
    return path


def segment_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.wal"))


def harm(place: Path, change: Callable[[bytearray], object]) -> None:
    """Change a file's bytes."""
    image = bytearray(place.read_bytes())
    change(image)
    place.write_bytes(image)


def flip(place: Path, offset: int) -> None:
    """Turn one bit."""

    def turn(image: bytearray) -> None:
        image[offset] ^= 1

    harm(place, turn)
