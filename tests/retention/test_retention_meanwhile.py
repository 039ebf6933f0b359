"""A whole retention run between two calls of the disk, at every one of them, while somebody looks at the directory."""

import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from retention_rig import SETTINGS, Aged, history, write

import wal
from tamiyo.audit import audit
from tamiyo.cli.policy import list_policies
from tamiyo.projections import Projection, diagnose
from tamiyo.retention import Order, preview, retain_directory

CALLS = ("list_dir", "open")
"""By these alone somebody who looks sees what became of the files: the rest is of a file that is open."""


def audited(directory: Path, _: Aged) -> None:
    report = audit(directory, 2)
    assert report.passed, report.text


def diagnosed(directory: Path, _: Aged) -> None:
    found = diagnose(directory)
    assert found.sound, (found.problem, found.differences)


def projected(directory: Path, _: Aged) -> None:
    with Projection.open(directory.parent) as projection:
        projection.catch_up(directory / "wal")
    assert diagnose(directory.parent, directory / "wal").sound


def listed(directory: Path, _: Aged) -> None:
    said = CliRunner().invoke(list_policies, [str(directory)])
    assert said.exit_code == 0, said.output


def previewed(directory: Path, aged: Aged) -> None:
    preview(directory, SETTINGS, clock=aged.clock())


@pytest.fixture(scope="module")
def aged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Aged]:
    directory = tmp_path_factory.mktemp("aged")
    made = write(None, history(), directory / "wal")
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal")
    return directory, made


class Between:
    """Lets something happen just before one of this thread's calls of a disk, the one with number `at`."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, meanwhile: Callable[[], object]) -> None:
        self.calls = 0
        self._at, self._meanwhile, self._looks = at, meanwhile, threading.current_thread()
        for name in CALLS:
            patch.setattr(wal.OsDisk, name, self._before(getattr(wal.OsDisk, name)))

    def _before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            if threading.current_thread() is self._looks:
                self.calls += 1
                if self.calls == self._at:
                    self._meanwhile()
            return real(*given, **options)

        return call


@pytest.mark.parametrize("look", [audited, listed])
def test_a_retention_run_meanwhile_makes_no_audit_fail_and_no_list_of_policies(
    look: Callable[[Path, Aged], None], aged: tuple[Path, Aged], tmp_path: Path
) -> None:
    meet(look, aged, tmp_path, every=16 if look is audited else 7)


@pytest.mark.long
@pytest.mark.parametrize("look", [audited, diagnosed, projected, listed, previewed])
def test_a_retention_run_meanwhile_makes_nothing_wrong(
    look: Callable[[Path, Aged], None], aged: tuple[Path, Aged], tmp_path: Path
) -> None:
    meet(look, aged, tmp_path, every=1)


def meet(look: Callable[[Path, Aged], None], aged: tuple[Path, Aged], tmp_path: Path, *, every: int) -> None:
    """Look once for each moment, or for one in so many."""
    source, made = aged
    at, over = 1, False
    while not over:
        directory = tmp_path / str(at) / "controller"
        shutil.copytree(source, directory)
        run = partial(retain_directory, directory, Order("run"), SETTINGS, clock=made.clock())
        with pytest.MonkeyPatch.context() as patch:
            between = Between(patch, at, run)
            look(directory, made)
            over = between.calls < at
        shutil.rmtree(directory.parent)
        at += every
    assert at > 20
