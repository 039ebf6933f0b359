"""`python -m wal verify DIR`: read a whole log and say what it is worth."""

from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import click
from rich.console import Console

from wal.head import CONFIRMED, CONTRADICTED, UNPROVABLE, Head
from wal.tools import DAMAGED, UNREADABLE
from wal.tools.heads import HEAD
from wal.tools.show import BAD, GOOD, QUIET, console, facts, number, paragraph, progress, say_json
from wal.verify import (
    CORRUPT,
    EMPTY,
    INTACT,
    PRUNED,
    REDACTED,
    TAMPERED,
    TORN,
    TRUNCATED,
    UNSUPPORTED,
    Verdict,
    verify,
)

__all__ = ["command"]


class _Says(NamedTuple):
    """What a verdict means, what to do next, and the exit status."""

    sentence: str
    next: str
    exit_status: int


VERDICTS = MappingProxyType(
    {
        INTACT: _Says("The log is intact: every record is there as it was written.", "", 0),
        REDACTED: _Says(
            "The log is sound: every record is there as it was written, but for payloads that its owner took out.",
            "", 0,
        ),
        PRUNED: _Says(
            "The log is sound: its owner dropped its oldest records, and all that is left is as it was written.", "", 0,
        ),
        TORN: _Says(
            "The log is sound: nothing that was acknowledged is missing. An interrupted write stands at its end.",
            "Open the log as usual: it sets that write aside, in a quarantine file, and goes on.", 0,
        ),
        TRUNCATED: _Says(
            "The log is TRUNCATED: it ends before the head it was held against, so acknowledged records are gone.",
            "Keep the directory as it is, and look for the missing records in a backup or a copy.", DAMAGED,
        ),
        TAMPERED: _Says(
            "The log was TAMPERED with: its checksums are right, but its hashes contradict them or the expected head.",
            "Keep the directory as evidence, and compare it with a copy or a backup from before.", DAMAGED,
        ),
        CORRUPT: _Says(
            "The log is CORRUPT: acknowledged data is damaged or missing.",
            "Copy the directory before anything else. Restore the named segment from a backup, or save what is sound:"
            " python -m wal salvage DIR --to FILE", DAMAGED,
        ),
        UNSUPPORTED: _Says(
            "The log cannot be read: it was written in another format.",
            "Use the release that wrote it, or a newer one.", UNREADABLE,
        ),
        EMPTY: _Says("There is no log: no segment is there.", "Look at the path.", UNREADABLE),
    }
)  # fmt: skip
"""What is said of each status of `wal.verify`."""

_UNPROVABLE = _Says(
    "The log is sound in itself, but whether it is the log of that head cannot be told: what it covers was pruned.",
    "Check against a newer head, and give the heads to keep to Log.prune.", UNREADABLE,
)  # fmt: skip

_HEADS = MappingProxyType(
    {
        CONFIRMED: "confirmed: the log reaches it, and was there what it says",
        CONTRADICTED: "CONTRADICTED: the log was there something else",
        UNPROVABLE: "unprovable: those records were pruned, and no proof of it was kept",
    }
)


@click.command(name="verify")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--head", "expected", type=HEAD, help="A head kept elsewhere, as `head` printed it.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as one JSON object.")
def command(*, directory: Path, expected: Head | None, as_json: bool) -> None:
    """Read the log in DIRECTORY from end to end and say what it is worth.

    Checks every checksum, digest, chain and tree. With --head also that the log still says what it said
    when that head was printed, which nobody can forge. Exit status: 0 sound, 1 damaged, 3 cannot be told.
    """
    with progress("verifying") as tell:
        verdict = verify(directory, expected, progress=tell)
    says = _UNPROVABLE if verdict.sound and verdict.expected == UNPROVABLE else VERDICTS[verdict.status]
    if as_json:
        say_json(as_dict(verdict))
    else:
        _show(console(), directory, verdict, says)
    if says.exit_status:
        raise SystemExit(says.exit_status)


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict for JSON."""
    return asdict(verdict) | {
        "head": None if verdict.head is None else str(verdict.head),
        "sound": verdict.sound,
    }


def _show(out: Console, directory: Path, verdict: Verdict, says: _Says) -> None:
    lsns = f", LSN {verdict.first_lsn}..{verdict.last_lsn}" if verdict.records else ""
    ending = "a writer has it open" if verdict.live else "closed cleanly" if verdict.clean_close else "not closed"
    place = None if verdict.segment is None else f"segment {verdict.segment}, offset {verdict.offset_bytes}"
    facts(
        out,
        {
            "log": directory,
            "status": verdict.status,
            "records": f"{number(verdict.records)} sound{lsns}",
            "redacted": number(verdict.redacted) if verdict.redacted else None,
            "segments": number(verdict.segments),
            "ending": ending if verdict.sound and verdict.segments else None,
            "head": verdict.head if verdict.sound else None,
            "expected head": None if verdict.expected is None else _HEADS[verdict.expected],
            "place": place,
            "problem": verdict.problem,
        },
    )
    out.print()
    paragraph(out, says.sentence, BAD if says.exit_status else GOOD)
    if says.next:
        paragraph(out, says.next.replace("DIR", str(directory)), QUIET)
