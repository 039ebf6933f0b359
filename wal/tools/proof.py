"""`python -m wal proof`: prove that a record is in a log, or that a log only grew, and check such proofs."""

import json
from pathlib import Path
from typing import BinaryIO, TextIO

import click

from wal.head import Head
from wal.proofs import Consistency, Inclusion, prove_consistency, prove_inclusion
from wal.tools import DAMAGED
from wal.tools.heads import HEAD
from wal.tools.show import BAD, GOOD, console, count, paragraph, progress, say_json

__all__ = ["command"]


@click.command(name="proof")
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.argument("lsn", type=click.IntRange(1), required=False)
@click.option("--size", "records", type=click.IntRange(0), help="For the log of so many records; by default all.")
@click.option("--since", type=click.IntRange(0), help="Instead of a record: that the log of so many only grew.")
@click.option("--check", "file", type=click.File("r"), help="Check the proof in this file, - for standard input.")
@click.option("--head", "expected", type=HEAD, help="The head to check against; making a proof, the one it is for.")
@click.option("--old-head", type=HEAD, help="Checking that a log only grew: the older head.")
@click.option("--payload-file", type=click.File("rb"), help="Checking a record: its payload, to be proven too.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of a check as JSON; proofs always are.")
def command(
    *, directory: Path | None, lsn: int | None, records: int | None, since: int | None, file: TextIO | None,
    expected: Head | None, old_head: Head | None, payload_file: BinaryIO | None, as_json: bool,
) -> None:  # fmt: skip
    """Prove that record LSN is in the log in DIRECTORY, or check such a proof.

    A proof is one JSON object of a kilobyte or two: `proof DIR LSN > FILE` makes it. To check it takes a head
    that is trusted, and no log: `proof --check FILE --head TEXT`. Exit status: 0 made, or holds; 1 does not hold.
    """
    if file is not None:
        if expected is None:
            raise click.UsageError("--check needs --head: a proof means something only for a head that is trusted.")
        payload = None if payload_file is None else payload_file.read()
        _check(_read(file), expected, old_head, payload, as_json=as_json)
        return
    if directory is None:
        raise click.UsageError("give a directory and an LSN or --since, or --check with a file.")
    if expected is not None and records is None:
        records = expected.size
    click.echo(_prove(directory, lsn, since, records))


def _prove(directory: Path, lsn: int | None, since: int | None, records: int | None) -> str:
    try:
        with progress("reading", in_bytes=False) as tell:
            if lsn is not None and since is None:
                return prove_inclusion(directory, lsn, records, progress=tell).to_json()
            if since is not None and lsn is None:
                return prove_consistency(directory, since, records, progress=tell).to_json()
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    raise click.UsageError("give either an LSN, or the size of the older log with --since.")


def _read(file: TextIO) -> Inclusion | Consistency:
    text = file.read()
    try:
        kind = json.loads(text).get("proof")
        return Consistency.from_json(text) if kind == "consistency" else Inclusion.from_json(text)
    except (ValueError, AttributeError) as error:
        raise click.UsageError(f"{file.name} holds no proof: {error}.") from error


def _check(
    proof: Inclusion | Consistency, head: Head, old_head: Head | None, payload: bytes | None, *, as_json: bool
) -> None:
    if isinstance(proof, Inclusion):
        holds = proof.holds(head, payload)
        claim = f"record {proof.lsn}, of kind {proof.kind}, is in the log of {count(proof.size, 'record')}"
        if payload is None:
            claim += " (what it says was not checked: --payload-file)"
        else:
            claim += ", and says what the file does"
    else:
        if old_head is None:
            raise click.UsageError("the proof is that a log only grew: give the older head with --old-head.")
        holds = proof.holds(old_head, head)
        claim = f"the log of {count(proof.new_size, 'record')} begins with the one of {proof.old_size}, unchanged"
    if as_json:
        say_json({"holds": holds, "claim": claim})
    elif holds:
        paragraph(console(), f"The proof holds: {claim}.", GOOD)
    else:
        paragraph(console(), f"The proof does NOT hold, for this head, that {claim}.", BAD)
    if not holds:
        raise SystemExit(DAMAGED)
