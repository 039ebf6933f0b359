"""The learner: what went well is learned, and what comes out is a policy that a service takes."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rig import SECRET

from tamiyo import TamiyoService
from tamiyo.bench.samples import OneHost, built, host, observed, seed, small_host
from tamiyo.core.norms import PRIORS
from tamiyo.core.registries import initial
from tamiyo.errors import CheckpointRejected
from tamiyo.graph import Graph
from tamiyo.graph.schema import CATEGORIES
from tamiyo.integrations.simic import Dataset, Example, Learned, LearnerSettings, NothingToLearn, learn, learner
from tamiyo.integrations.simic.credit import Outcome
from tamiyo.integrations.simic.learner import EXAMPLES_MIN, STRETCHES_MAX, _balance, _parted
from tamiyo.integrations.simic.targets import batched, losses_of, run
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.checkpoint import init_checkpoint, load_policy, parse_checkpoint
from tamiyo.policy.hetero import to_hetero
from tamiyo.policy.network import TamiyoNetwork
from tamiyo.policy.update import policy_update
from tamiyo.signing import sign_update
from tamiyo.testing import FixedPolicy

QUICK = LearnerSettings(epochs=1, batch=16)


def graph(number: int) -> Graph:
    """A small one; the loss and the seeds tell it apart from others."""
    stages = (pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_FOSSILIZED, pb.SEED_STAGE_BLENDING)
    seeds = [seed(stages[place]) for place in range(1 + number % 3)]
    return built(observed(*seeds, training_metrics={"loss": 0.1 * (number % 16)}), host(layers=2), host(layers=1))


@cache
def graphs() -> Sequence[Graph]:
    return [graph(number) for number in range(48)]


def example(number: int, action: int = 2, value: float = 0.0, hazard: int = 0, **given: Any) -> Example:
    on = graphs()[number % len(graphs())]
    plain = Example(
        step_lsn=number + 1,
        run_id="run-1",
        graph=on,
        proposal=FixedPolicy(action).propose(on),
        action=action,
        is_own=True,
        germinates=False,
        outcome=Outcome(value, hazard, judged_lsn=number + 2),
    )
    return replace(plain, **given)


def dataset(examples: Sequence[Example], **given: Any) -> Dataset:
    plain = Dataset(
        examples=examples,
        registries=initial(),
        norms=PRIORS,
        directory=Path("controller"),
        log_id="ab" * 16,
        last_lsn=len(examples),
        horizon=1,
        skipped=MappingProxyType({}),
    )
    return replace(plain, **given)


@pytest.fixture(scope="module")
def learned() -> Learned:
    """From two actions on the same graphs, of which one turned out well; and a hazard that the loss foretells."""
    told = [
        example(number, action=1 if number % 2 else 2, value=1.5 if number % 2 else -1.5, hazard=4 * (number % 16 > 7))
        for number in range(160)
    ]
    order = torch.randperm(len(told), generator=torch.Generator().manual_seed(5)).tolist()
    mixed = [
        replace(told[place], step_lsn=lsn, outcome=replace(told[place].outcome, judged_lsn=lsn + 1))
        for lsn, place in enumerate(order, 1)
    ]
    return learn(dataset(mixed), LearnerSettings(epochs=4, batch=16, learning_rate=1e-3))


def test_what_turned_out_well_is_chosen(learned: Learned) -> None:
    chosen = []
    with torch.no_grad():
        for one in graphs():
            data = to_hetero(one)
            output = learned.network(data.x_dict, data.categories_dict, data.edge_index_dict, data.edge_attr_dict)
            chosen.append(int(output.action.argmax()))
    assert set(chosen) == {1}, "the other one was tried as often, and turned out badly"


def test_what_comes_is_told_from_what_is_seen(learned: Learned) -> None:
    assert learned.quality.risk_nats < 0.5 * learned.quality.risk_nats_of_frequencies


def test_the_best_epoch_is_kept(learned: Learned) -> None:
    assert len(learned.losses) == 1 + learned.settings.epochs
    assert learned.best_epoch == learned.losses.index(min(learned.losses)) > 0
    assert (learned.learned_from, learned.held_out) == (127, 32)  # and one that would reach into what is held out


def test_the_same_again_gives_the_same_weights_and_leaves_random_numbers_alone() -> None:
    told = dataset([example(number, value=float(number % 3)) for number in range(EXAMPLES_MIN)])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, again = learn(told, QUICK).checkpoint(), learn(told, QUICK).checkpoint()
    assert one == again
    assert torch.equal(torch.get_rng_state(), before)
    assert learn(told, replace(QUICK, seed=1)).checkpoint() != one


def _with_default_dtype(dtype: torch.dtype) -> ExitStack:
    stack = ExitStack()
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(dtype)
    return stack


@pytest.mark.parametrize(
    "within",
    [
        torch.no_grad, torch.inference_mode, partial(torch.device, "meta"),
        partial(torch.autocast, "cpu", torch.bfloat16), partial(_with_default_dtype, torch.float64),
    ],
    ids=["no_grad", "inference_mode", "default device", "autocast", "default dtype"],
)  # fmt: skip
def test_what_a_trainer_has_set_in_torch_sways_nothing(
    within: Callable[[], AbstractContextManager[Any]], learned_plainly: Learned
) -> None:
    with within():
        again = learn(learned_plainly.dataset, QUICK)
    assert again.checkpoint() == learned_plainly.checkpoint()
    assert (again.losses, again.quality) == (learned_plainly.losses, learned_plainly.quality)


@pytest.fixture(scope="module")
def learned_plainly() -> Learned:
    return learn(dataset([example(number, value=float(number % 3)) for number in range(EXAMPLES_MIN)]), QUICK)


def test_a_checkpoint_says_what_it_was_learned_from_and_loads(learned: Learned, tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    path.write_bytes(learned.checkpoint())
    policy = load_policy(path, initial(), reference=True)
    assert policy.identity.version.startswith("gnn-learned-")
    manifest = parse_checkpoint(learned.checkpoint("mine"), path).manifest
    assert manifest["label"] == "mine"
    assert manifest["learned_from"] == dict(learned.origin)
    assert manifest["learned_from"]["examples"] == 127
    assert policy.propose(graphs()[0]).action.index(max(policy.propose(graphs()[0]).action)) == 1
    with pytest.raises(CheckpointRejected, match="label"):
        learned.checkpoint("No Label!")


def test_a_service_takes_it_as_an_update(learned: Learned, tmp_path: Path) -> None:
    with TamiyoService.open(tmp_path, urza=OneHost(small_host()), secret=SECRET) as tamiyo:
        issued_ns = tamiyo.journal.now_ns()
        update = policy_update(learned.checkpoint(), policy_id="simic-1", issued_unix_ns=issued_ns)
        verdict = tamiyo.ingest_policy_update(update, sign_update(update, SECRET))
        assert verdict.installed, verdict
        assert tamiyo.state.policy_version == update.tamiyo_policy_version


def test_one_may_go_on_from_a_checkpoint(learned: Learned, tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    path.write_bytes(learned.checkpoint())
    told = dataset([example(number, action=1, value=1.0) for number in range(EXAMPLES_MIN)])
    on, anew = learn(told, QUICK, begin_with=path), learn(told, QUICK)
    assert on.losses[0] < anew.losses[0], "it knows already what to choose"
    version = parse_checkpoint(path.read_bytes(), path).version
    assert (on.origin["began_with"], anew.origin["began_with"]) == (version, "")


def test_one_of_other_registries_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "learned.safetensors"
    told = dataset([_named(example(number), {"layer_type": 1}) for number in range(EXAMPLES_MIN)])
    path.write_bytes(learn(replace(told, registries=_with("layer_type", "odd")), QUICK).checkpoint())
    with pytest.raises(CheckpointRejected, match="odd"):
        learn(replace(told, registries=_with("layer_type", "other")), QUICK, begin_with=path)


def test_names_that_nothing_was_learned_of_stay_unknown(tmp_path: Path) -> None:
    """Those of seeds that came up in what is held out, or later: nobody taught their embeddings."""
    registries = _with("seed_id", *(f"seed-{number}" for number in range(9)))
    told = [_named(example(number), {"seed_id": 3 if number < 51 else 7}) for number in range(EXAMPLES_MIN)]
    found = learn(dataset(told, registries=registries), QUICK)
    assert found.names["seed_id"] == 3
    path = tmp_path / "learned.safetensors"
    path.write_bytes(found.checkpoint())
    entry = parse_checkpoint(path.read_bytes(), path).manifest["registries"]["seed_id"]
    assert (entry["count"], entry["names"]) == (3, ["seed-0", "seed-1", "seed-2"])
    unknown, late = batched([_named(example(60), {})]), batched(told[60:61])
    assert torch.equal(run(found.network, unknown).action, run(found.network, late).action)
    on = learn(
        dataset([example(number) for number in range(EXAMPLES_MIN)], registries=registries), QUICK, begin_with=path
    )
    assert on.names["seed_id"] == 3, "it was learned before"


def _named(one: Example, indices: Mapping[str, int]) -> Example:
    """The same, with names in its graph: the registries' indices by kind, elsewhere unknown."""
    categories = {
        node_type: np.tile(
            np.array([indices.get(kind, 0) for kind in kinds], dtype=np.int64),
            (len(one.graph.categories[node_type]), 1),
        )
        for node_type, kinds in CATEGORIES.items()
    }
    return replace(one, graph=replace(one.graph, categories=categories))


def _with(kind: str, *names: str) -> Any:
    return MappingProxyType({**initial(), kind: MappingProxyType({name: at for at, name in enumerate(names, 1)})})


def test_too_few_say_what_is_missing() -> None:
    few = dataset([example(0)] * (EXAMPLES_MIN - 1), skipped=MappingProxyType({"no policy answered": 3}))
    with pytest.raises(
        NothingToLearn, match=rf"holds {EXAMPLES_MIN - 1} .* takes {EXAMPLES_MIN} .*3 others: no policy"
    ):
        learn(few)
    with pytest.raises(NothingToLearn, match=r"read more .*`last`\)$"):
        learn(few)  # a horizon of less than 1 there is not
    with pytest.raises(NothingToLearn, match="horizon of less than 2 decisions"):
        learn(replace(few, horizon=2))


def test_nothing_that_is_judged_by_what_is_held_out_is_learned_from() -> None:
    """However many runs took turns, and however far apart the decisions of one are."""
    told = [example(number) for number in range(100)]
    for place in range(0, 80, 2):
        told[place] = replace(told[place], outcome=Outcome(0.0, 0, judged_lsn=told[80].step_lsn))
    found = learn(dataset(told), QUICK)
    assert (found.learned_from, found.held_out) == (39, 20)  # the last of the others is judged by the first held out


@given(
    st.integers(1, 400), st.floats(0.01, 0.5), st.integers(1, 30), st.lists(st.integers(0, 60), min_size=1, max_size=5)
)
def test_the_parts_never_meet(count: int, share: float, horizon: int, reaches: list[int]) -> None:
    """Whatever judges an example that is learned from judges none that is held out, and the newest is held out."""
    on, proposal = graphs()[0], FixedPolicy(1).propose(graphs()[0])
    told = [
        Example(lsn, "run", on, proposal, 1, True, False, Outcome(0.0, 0, lsn + reaches[lsn % len(reaches)]))
        for lsn in range(1, count + 1)
    ]
    past, held_out = _parted(told, share, horizon)
    assert held_out[-1] is told[-1]
    assert len(held_out) <= max(count * share + STRETCHES_MAX, 1)
    lsns = [one.step_lsn for one in (*past, *held_out)]
    assert len(set(lsns)) == len(lsns)
    for one in held_out:
        for other in past:
            apart = other.outcome.judged_lsn < one.step_lsn or one.outcome.judged_lsn < other.step_lsn
            assert apart, (one.step_lsn, other.step_lsn)


def test_of_a_long_log_some_of_each_time_is_held_out() -> None:
    told = [example(number) for number in range(1_000)]
    _, held_out = _parted(told, 0.2, 20)
    assert [one.step_lsn for one in held_out] == [
        lsn for end in range(200, 1_001, 200) for lsn in range(end - 39, end + 1)
    ]


def test_rare_actions_weigh_as_much_in_all_as_any_other() -> None:
    told = [example(number, action=1) for number in range(90)] + [example(number, action=0) for number in range(10)]
    foreign = [example(number, action=2, is_own=False) for number in range(50)]
    even = _balance([*told, *foreign], 1.0)
    assert (float(even[0]) * 10, float(even[1]) * 90) == (pytest.approx(50), pytest.approx(50))
    half = _balance(told, 0.5)
    assert float(half[0]) == pytest.approx(5**0.5)
    assert _balance(told, 0.0).tolist() == [1.0] * 32
    assert bool(torch.isfinite(_balance([], 1.0)).all())


def test_too_long_a_horizon_leaves_nothing_to_learn_from() -> None:
    told = [example(number) for number in range(EXAMPLES_MIN)]
    long = [replace(one, outcome=Outcome(0.0, 0, judged_lsn=one.step_lsn + 50)) for one in told]
    with pytest.raises(NothingToLearn, match=r"13 examples .* what came of 50 others .* 1 are left .* less than 50"):
        learn(dataset(long, horizon=50), QUICK)


def test_one_example_is_held_out_at_least() -> None:
    told = dataset([example(number) for number in range(EXAMPLES_MIN)])
    found = learn(told, replace(QUICK, held_out=1e-6))
    assert found.held_out == 1
    assert all(map(math.isfinite, found.losses))


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"weight_decay": -1.0},
        {"temperature": 0.0}, {"weight_max": 0.5}, {"balance": 1.5}, {"held_out": 0.0}, {"held_out": 0.6},
        {"forget": 1.0}, {"seed": -1},
    ],
)  # fmt: skip
def test_settings_are_looked_at_first(wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=rf"{name}={wrong[name]!r}"):
        learn(dataset([example(0)] * EXAMPLES_MIN), LearnerSettings(**wrong))


def test_of_returns_that_are_all_alike_nothing_is_explained() -> None:
    """A steady run has the same return everywhere, but for rounding."""
    told = dataset([example(number, value=1.0 + 1e-9 * (number % 2)) for number in range(EXAMPLES_MIN)])
    assert math.isnan(learn(told, QUICK).quality.value_r2)


def test_all_is_computed_with_the_threads_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at what was held out is, too: where torch has more than there are idle cores it takes far longer."""
    counts, ran = set[int](), learner.run

    def counted(*given: Any, **named: Any) -> Any:
        counts.add(torch.get_num_threads())
        return ran(*given, **named)

    monkeypatch.setattr(learner, "run", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        learn(dataset([example(number) for number in range(EXAMPLES_MIN)]), QUICK)
        assert (counts, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="one thread or more, not 0"):
        learn(dataset([example(0)] * EXAMPLES_MIN), QUICK, threads=0)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    learn(
        dataset([example(number) for number in range(EXAMPLES_MIN)]),
        replace(QUICK, epochs=2, batch=32),
        progress=lambda done, of: told.append((done, of)),
    )
    assert told == [(done, 4) for done in range(1, 5)]


def test_a_batch_is_its_graphs_side_by_side() -> None:
    """The network says of each what it says of it alone, and so do the losses."""
    torch.manual_seed(3)
    network = TamiyoNetwork().eval()
    told = [
        example(0, action=0, value=1.0),
        example(1, action=0, value=-1.0, germinates=True, proposal=_selecting(1, seed_place=0, blueprint=1)),
        example(2, action=5, hazard=3, proposal=_selecting(2, seed_place=2, blueprint=0)),
        example(3, action=1),
        example(4, action=0, is_own=False),
    ]
    with torch.no_grad():
        whole = batched(told)
        together = losses_of(run(network, whole), whole)
        for place, one in enumerate(told):
            single = batched([one])
            alone = losses_of(run(network, single), single)
            for name in ("choice", "value", "risk"):
                assert float(getattr(together, name)[place]) == pytest.approx(float(getattr(alone, name)[0]), abs=1e-4)
    assert float(together.choice[4]) == 0.0


def _selecting(number: int, *, seed_place: int, blueprint: int) -> Any:
    plain = FixedPolicy(0).propose(graphs()[number])
    return plain._replace(seed_index=seed_place, blueprint_index=blueprint)


TAUGHT = {
    "seed": (0, {"action", "blending_method", "schedule", "param_deltas", "seed_score"}),
    "germinate": (0, {"action", "blending_method", "schedule", "param_deltas", "seed_score", "blueprint_score"}),
    "optimizer": (1, {"action", "param_deltas"}),
    "pause": (2, {"action"}),
    "cull": (5, {"action", "seed_score"}),
}


@pytest.mark.parametrize("what", sorted(TAUGHT))
def test_a_command_teaches_the_heads_that_made_it(what: str) -> None:
    action, taught = TAUGHT[what]
    network = TamiyoNetwork().eval()
    batch = batched([example(2, action=action, germinates=what == "germinate")])
    losses_of(run(network, batch), batch).choice.sum().backward()
    heads = [*TAUGHT["germinate"][1], "risk", "value", "breaker_scores", "telemetry"]
    moved = {name for name in heads if _moves(getattr(network, name))}
    assert moved == taught


def test_what_came_of_it_teaches_value_and_risk() -> None:
    network = TamiyoNetwork().eval()
    batch = batched([example(2, is_own=False, value=1.0, hazard=2)])
    losses = losses_of(run(network, batch), batch)
    (losses.choice + losses.value + losses.risk).sum().backward()
    assert {name for name in ("action", "value", "risk") if _moves(getattr(network, name))} == {"value", "risk"}


def _moves(head: torch.nn.Linear) -> bool:
    return head.weight.grad is not None and bool(head.weight.grad.any())


def test_only_candidates_are_selected_among() -> None:
    """A seed that cannot be selected takes no share of the others': its score is not even looked at."""
    network = TamiyoNetwork().eval()
    batch = batched([example(1, action=5)])  # the second seed is a fossil
    output = run(network, batch)
    assert batch.selectable.tolist() == [True, False]
    raised = output._replace(seed_scores=output.seed_scores + torch.tensor([0.0, 100.0]))
    assert torch.equal(losses_of(raised, batch).choice, losses_of(output, batch).choice)


def test_forgotten_names_read_as_unknown() -> None:
    batch = batched([example(2)])
    network = TamiyoNetwork().eval()
    nameless = {kind: torch.zeros_like(indices) for kind, indices in batch.data.categories_dict.items()}
    data = batch.data
    unknown = network(data.x_dict, nameless, data.edge_index_dict, data.edge_attr_dict)
    forgotten = run(network, batch, forget=1.0)
    assert torch.equal(forgotten.action, unknown.action)
    assert not torch.equal(run(network, batch).action, unknown.action)


def test_new_weights_are_those_of_an_untrained_checkpoint(tmp_path: Path) -> None:
    """Which fits any log."""
    path = init_checkpoint(tmp_path / "untrained.safetensors", QUICK.seed).path
    told = dataset([example(number) for number in range(EXAMPLES_MIN)])
    assert learn(told, QUICK, begin_with=path).losses[0] == learn(told, QUICK).losses[0]
