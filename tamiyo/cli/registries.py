"""`tamiyo registries import DIR FILE...`: take over the names that a learner, or another log, numbered first."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

import wal
from tamiyo.cli.conservative import operator_name
from tamiyo.cli.desk import has_log, journal_of, require_log
from tamiyo.errors import RegistryConflict, TamiyoError

if TYPE_CHECKING:
    from tamiyo.core.registries import Registries

__all__ = ["command"]

SUFFIX = "_registry.json"


@click.group(name="registries")
def command() -> None:
    """Exchange categorical registries with a learner."""


@command.command(name="import", short_help="Take over names past those that a log has, or begin a log with them.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--new", is_flag=True, help="Begin the log of DIRECTORY, which has none yet, with these names.")
def import_files(directory: Path, paths: tuple[Path, ...], new: bool) -> None:  # noqa: FBT001  as click passes flags
    """Take over the names in PATHS, each a <kind>_registry.json, past those that DIRECTORY's log has.

    All of them or none: where one file numbers a name otherwise than the log, that name is said and nothing changes.
    No service may have the log open: a step numbers names too.

    A checkpoint decides only where the names of its training have the same numbers: for one from another directory,
    begin the new one with --new and that directory's registries.
    """
    if not new:
        require_log(directory)
    try:
        if new:
            _begin(directory, paths)
        lines = _take_over(directory, paths)
    except wal.LogLocked as error:
        raise click.ClickException(
            f"a service has the log of {directory} open: stop it first, then import and start it again"
        ) from error
    except (wal.LogError, TamiyoError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for line in lines:
        print(line)


def _begin(directory: Path, paths: tuple[Path, ...]) -> None:
    """Make the log, once it is known that it will take the names."""
    from tamiyo.config import load_settings
    from tamiyo.core.registries import initial

    if has_log(directory):
        raise click.UsageError(f"{directory} has a log already: without --new its names are added to")
    _added(paths, initial())
    directory.mkdir(parents=True, exist_ok=True)
    wal.Log.open(directory / "wal", segment_bytes=load_settings().segment_bytes).close()


def _take_over(directory: Path, paths: tuple[Path, ...]) -> list[str]:
    from tamiyo.core import journal_pb2 as journal
    from tamiyo.core.registries import digest, extended
    from tamiyo.derived import Derived

    with journal_of(directory) as held:
        registries, events = held.state.registries, []
        added = _added(paths, registries)
        for kind, names in added.items():
            if names:
                event = journal.RegistryImported(
                    kind=kind, keys=names, first_index=len(registries[kind]) + 1, operator=operator_name()
                )
                event.event_time_ns = held.now_ns()
                events.append(event)
        if events:
            held.begin(lambda _state, _now_ns: tuple(events))
        Derived(directory).export(held.state)
        now = extended(registries, added)
        return [
            f"{kind}: {len(names)} new names, {len(now[kind])} in all, digest {digest(now[kind])}"
            for kind, names in added.items()
        ]


def _added(paths: tuple[Path, ...], registries: "Registries") -> dict[str, list[str]]:
    """The names that the files add to these registries, by kind."""
    from tamiyo.core.registries import additions, extended
    from tamiyo.projections.exports import import_registry

    found: dict[str, list[str]] = {}
    for path in paths:
        if not path.name.endswith(SUFFIX):
            raise RegistryConflict(f"{path} is not called <kind>{SUFFIX}, so its kind is not known")
        kind = path.name.removesuffix(SUFFIX)
        try:
            names = additions(registries, kind, import_registry(path))
        except RegistryConflict as conflict:
            raise RegistryConflict(f"{path} is not taken over, nor is any other file: {conflict}") from conflict
        registries = extended(registries, {kind: names})
        found.setdefault(kind, []).extend(names)
    return found
