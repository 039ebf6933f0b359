"""`tamiyo registries import DIR FILE...`: take over the names that a learner numbered first."""

from pathlib import Path

import click

import wal
from tamiyo.cli.conservative import operator_name
from tamiyo.cli.desk import journal_of, require_log
from tamiyo.errors import RegistryConflict, TamiyoError

__all__ = ["command"]

SUFFIX = "_registry.json"


@click.group(name="registries")
def command() -> None:
    """Exchange categorical registries with a learner."""


@command.command(name="import")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_files(directory: Path, paths: tuple[Path, ...]) -> None:
    """Take over the names in PATHS, each a <kind>_registry.json, past those that DIRECTORY's log has.

    All of them or none: where one file numbers a name otherwise than the log, that name is said and nothing changes.
    No service may have the log open: a step numbers names too.
    """
    require_log(directory)
    try:
        lines = _take_over(directory, paths)
    except wal.LogLocked as error:
        raise click.ClickException(
            f"a service has the log of {directory} open: stop it first, then import and start it again"
        ) from error
    except (wal.LogError, TamiyoError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for line in lines:
        print(line)


def _take_over(directory: Path, paths: tuple[Path, ...]) -> list[str]:
    from tamiyo.core import journal_pb2 as journal
    from tamiyo.core.registries import additions, digest, extended
    from tamiyo.derived import Derived
    from tamiyo.projections.exports import import_registry

    with journal_of(directory) as held:
        registries, events = held.state.registries, []
        for path in paths:
            if not path.name.endswith(SUFFIX):
                raise RegistryConflict(f"{path} is not called <kind>{SUFFIX}, so its kind is not known")
            kind = path.name.removesuffix(SUFFIX)
            names = additions(registries, kind, import_registry(path))
            if names:
                event = journal.RegistryImported(
                    kind=kind, keys=names, first_index=len(registries[kind]) + 1, operator=operator_name()
                )
                events.append(event)
                registries = extended(registries, {kind: names})
        for event in events:
            event.event_time_ns = held.now_ns()
        if events:
            held.begin(lambda _state, _now_ns: tuple(events))
        Derived(directory).export(held.state)
        added = {event.kind: len(event.keys) for event in events}
        kinds = [path.name.removesuffix(SUFFIX) for path in paths]
        return [
            f"{kind}: {added.get(kind, 0)} new names, {len(registries[kind])} in all, digest {digest(registries[kind])}"
            for kind in kinds
        ]
