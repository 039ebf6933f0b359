"""`tamiyo policy`: make and look at checkpoints, let one speak in a directory, go back, list what was installed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

import wal
from tamiyo.cli.conservative import operator_name
from tamiyo.cli.desk import WAIT_S, asked, require_log
from tamiyo.errors import TamiyoError

if TYPE_CHECKING:
    from tamiyo.core.registries import RegistryStamp

__all__ = ["command"]


@click.group(name="policy")
def command() -> None:
    """Make, inspect and install policy checkpoints."""


@command.command(short_help="Write a new, untrained network to a file.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), required=True, help="What the weights are made from.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(seed: int, out: Path, force: bool) -> None:  # noqa: FBT001  click passes flags as arguments
    """Write a new, untrained network to a file; the same seed gives the same bytes."""
    from tamiyo.policy.checkpoint import init_checkpoint

    if out.exists() and not force:
        raise click.ClickException(f"{out} exists already; --force replaces it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = init_checkpoint(out, seed)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}; choose another place") from error
    print(f"wrote {out}: {checkpoint.version}, {len(checkpoint.data) / 2**20:.1f} MiB")
    print(f"sha256 {checkpoint.digest}")
    print("The network is UNTRAINED: it proposes, but nothing has taught it what is good.")
    print("Do not let it decide a run that matters.")


@command.command(short_help="Say what a checkpoint holds.")
@click.argument("path", type=click.Path(path_type=Path))
def show(path: Path) -> None:
    """Say what the checkpoint at PATH holds, after loading it as a service would."""
    from tamiyo.errors import CheckpointRejected
    from tamiyo.policy.checkpoint import load_policy, read_checkpoint

    try:
        checkpoint = read_checkpoint(path)
        policy = load_policy(path)
    except CheckpointRejected as error:
        raise click.ClickException(str(error)) from error
    weights = sum(tensor.numel() for tensor in policy.network.parameters())
    print(f"version       {policy.identity.version}")
    print(f"architecture  {policy.identity.architecture}")
    print(f"label         {checkpoint.label or 'none'}")
    print(f"seed          {checkpoint.manifest.get('seed', 'none')}")
    print(f"learned from  {_origin(checkpoint.manifest.get('learned_from'))}")
    print(f"weights       {weights:,} in {len(policy.network.state_dict())} tensors")
    print(f"registries    {_registries(policy.registry_stamps)}")
    print(f"sha256        {checkpoint.digest}")


def _origin(said: object) -> str:
    """Whatever the maker of a checkpoint wrote there, on one line."""
    if not isinstance(said, dict):
        return "nothing" if said is None else repr(said)[:80]
    return ", ".join(f"{name} {value!r:.40}" for name, value in said.items() if not isinstance(value, dict))[:200]


def _registries(stamps: Mapping[str, "RegistryStamp"]) -> str:
    """What a log must have for the checkpoint to decide there."""
    needed = ", ".join(f"{kind} {stamp.count} {stamp.digest[:12]}" for kind, stamp in stamps.items() if stamp.count)
    return needed or "any"


DIRECTORY = click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
REASON = click.option("--reason", default="", help="Why; it stands in the log.")
OPERATOR = click.option("--operator", default=None, help="Who asks.  [default: the user this runs as]")
WAIT = click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=WAIT_S, show_default=True, help="Seconds for a live service."
)


@command.command(short_help="Let a checkpoint decide for a controller.")
@DIRECTORY
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@REASON
@OPERATOR
@WAIT
def install(directory: Path, path: Path, reason: str, operator: str | None, wait_s: float) -> None:
    """Let the checkpoint at PATH decide for the controller in DIRECTORY, from the next step on.

    It is loaded and tried out first, and refused where it does not fit. A live service goes on with its steps
    meanwhile. Where it fails its first proposals the last good policy decides again by itself.
    """
    _ask(directory, "policy_install", reason, operator, wait_s, str(path.absolute()))


@command.command(short_help="Let the last good policy decide again.")
@DIRECTORY
@REASON
@OPERATOR
@WAIT
def rollback(directory: Path, reason: str, operator: str | None, wait_s: float) -> None:
    """Let the last good policy decide again for the controller in DIRECTORY."""
    _ask(directory, "policy_rollback", reason, operator, wait_s)


@command.command(name="list", short_help="List installed and refused policies, and who decides.")
@DIRECTORY
def list_policies(directory: Path) -> None:
    """List what was installed, refused and rolled back in DIRECTORY, the oldest first, and who decides now."""
    from tamiyo.audit.bases import records_past
    from tamiyo.core import journal_pb2 as journal
    from tamiyo.core.events import KINDS
    from tamiyo.stored import event_of

    require_log(directory)
    told = (journal.PolicyInstalled, journal.PolicyRejected, journal.PolicyRolledBack)
    kinds = {KINDS[kind] for kind in (*told, journal.ServiceOpened, journal.StateBase)}
    speaks = ""
    try:
        for entry in records_past(directory / "wal", None):
            if entry.kind not in kinds:
                continue
            event = event_of(entry)
            if isinstance(event, told):
                print(f"{entry.lsn:>10}  {_line(event)}")
            if isinstance(event, journal.StateBase):
                speaks = speaks or event.state.policy_version  # retention may have dropped the record that said so
            elif not isinstance(event, journal.PolicyRejected):
                speaks = getattr(event, "policy_version", "") or getattr(event, "version", "")
    except (wal.LogError, TamiyoError) as error:
        raise click.ClickException(str(error)) from error
    print(f"decides: {speaks or 'nobody yet'}")


def _line(event: Any) -> str:
    kind = event.DESCRIPTOR.name
    if kind == "PolicyInstalled":
        by = f"by {event.operator}" if event.operator else f"update {event.policy_id}"
        return f"installed    {event.version}  {by}  sha256 {event.checkpoint_digest}"
    if kind == "PolicyRejected":
        return f"rejected     {event.version or 'unnamed'}  {event.reason}: {event.detail}"
    return f"rolled back  {event.from_version} to {event.version}  {event.cause} {event.operator}".rstrip()


def _ask(
    directory: Path, directive: str, reason: str, operator: str | None, wait_s: float, checkpoint: str = ""
) -> None:
    from tamiyo.errors import RequestRejected
    from tamiyo.requests import Request

    require_log(directory)
    try:
        request = Request(uuid4().hex, directive, operator or operator_name(), reason, checkpoint=checkpoint)
    except RequestRejected as error:
        raise click.UsageError(str(error)) from error
    print(asked(directory, request, wait_s))
