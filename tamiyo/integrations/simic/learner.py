"""The learner: `tamiyo_gnn_v1` trained on what a journal tells, by advantage-weighted regression.

    choice    imitate what was chosen, the more the better it turned out: weight exp(advantage / temperature), the
              advantage being the return less what the value head expected of that state
              (Peng et al., 2019, https://arxiv.org/abs/1910.00177)
    value     the return
    risk      the hazard that training showed soon after

It learns which of the things that were tried went well. What nobody tried it cannot know, so a log of the baseline
alone makes a network that does as the baseline did where that went well. Whether it is better only running it shows: it
is installed on probation, and a service goes back by itself where it fails.

What is rare weighs as much in all as what is common: a run is paused or adjusted a thousand times for each seed that it
grows. A part of the log is held out, the newest of it and some before, and the weights of the epoch that was best there
are kept.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from tamiyo.core.proposal import ACTIONS, RISK_CLASSES
from tamiyo.core.registries import CAPACITIES
from tamiyo.graph.schema import CATEGORIES
from tamiyo.integrations.simic.dataset import Dataset, Example
from tamiyo.integrations.simic.errors import NothingToLearn
from tamiyo.integrations.simic.targets import Batched, Losses, batched, losses_of, run
from tamiyo.policy import ambient
from tamiyo.policy.checkpoint import checkpoint_bytes, load_policy
from tamiyo.policy.network import TamiyoNetwork

__all__ = ["Learned", "LearnerSettings", "Quality", "learn"]

EXAMPLES_MIN = 64
PAST_MIN = 16
"""Of these, those that are learned from."""
LABEL = "learned"
STRETCHES_MAX = 5
"""Of the log are held out, so that what is rare, as the growth of a run's seeds, is in both parts."""
STRETCH_MIN = 32
"""Examples of one of them, and no fewer than two horizons: what lies next to it is lost."""
_VALUE_SHARE = 0.5
"""Of the value head's loss in the sum; its squares are larger than the cross-entropies."""
_CLIP_NORM = 1.0
_VARIES = 1e-3
"""Returns that lie nearer together than this, in usual falls, are alike: to explain them would be to explain noise."""
_SEED_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """How to learn; the same settings, examples and threads give the same weights on one machine."""

    epochs: int = 8
    batch: int = 32  # graphs joined to one
    learning_rate: float = 3e-4  # of AdamW
    weight_decay: float = 1e-4
    temperature: float = 1.0  # of the advantage: less of it trusts the returns more
    weight_max: float = 20.0  # of one example
    balance: float = 1.0  # how far rare actions are made up for: 0 not at all, 1 until all weigh the same
    held_out: float = 0.2  # share of the examples, the newest
    forget: float = 0.1  # share of registry indices that are read as unknown while learning
    seed: int = 0  # of weights, dropout and order


@dataclass(frozen=True, slots=True)
class Quality:
    """How a network does on examples that it has not seen.

    `agreement` is the share of own choices whose action it would choose, beside `commonest`, that of whoever always
    takes the commonest one of those it learned from. `value_r2` is the share of the returns' variance that the value
    head explains: 0 for none of it, below 0 for worse than their mean. `risk_nats` is the cross-entropy of the risk
    head, beside `risk_nats_of_frequencies`, that of whoever only knows how frequent each class was. NaN where there is
    nothing to ask.
    """

    agreement: float
    commonest: float
    value_r2: float
    risk_nats: float
    risk_nats_of_frequencies: float


@dataclass(frozen=True, slots=True)
class Learned:
    """A network, how well it does on what was held out, and what it was made of.

    `began_with` is the policy version that it went on from, "" for new weights. `names` says of each registry how many
    of the log's names it learned; later ones it reads as unknown. `losses` are those of the held-out part, one an
    epoch, the first before any; `best_epoch` is 0 for that one.
    """

    network: TamiyoNetwork
    dataset: Dataset
    settings: LearnerSettings
    began_with: str
    names: Mapping[str, int]
    learned_from: int
    held_out: int
    losses: tuple[float, ...]
    best_epoch: int
    quality: Quality

    def checkpoint(self, label: str = LABEL) -> bytes:
        """The network as the bytes of a checkpoint, stamped with the names that it learned and the norms of the log.

        Where `best_epoch` is 0 they are the weights that it began with, untrained ones perhaps; `label` should say so.

        Raises:
            CheckpointRejected: the label cannot stand in a manifest.
        """
        registries = {
            kind: dict(islice(entries.items(), self.names[kind])) for kind, entries in self.dataset.registries.items()
        }
        return checkpoint_bytes(
            self.network, label=label, registries=registries, norms=self.dataset.norms, origin=self.origin
        )

    @property
    def origin(self) -> Mapping[str, object]:
        """What it was learned from, for the manifest."""
        return {
            "began_with": self.began_with,
            "log_id": self.dataset.log_id,
            "last_lsn": self.dataset.last_lsn,
            "examples": self.learned_from,
            "best_epoch": self.best_epoch,
            "horizon": self.dataset.horizon,
            "settings": asdict(self.settings),
        }


@ambient.learning()
def learn(
    dataset: Dataset,
    settings: LearnerSettings | None = None,
    *,
    begin_with: Path | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Learned:
    """Learn from a dataset, on the processor.

    Args:
        dataset: of `read_dataset`.
        settings: how.
        begin_with: a checkpoint to go on from, of registries that the log's begin with; None for new weights.
        threads: torch's, in the whole process until this returns, so not beside a trainer. More of them pay on idle
            cores alone: where one is kept waiting, all wait, and it takes ten times as long and more.
        progress: called with batches done and batches in all.

    Raises:
        ValueError: a setting is out of its range, or there is no thread.
        NothingToLearn: there are fewer than 64 examples.
        CheckpointRejected: the checkpoint does not fit this log.
    """
    settings = settings or LearnerSettings()
    _require_sound(settings)
    if threads < 1:
        raise ValueError(f"a learner takes one thread or more, not {threads}")
    examples = dataset.examples
    if len(examples) < EXAMPLES_MIN:
        raise NothingToLearn(_too_few(dataset))
    past, held_out = _parted(examples, settings.held_out, dataset.horizon)
    if len(past) < PAST_MIN:
        raise NothingToLearn(_too_few_before(dataset, past, held_out))
    unseen = _batches(held_out, settings.batch)
    seen = _batches(past, settings.batch)
    with ambient.threads(threads), _random_from(settings.seed):
        network, began_with, names = _begun(begin_with, dataset, past)
        found = _taught(network, seen, unseen, _balance(past, settings.balance), settings, progress)
        quality = _quality(network, past, unseen)
    return Learned(
        network=network,
        dataset=dataset,
        settings=settings,
        began_with=began_with,
        names=names,
        learned_from=len(past),
        held_out=len(held_out),
        losses=found,
        best_epoch=found.index(min(found)),
        quality=quality,
    )


def _parted(examples: Sequence[Example], share: float, horizon: int) -> tuple[Sequence[Example], Sequence[Example]]:
    """What is learned from, and what is held out: the end of each of some parts of the log, the newest among them.

    What is judged by what is held out, or by what judges that, belongs to neither.
    """
    count = len(examples)
    stretches = int(min(max(count * share // max(STRETCH_MIN, 2 * horizon), 1), STRETCHES_MAX))
    kept = max(round(count * share / stretches), 1)
    ends = [count * part // stretches for part in range(1, stretches + 1)]
    held_out = [examples[end - kept : end] for end in ends]
    spans = [(part[0].step_lsn, max(one.outcome.judged_lsn for one in part)) for part in held_out]
    past = [
        one
        for one in examples
        if not any(one.step_lsn <= end and begin <= one.outcome.judged_lsn for begin, end in spans)
    ]
    return past, [one for part in held_out for one in part]


def _balance(past: Sequence[Example], share: float) -> Tensor:
    """What a choice weighs by its action, float32 (32,): as little as there are others of it."""
    counts = torch.bincount(
        torch.tensor([one.action for one in past if one.is_own], dtype=torch.int64), minlength=ACTIONS
    )
    kinds = max(int((counts > 0).sum()), 1)
    even = counts.sum().float() / (kinds * counts.clamp_min(1))
    return even.float() ** share


def _taught(
    network: TamiyoNetwork,
    seen: Sequence[Batched],
    unseen: Sequence[Batched],
    balance: Tensor,
    settings: LearnerSettings,
    progress: Callable[[int, int], None] | None,
) -> tuple[float, ...]:
    """Teach, and leave the network with the weights of its best epoch. The held-out losses, one an epoch."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    found = [_loss(network, unseen, balance, settings)]
    best = _copied(network)
    done = 0
    for _ in range(settings.epochs):
        network.train()
        for place in torch.randperm(len(seen)).tolist():
            optimizer.zero_grad()
            losses = _asked(network, seen[place], forget=settings.forget)
            torch.autograd.backward(_sum(*losses, seen[place], balance, settings))
            torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
            optimizer.step()
            done += 1
            if progress is not None:
                progress(done, settings.epochs * len(seen))
        found.append(_loss(network, unseen, balance, settings))
        if found[-1] <= min(found):
            best = _copied(network)
    network.load_state_dict(best)
    network.eval().requires_grad_(requires_grad=False)
    return tuple(found)


def _asked(network: TamiyoNetwork, batch: Batched, *, forget: float = 0.0) -> tuple[Losses, Tensor]:
    """The heads' losses, and what the value head expects, (B,)."""
    output = run(network, batch, forget=forget)
    return losses_of(output, batch), output.value[:, 0]


def _sum(losses: Losses, expected: Tensor, batch: Batched, balance: Tensor, settings: LearnerSettings) -> Tensor:
    """One number: the mean over the batch."""
    advantage = batch.value - expected.detach()
    weight = ((advantage / settings.temperature).exp() * balance[batch.action]).clamp_max(settings.weight_max)
    return (weight * losses.choice + _VALUE_SHARE * losses.value + losses.risk).mean()


def _loss(network: TamiyoNetwork, batches: Sequence[Batched], balance: Tensor, settings: LearnerSettings) -> float:
    """The mean over all examples; every choice counts by its return alone, so that networks can be compared."""
    network.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            losses, _ = _asked(network, batch)
            total += float(_sum(losses, torch.zeros_like(batch.value), batch, balance, settings)) * len(batch)
            count += len(batch)
    return total / count if count else math.nan


def _quality(network: TamiyoNetwork, past: Sequence[Example], unseen: Sequence[Batched]) -> Quality:
    """Look at the held-out part once more."""
    own_past = torch.tensor([example.action for example in past if example.is_own], dtype=torch.int64)
    hazards = torch.tensor([example.outcome.hazard for example in past])
    frequencies = (torch.bincount(hazards, minlength=RISK_CLASSES) + 1).float() / (len(hazards) + RISK_CLASSES)
    mean = sum(example.outcome.value for example in past) / len(past)
    commonest = int(torch.bincount(own_past).argmax()) if len(own_past) else -1
    count = own = agreed = common = 0
    squares = spread = nats = blind = 0.0
    with torch.no_grad():
        for batch in unseen:
            output = run(network, batch)
            losses = losses_of(output, batch)
            count, own = count + len(batch), own + int(batch.own.sum())
            agreed += int((batch.own & (output.action.argmax(dim=1) == batch.action)).sum())
            common += int((batch.own & (batch.action == commonest)).sum())
            squares += float(losses.value.sum())
            spread += float((batch.value - mean).square().sum())
            nats += float(losses.risk.sum())
            blind -= float(frequencies[batch.hazard].log().sum())
    return Quality(
        agreement=_share(agreed, own),
        commonest=_share(common, own),
        value_r2=1.0 - squares / spread if spread > count * _VARIES**2 else math.nan,
        risk_nats=_share(nats, count),
        risk_nats_of_frequencies=_share(blind, count),
    )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


def _batches(examples: Sequence[Example], size: int) -> list[Batched]:
    """Neighbours in the log lie in different batches, as far as that goes: they are nearly alike."""
    count = math.ceil(len(examples) / size)
    return [batched(examples[first::count]) for first in range(count)]


def _begun(
    path: Path | None, dataset: Dataset, past: Sequence[Example]
) -> tuple[TamiyoNetwork, str, Mapping[str, int]]:
    """The network to teach, whose it was, and how many names of each registry it is going to know.

    An embedding that no example reads stays as it was made up, so names that come later are unknown to it, as they are
    to a policy that is loaded.
    """
    names, version = _highest(past), ""
    if path is None:
        network = TamiyoNetwork()
    else:
        policy = load_policy(path, dataset.registries, reference=True)
        network, version = policy.network.requires_grad_(requires_grad=True), policy.identity.version
        names |= {kind: max(stamp.count, names[kind]) for kind, stamp in policy.registry_stamps.items()}
    network.know_registries(names)
    return network, version, MappingProxyType(names)


def _highest(examples: Sequence[Example]) -> dict[str, int]:
    """The highest index of each registry in their graphs."""
    highest = dict.fromkeys(CAPACITIES, 0)
    for example in examples:
        for node_type, kinds in CATEGORIES.items():
            for kind, column in zip(kinds, example.graph.categories[node_type].T, strict=True):
                highest[kind] = max(highest[kind], int(column.max(initial=0)))
    return highest


def _copied(network: TamiyoNetwork) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@contextmanager
def _random_from(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which seeds every device as well
        yield


def _require_sound(settings: LearnerSettings) -> None:
    sound = {
        "epochs": settings.epochs >= 1,
        "batch": settings.batch >= 1,
        "learning_rate": 0.0 < settings.learning_rate < math.inf,
        "weight_decay": 0.0 <= settings.weight_decay < math.inf,
        "temperature": 0.0 < settings.temperature < math.inf,
        "weight_max": 1.0 <= settings.weight_max < math.inf,
        "balance": 0.0 <= settings.balance <= 1.0,
        "held_out": 0.0 < settings.held_out <= 0.5,
        "forget": 0.0 <= settings.forget < 1.0,
        "seed": 0 <= settings.seed <= _SEED_MAX,
    }
    wrong = [f"{name}={getattr(settings, name)!r}" for name, holds in sound.items() if not holds]
    if wrong:
        raise ValueError(f"a learner cannot work with {', '.join(wrong)}: see LearnerSettings")


def _too_few(dataset: Dataset) -> str:
    skipped = "; ".join(f"{count} others: {reason}" for reason, count in dataset.skipped.items())
    return (
        f"what was read of the log holds {len(dataset.examples)} decisions of which it is known what came of them, and "
        f"it takes {EXAMPLES_MIN} to learn from ({skipped or 'no others'}). {_more_of_it(dataset)}"
    )


def _too_few_before(dataset: Dataset, past: Sequence[Example], held_out: Sequence[Example]) -> str:
    between = len(dataset.examples) - len(past) - len(held_out)
    return (
        f"{len(held_out)} examples are held out, the newest among them, and what came of {between} others meets them: "
        f"{len(past)} are left to learn from, and it takes {PAST_MIN}. {_more_of_it(dataset)}"
    )


def _more_of_it(dataset: Dataset) -> str:
    shorter = f", or ask for a horizon of less than {dataset.horizon} decisions" if dataset.horizon > 1 else ""
    return f"Let the run go on, or read more of the log where it holds more (`last`){shorter}"
