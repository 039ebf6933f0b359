"""`tamiyo policy init|show`: make a network from a seed, and say what a checkpoint holds."""

from pathlib import Path

import click

__all__ = ["command"]


@click.group(name="policy")
def command() -> None:
    """Make and inspect policy checkpoints."""


@command.command()
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


@command.command()
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
    print(f"weights       {weights:,} in {len(policy.network.state_dict())} tensors")
    print(f"sha256        {checkpoint.digest}")
