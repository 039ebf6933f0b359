"""Writers that are killed for real, again and again on the same log, and what the log must hold after each."""

import itertools
import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kill_child import THREADS, is_to_go, record_of

import wal

CHILD = Path(__file__).with_name("kill_child.py")
SEGMENT_BYTES = (8192, 8192, 16384, 32768)
SILENCE_MAX_S = 120
LIVES = 20  # of one log: many enough to prune and redact, few enough to begin a log under the kill as well
PHASES = {"open": 40, "write": 40, "prune": 16, "redact": 16, "close": 10}  # and how many operations each may take
MOMENTS = ("before", "after", "amid")


class Forge:
    """The process that forks writers (`kill_child`). What they say comes on one pipe, line by line."""

    def __enter__(self) -> Self:
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env=os.environ | {"PYTHONPATH": paths},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(SILENCE_MAX_S) == 0

    def run(self, plan: dict[str, object], lines_before_kill: int | None, delay_s: float) -> list[list[str]]:
        """Let one writer live, and return what it said, each line in words; the last says how it ended.

        It is killed so long after so many lines (it may have ended before), or left to end by itself when
        `lines_before_kill` is None.
        """
        self._send(json.dumps(plan))
        said: list[list[str]] = []
        left_alone = lines_before_kill is None
        if left_alone:
            self._send("wait")
        for line in self._lines():
            said.append(line.split(" "))
            if said[-1][0] == "ended":
                return said
            if not left_alone and (len(said) == lines_before_kill or said[-1][0] in ENDINGS):
                left_alone = True  # a second order would be read as the next plan, and threads may speak on meanwhile
                time.sleep(delay_s)  # any moment is as good as another
                self._send("kill")
        raise AssertionError(f"the process that forks writers is gone; this writer said {said[-3:]}")

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def _lines(self) -> Iterator[str]:
        """Yield lines as they come. No writer outlives its last line, so none is left over for the next."""
        assert self._process.stdout is not None
        fd, begun = self._process.stdout.fileno(), ""
        while True:
            ready, _, _ = select.select([fd], [], [], SILENCE_MAX_S)
            assert ready, f"nothing was said for {SILENCE_MAX_S} s"
            part = os.read(fd, 65536).decode()
            if not part:
                return
            *whole, begun = (begun + part).split("\n")
            yield from whole


ENDINGS = frozenset({"closed", "failed"})


@dataclass
class Said:
    """What one writer said. A batch is known by (thread, number of its first record, number of records)."""

    handed_in: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: {thread: [] for thread in THREADS})
    refused: set[tuple[int, int]] = field(default_factory=set)
    present: dict[tuple[int, int], int] = field(default_factory=dict)  # (thread, number) -> LSN, of what must be there
    acknowledged: int = 0
    heads: list[wal.Head] = field(default_factory=list)
    opened: int | None = None  # the last LSN that opening found
    pruning_to: int = 0
    pruned_to: int = 0
    redacting_to: int = 0
    redacted_to: int = 0
    closed: bool = False
    phase: str = "begin"

    @classmethod
    def of(cls, lines: list[list[str]]) -> Self:
        said = cls()
        for word, *rest in lines:
            assert word != "failed", " ".join(rest)
            getattr(said, f"_{word.replace('-', '_')}")(*rest)
        return said

    def _begins(self, phase: str) -> None:
        self.phase = phase

    def _opened(self, last_lsn: str) -> None:
        self.opened = int(last_lsn)

    def _handing_in(self, thread: str, number: str, records: str) -> None:
        self.handed_in[int(thread)].append((int(number), int(records)))

    def _refused(self, thread: str, number: str, _: str) -> None:
        self.refused.add((int(thread), int(number)))

    def _written(self, thread: str, number: str, records: str, first_lsn: str) -> None:
        for at in range(int(records)):
            self.present[int(thread), int(number) + at] = int(first_lsn) + at

    def _acknowledged(self, thread: str, number: str, records: str, first_lsn: str) -> None:
        self.acknowledged += int(records)
        self._written(thread, number, records, first_lsn)

    def _head(self, text: str) -> None:
        self.heads.append(wal.Head.parse(text))

    def _pruning(self, lsn: str) -> None:
        self.pruning_to = max(self.pruning_to, int(lsn))

    def _pruned(self, lsn: str) -> None:
        self.pruned_to = int(lsn)

    def _redacting(self, lsn: str) -> None:
        self.redacting_to = int(lsn)

    def _redacted(self, lsn: str) -> None:
        self.redacted_to = max(self.redacted_to, int(lsn))

    def _closed(self) -> None:
        self.closed = True

    def _ended(self, status: str) -> None:
        assert int(status) in ((-9, 0) if self.closed else (-9,)), f"the writer ended with status {status}"


class History:
    """One log through the deaths of its writers: what must be in it, and every head that it was said to have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lives = 0
        self.known: dict[int, wal.Entry] = {}  # by LSN: what was found after the last death
        self.last_lsn = 0
        self.heads: list[wal.Head] = []
        self.keep: wal.Head | None = None  # must hold whatever is pruned
        self.pruning_to = 0
        self.redacting_to = 0

    def check(self, said: Said, draw: random.Random) -> wal.Verdict:
        """Look at the log as the death left it, read-only, and return what it is worth."""
        found = list(wal.read(self.path, None))
        first_lsn = found[0].lsn if found else 1
        assert [entry.lsn for entry in found] == list(range(first_lsn, first_lsn + len(found))), "LSNs have a gap"
        assert said.opened in (None, self.last_lsn), "what opening found is not what was read before"
        oldest = next(iter(self.known), 1)
        self.pruning_to = max(self.pruning_to, said.pruning_to)  # one that was cut short is completed by opening
        assert max(oldest, said.pruned_to) <= first_lsn, "what was pruned came back"
        assert first_lsn <= max(oldest, self.pruning_to), "more was pruned than was to be"
        self.redacting_to = max(self.redacting_to, said.redacting_to)
        new = [entry for entry in found if entry.lsn > self.last_lsn]
        assert len(found) - len(new) == max(0, self.last_lsn + 1 - first_lsn), "what was there before is gone"
        for entry in found[: len(found) - len(new)]:
            self._compare(entry, self.known[entry.lsn])
        self._match(new, said)
        to_be_gone = [entry for entry in found if entry.lsn <= said.redacted_to and is_to_go(entry)]
        assert all(isinstance(entry, wal.Redacted) for entry in to_be_gone), "a redacted payload is still there"
        self.known = {entry.lsn: entry for entry in found}
        self.last_lsn = max(self.known, default=self.last_lsn)
        self.heads += said.heads
        self.lives += 1
        return self._verify(said, draw, first_lsn)

    def _compare(self, entry: wal.Entry, before: wal.Entry) -> None:
        """An entry is as it was, or was redacted since."""
        if isinstance(entry, wal.Redacted) and not isinstance(before, wal.Redacted):
            allowed = entry.lsn <= self.redacting_to and is_to_go(before)
            assert allowed, f"LSN {entry.lsn}: nobody asked for its redaction"
            same = (entry.lsn, entry.kind) == (before.lsn, before.kind)
        else:
            same = entry == before and type(entry) is type(before)
        assert same, f"{entry} instead of {before}"

    def _match(self, new: list[wal.Entry], said: Said) -> None:
        """What is new was handed in by this writer, in order, whole batches, and all that it had to be."""
        mine = {thread: self._batches(thread, said) for thread in THREADS}
        lsns: dict[tuple[int, int], int] = {}
        left = iter(new)
        for entry in left:
            number, records = next(mine[entry.kind], (0, 0))
            assert records, f"LSN {entry.lsn}: this thread never handed in so much"
            batch = [entry, *itertools.islice(left, records - 1)]
            assert len(batch) == records, f"LSN {entry.lsn} begins a batch that is not whole"
            for at, each in enumerate(batch):
                lsns[entry.kind, number + at] = each.lsn
                self._compare(each, wal.Entry(entry.lsn + at, *record_of(self.lives, entry.kind, number + at)))
        assert said.present.items() <= lsns.items(), "what was acknowledged or written is not there"

    @staticmethod
    def _batches(thread: int, said: Said) -> Iterator[tuple[int, int]]:
        return iter([batch for batch in said.handed_in[thread] if (thread, batch[0]) not in said.refused])

    def _verify(self, said: Said, draw: random.Random, first_lsn: int) -> wal.Verdict:
        """The log is sound, and heads that were given out still hold: the last one, and an older or the kept one."""
        covering = [head for head in self.heads if head.size >= first_lsn - 1]
        older = covering if self.keep is None else [self.keep, *covering[-10:]]
        for head in [*covering[-1:], *draw.sample(older, min(1, len(older)))] or [None]:
            verdict = wal.verify(self.path, head)
            assert verdict.sound, verdict
            found = (verdict.expected, verdict.last_lsn)
            assert found == (None if head is None else "confirmed", self.last_lsn), verdict
            assert not said.closed or (verdict.clean_close and verdict.status != "torn"), verdict
        return verdict

    def expected(self) -> wal.Head | None:
        """The last head that was given out, unless a prune that did not keep it has gone past it."""
        return self.heads[-1] if self.heads and self.heads[-1].size >= self.pruning_to else self.keep

    def finish(self) -> None:
        """The log opens and goes on, and ends sound."""
        with wal.Log.open(self.path, segment_bytes=8192, expect_head=self.expected()) as log:
            first_lsn = log.append([(0, b"after")]).first_lsn
        assert first_lsn == self.last_lsn + 1, f"the log goes on at LSN {first_lsn} after {self.last_lsn}"
        verdict = wal.verify(self.path, self.expected())
        assert verdict.sound, verdict


def kill_writers(directory: Path, rounds: int, seed: int) -> Counter[str]:
    """Kill so many writers, look at the log after each, and count what they did. Raises AssertionError."""
    draw = random.Random(seed)
    counts: Counter[str] = Counter()
    with Forge() as forge:
        while counts["killed"] < rounds:
            path = directory / f"log-{counts['logs']}"
            path.mkdir()
            history = History(path)
            for _ in range(LIVES):
                try:
                    _kill_one(forge, history, draw, counts)
                except Exception as error:
                    error.add_note(f"seed {seed}, log {counts['logs']}, life {history.lives}: {path}")
                    raise
            history.finish()
            shutil.rmtree(path)
            counts["logs"] += 1
            sys.stderr.write(f"{counts['killed']} of {rounds} killed\n")
    return counts


def _kill_one(forge: Forge, history: History, draw: random.Random, counts: Counter[str]) -> None:
    outside = draw.random() < 0.4
    phase = draw.choice(list(PHASES))
    if history.keep is None and history.heads:
        history.keep = history.heads[0]
    expected = history.expected()
    plan = {
        "path": str(history.path), "life": history.lives, "seed": draw.randrange(2**32),
        "segment_bytes": draw.choice(SEGMENT_BYTES),
        "keep": None if history.keep is None else str(history.keep),
        "expect": str(expected) if expected is not None and draw.random() < 0.3 else None,
        "phase": None if outside else phase,
        "operation": draw.randrange(PHASES[phase]) + 1,
        "moment": draw.choice(MOMENTS),
    }  # fmt: skip
    lines = 1 + int(draw.expovariate(1 / 60)) if outside else None
    said = Said.of(forge.run(plan, lines, draw.expovariate(1 / 0.002) if outside else 0))
    counts["acknowledged"] += said.acknowledged
    counts["closed" if said.closed else "killed"] += 1
    counts[f"killed in {said.phase}"] += not said.closed
    verdict = history.check(said, draw)
    counts["torn"] += verdict.status == "torn"
