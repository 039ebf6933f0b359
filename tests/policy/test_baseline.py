import math
import subprocess
import sys
from typing import Any

import pytest
from graph.sketch import HOST, blueprint, built, metadata, observed, seed
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.limits import Limits
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import read_packet
from tamiyo.core.proposal import BLENDING_METHODS, Proposal, argmax, malformation
from tamiyo.core.registries import initial
from tamiyo.core.signals import policy_risk_score
from tamiyo.graph import BlueprintInput, build
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy import Policy, baseline
from tamiyo.policy.baseline import DWELL_STEPS, LR_CUT, RISK_CULL, BaselinePolicy
from tamiyo.testing.strategies import packets

SEED, OPTIMIZER, PAUSE, CULL = 0, 1, 2, 5
CULLABLE = (pb.SEED_STAGE_TRAINING, pb.SEED_STAGE_BLENDING, pb.SEED_STAGE_SHADOWING, pb.SEED_STAGE_PROBATIONARY)
GRAFT = BlueprintInput(blueprint("graft", "d-graft"), {})
HOST_BLUEPRINT = BlueprintInput(blueprint(HOST, "d-host"), metadata(layers=2))


def propose(*seeds: pb.SeedState, blueprints: tuple[BlueprintInput, ...] = (GRAFT,), **fields: Any) -> Proposal:
    given_fields: dict[str, Any] = {"training_metrics": {"loss": 0.8}, "global_step": 100}
    observation = observed(*seeds, **{**given_fields, **fields})
    proposal = BaselinePolicy().propose(built(observation, *blueprints))
    assert malformation(proposal, observation, len(blueprints)) is None
    return proposal


def action(proposal: Proposal) -> int:
    return argmax(proposal.action)


def test_the_baseline_is_a_policy_and_says_which() -> None:
    policy: Policy = BaselinePolicy()
    identity = policy.identity
    assert (identity.version, identity.architecture, identity.engine) == ("baseline-v2", "rules", "python")
    assert identity.checkpoint_digest == ""


def test_the_numbers_of_baseline_v2_stay_or_the_version_moves_on() -> None:
    """A log names the version alone: with another number the same version would have proposed otherwise."""
    assert baseline.BaselinePolicy().identity.version == "baseline-v2"
    assert {pb.SeedLifecycleStage.Name(stage): steps for stage, steps in DWELL_STEPS.items()} == {
        "SEED_STAGE_UNKNOWN": 20, "SEED_STAGE_DORMANT": 20, "SEED_STAGE_GERMINATED": 1, "SEED_STAGE_TRAINING": 30,
        "SEED_STAGE_BLENDING": 40, "SEED_STAGE_SHADOWING": 60, "SEED_STAGE_PROBATIONARY": 120,
    }  # fmt: skip
    assert (RISK_CULL, LR_CUT, baseline.LOSS_HIGH_SD, baseline.NORM_WARMUP_STEPS) == (0.9, -0.01, 2.0, 20)
    assert (baseline.BLUEPRINT_RISK_NEAR, baseline.LOSS_RISK_MAX, baseline.SEED_RISK_SHARE) == (0.11, 0.75, 0.9)


@pytest.mark.parametrize(("step", "expected"), [(19, 0.0), (20, LR_CUT)])
def test_a_loss_is_high_from_the_step_on_at_which_the_norm_tells_of_the_run(step: int, expected: float) -> None:
    assert propose(seed(), training_metrics={"loss": 4.0}, global_step=step).param_deltas[1] == expected


def test_every_candidate_stage_has_a_dwell() -> None:
    assert set(DWELL_STEPS) == set(OPERATION_BY_STAGE)


@pytest.mark.parametrize("stage", DWELL_STEPS)
def test_a_seed_moves_on_when_its_dwell_is_over_and_not_before(stage: int) -> None:
    dwell = DWELL_STEPS[stage]
    assert action(propose(seed(stage, age_epochs=dwell))) == SEED
    waiting = propose(seed(stage, age_epochs=dwell - 1))
    assert action(waiting) == OPTIMIZER
    assert waiting.param_deltas[1] == 0.0


def test_a_blend_that_has_run_its_steps_is_over_before_its_dwell() -> None:
    def blending(steps: float, total: float) -> Proposal:
        return propose(
            seed(pb.SEED_STAGE_BLENDING, age_epochs=5, metrics={"alpha_steps": steps, "alpha_total_steps": total})
        )

    assert action(blending(5, 5)) == SEED
    assert action(blending(4, 5)) == OPTIMIZER
    assert action(blending(0, 0)) == OPTIMIZER


def test_the_most_advanced_seed_that_is_due_is_chosen() -> None:
    due = [seed(stage, age_epochs=100) for stage in (pb.SEED_STAGE_DORMANT, pb.SEED_STAGE_SHADOWING)]
    waiting = seed(pb.SEED_STAGE_PROBATIONARY, age_epochs=0)
    proposal = propose(*due, waiting)
    assert (action(proposal), proposal.seed_index) == (SEED, 1)


def test_of_equals_the_older_and_then_the_first_is_chosen() -> None:
    training = pb.SEED_STAGE_TRAINING
    assert propose(*(seed(training, age_epochs=age) for age in (40, 50, 45))).seed_index == 1
    assert propose(*(seed(training, age_epochs=50) for _ in range(3))).seed_index == 0


def test_a_seed_without_a_legal_operation_is_never_chosen() -> None:
    proposal = propose(seed(pb.SEED_STAGE_CULLED, age_epochs=900, risk_score=1.0), seed(pb.SEED_STAGE_DORMANT))
    assert proposal.seed_index == 1


@pytest.mark.parametrize("stage", DWELL_STEPS)
@pytest.mark.parametrize("risk", [RISK_CULL - 0.01, 0.95, math.nan])
def test_a_seed_at_risk_is_culled_from_training_on(stage: int, risk: float) -> None:
    expected = stage in CULLABLE and not risk < RISK_CULL
    assert (action(propose(seed(stage, risk_score=risk))) == CULL) is expected


def test_the_riskiest_seed_is_culled_even_when_another_is_due() -> None:
    stages = ((pb.SEED_STAGE_PROBATIONARY, 0.0), (pb.SEED_STAGE_TRAINING, 0.92), (pb.SEED_STAGE_BLENDING, 0.91))
    proposal = propose(*(seed(stage, risk_score=risk, age_epochs=99) for stage, risk in stages))
    assert (action(proposal), proposal.seed_index) == (CULL, 1)


@pytest.mark.parametrize("metrics", [{}, {"loss": math.nan}, {"gradient_norm": 1.0}])
def test_without_a_loss_it_pauses(metrics: dict[str, float]) -> None:
    at_risk = seed(pb.SEED_STAGE_TRAINING, age_epochs=99, risk_score=1.0)
    assert action(propose(at_risk, training_metrics=metrics)) == PAUSE


@pytest.mark.parametrize("field", ["training_loss", "validation_loss"])
def test_a_loss_of_the_packet_is_a_loss(field: str) -> None:
    ready = seed(pb.SEED_STAGE_TRAINING, age_epochs=99)
    assert action(propose(ready, training_metrics={}, **{field: 0.5})) == SEED


def test_a_loss_far_above_its_norm_cuts_the_learning_rate_a_little() -> None:
    high = PRIORS[0].mean + 2.1 * PRIORS[0].variance ** 0.5
    ready = seed(pb.SEED_STAGE_TRAINING, age_epochs=99)
    proposal = propose(ready, training_metrics={"loss": high})
    assert action(proposal) == OPTIMIZER
    assert proposal.param_deltas[1] == LR_CUT < 0
    early = propose(ready, training_metrics={"loss": high}, global_step=19)
    assert (action(early), early.param_deltas[1]) == (SEED, 0.0)
    almost = PRIORS[0].mean + 1.9 * PRIORS[0].variance ** 0.5
    assert action(propose(ready, training_metrics={"loss": almost})) == SEED


@pytest.mark.parametrize("stage", [pb.SEED_STAGE_UNKNOWN, pb.SEED_STAGE_DORMANT])
def test_nothing_grows_without_a_blueprint(stage: int) -> None:
    quarantined = BlueprintInput(blueprint("bad", "d-bad", quarantine_only=True), {})
    for blueprints in ((), (quarantined,)):
        proposal = propose(seed(stage, age_epochs=99), blueprints=blueprints)
        assert (action(proposal), proposal.blueprint_index) == (OPTIMIZER, -1)


def test_the_least_risky_blueprint_is_chosen_and_the_host_last() -> None:
    def at(name: str, risk: float, **fields: Any) -> BlueprintInput:
        return BlueprintInput(blueprint(name, f"d-{name}", descriptor_risk=risk, **fields), {})

    dormant = seed(pb.SEED_STAGE_DORMANT)
    offered = (HOST_BLUEPRINT, at("a", 0.4), at("b", 0.2), at("c", 0.2), at("d", 0.0, quarantine_only=True))
    assert propose(dormant, blueprints=offered).blueprint_index == 2
    assert propose(dormant, blueprints=(HOST_BLUEPRINT,)).blueprint_index == 0
    assert propose(dormant, blueprints=(at("x", math.nan), at("y", 0.9))).blueprint_index == 1


@pytest.mark.parametrize(("index", "name"), list(enumerate(BLENDING_METHODS)))
def test_a_blending_method_that_the_seed_allows_is_chosen(index: int, name: str) -> None:
    proposal = propose(seed(pb.SEED_STAGE_TRAINING, metrics={f"blend_allowed_{name}": 1.0}))
    assert argmax(proposal.blending_method) == index


def test_linear_is_the_blending_method_where_nothing_is_said() -> None:
    assert argmax(propose(seed()).blending_method) == 0


def test_a_graft_is_blended_in_whole_over_the_whole_schedule() -> None:
    proposal = propose(seed(pb.SEED_STAGE_TRAINING, age_epochs=99))
    assert 0.1 + proposal.param_deltas[0] == 1.0
    assert proposal.schedule == (-1.0, 1.0)


@pytest.mark.parametrize("risk", [0.0, 0.25, 0.5, 0.875, 1.0])
def test_risk_is_what_the_classes_expect(risk: float) -> None:
    assert policy_risk_score(propose(seed(risk_score=risk))) == pytest.approx(0.9 * risk, abs=1e-6)


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_statistics_alone_stay_below_the_rows_of_policy_risk(name: str) -> None:
    proposal = propose(seed(), training_metrics={"loss": 0.8, name: 1e9})
    assert policy_risk_score(proposal) == pytest.approx(0.75)


def test_a_lower_loss_has_a_higher_value() -> None:
    low, high = (propose(seed(), training_metrics={"loss": loss}).value for loss in (0.5, 1.5))
    assert -1 <= high < 0 < low <= 1


def test_a_graph_without_a_candidate_is_refused() -> None:
    with pytest.raises(ValueError, match="without a candidate"):
        BaselinePolicy().propose(built(observed(seed(pb.SEED_STAGE_CULLED))))


@settings(max_examples=100, deadline=None)
@given(packets(), st.booleans())
def test_every_proposal_is_well_formed_and_the_same_twice(packet: pb.SystemStatePacket, known: bool) -> None:
    observation = read_packet(packet.SerializeToString(), Limits())
    blueprints = (GRAFT,) if known else ()
    graph = build(observation, norms=PRIORS, registries=initial(), blueprints=blueprints)
    if graph.candidates:
        proposal = BaselinePolicy().propose(graph)
        assert malformation(proposal, observation, len(blueprints)) is None
        assert sum(proposal.action) == pytest.approx(1)
        assert sum(proposal.risk) == pytest.approx(1)
        assert sum(proposal.blending_method) == pytest.approx(1)
        assert action(proposal) in {SEED, OPTIMIZER, PAUSE, CULL}
        assert proposal == BaselinePolicy().propose(graph)


def test_the_baseline_needs_no_torch() -> None:
    code = "import sys, tamiyo.policy.baseline, tamiyo.graph; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("allowed", [0.0, 1.0])
def test_a_seed_in_training_waits_until_its_manager_allows_the_blend(allowed: float) -> None:
    dwell = DWELL_STEPS[pb.SEED_STAGE_TRAINING]
    made = seed(pb.SEED_STAGE_TRAINING, age_epochs=dwell, metrics={"blend_allowed": allowed})
    assert action(propose(made)) == (SEED if allowed else OPTIMIZER)


def test_a_blend_that_is_still_running_is_waited_for_beyond_its_dwell() -> None:
    dwell = DWELL_STEPS[pb.SEED_STAGE_BLENDING]
    running = {"alpha_steps": 40.0, "alpha_total_steps": 400.0}
    assert action(propose(seed(pb.SEED_STAGE_BLENDING, age_epochs=dwell + 1, metrics=running))) == OPTIMIZER
    assert action(propose(seed(pb.SEED_STAGE_BLENDING, age_epochs=dwell + 1))) == SEED


def test_seeds_take_turns_among_blueprints_of_about_the_same_risk() -> None:
    offered = tuple(
        BlueprintInput(blueprint(name, f"d-{name}", descriptor_risk=risk), {})
        for name, risk in (("a", 0.15), ("b", 0.10), ("c", 0.20), ("d", 0.40))
    )
    waiting = [seed(pb.SEED_STAGE_FOSSILIZED) for _ in range(4)]
    chosen = []
    for place in range(4):
        seeds = [*waiting[:place], seed(pb.SEED_STAGE_DORMANT, age_epochs=99), *waiting[place + 1 :]]
        chosen.append(propose(*seeds, blueprints=offered).blueprint_index)
    assert chosen == [1, 0, 2, 1]


def waiting(stage: int, **metrics: float) -> Proposal:
    return propose(seed(stage, age_epochs=999, metrics=metrics))


@pytest.mark.parametrize("stage", DWELL_STEPS)
def test_a_seed_whose_manager_would_refuse_its_operation_waits(stage: int) -> None:
    assert action(waiting(stage, operation_allowed=0.0)) == OPTIMIZER
    assert action(waiting(stage, operation_allowed=1.0)) == SEED


def test_a_seed_in_training_waits_for_a_method_of_blending() -> None:
    refused = {f"blend_allowed_{name}": 0.0 for name in BLENDING_METHODS}
    assert action(waiting(pb.SEED_STAGE_TRAINING, **refused)) == OPTIMIZER
    assert action(waiting(pb.SEED_STAGE_TRAINING, **(refused | {"blend_allowed_sigmoid": 1.0}))) == SEED


@pytest.mark.parametrize(("allowed", "expected"), [(["alpha"], SEED), (["lr_delta"], OPTIMIZER), ([], OPTIMIZER)])
def test_a_seed_that_may_not_set_alpha_is_not_grafted(allowed: list[str], expected: int) -> None:
    parameters = [{"name": "alpha"}, {"name": "lr_delta"}]
    capabilities = {"allowed_parameters_by_seed_id": {"seed-0": allowed}}
    own = BlueprintInput(blueprint(HOST, "d-host"), {"parameters": parameters, "capabilities": capabilities})
    assert action(propose(seed(pb.SEED_STAGE_TRAINING, age_epochs=999), blueprints=(own,))) == expected
    assert action(propose(seed(pb.SEED_STAGE_SHADOWING, age_epochs=999), blueprints=(own,))) == SEED


@pytest.mark.parametrize(("risk", "expected"), [(0.5, SEED), (0.51, OPTIMIZER)])
def test_a_seed_over_its_tolerance_is_not_made_permanent(risk: float, expected: int) -> None:
    def bearing(stage: int) -> Proposal:
        return propose(seed(stage, age_epochs=999, risk_score=risk, metrics={"risk_tolerance": 0.5}))

    assert action(bearing(pb.SEED_STAGE_PROBATIONARY)) == expected
    assert action(bearing(pb.SEED_STAGE_SHADOWING)) == SEED


@pytest.mark.parametrize("stage", sorted(set(DWELL_STEPS) - set(CULLABLE)))
@pytest.mark.parametrize("risk", [RISK_CULL + 0.01, math.nan])
def test_a_seed_at_risk_is_not_grown(stage: int, risk: float) -> None:
    assert action(propose(seed(stage, age_epochs=999, risk_score=risk))) == OPTIMIZER


RESTRICTIVE = {SEED: 0, OPTIMIZER: 1, CULL: 1, PAUSE: 2}
LIVELY = st.builds(
    lambda stage, risk, age, metrics: seed(stage, risk_score=risk, age_epochs=age, metrics=metrics),
    st.sampled_from(sorted(DWELL_STEPS)),
    st.floats(0, 1),
    st.sampled_from((0, 1, 30, 999)),
    st.dictionaries(
        st.sampled_from(("blend_allowed", "operation_allowed", "risk_tolerance", "alpha_steps", "alpha_total_steps")),
        st.sampled_from((0.0, 0.5, 1.0, 40.0)),
    ),
)
LOSSES = st.floats(0.25, 8)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.lists(LIVELY, min_size=1, max_size=4), LOSSES, LOSSES, st.booleans())
def test_a_risk_or_a_loss_that_rises_makes_nothing_less_careful(
    data: st.DataObject, seeds: list[pb.SeedState], loss: float, gradient_norm: float, known: bool
) -> None:
    blueprints = (GRAFT,) if known else ()
    before = propose(*seeds, blueprints=blueprints, training_metrics={"loss": loss, "gradient_norm": gradient_norm})
    raised = [pb.SeedState.FromString(one.SerializeToString()) for one in seeds]
    place = data.draw(st.integers(0, len(seeds) - 1))
    raised[place].risk_score = data.draw(st.floats(raised[place].risk_score, 1))
    higher = {"loss": data.draw(st.floats(loss, 9)), "gradient_norm": data.draw(st.floats(gradient_norm, 9))}
    after = propose(*raised, blueprints=blueprints, training_metrics=higher)
    assert policy_risk_score(after) >= policy_risk_score(before) - 1e-9
    assert RESTRICTIVE[action(after)] >= RESTRICTIVE[action(before)]
    assert after.param_deltas[1] <= max(before.param_deltas[1], 0.0)


@settings(max_examples=200, deadline=None)
@given(st.lists(LIVELY, min_size=1, max_size=4), LOSSES, st.booleans())
def test_no_operation_is_proposed_that_is_known_to_be_refused(
    seeds: list[pb.SeedState], loss: float, known: bool
) -> None:
    proposal = propose(*seeds, blueprints=(GRAFT,) if known else (), training_metrics={"loss": loss})
    if action(proposal) != SEED:
        return
    chosen = seeds[proposal.seed_index]
    told = chosen.metrics
    assert told.get("operation_allowed", 1.0) != 0.0
    assert chosen.age_epochs >= DWELL_STEPS[chosen.stage] or told["alpha_steps"] >= told["alpha_total_steps"] > 0
    if chosen.stage in (pb.SEED_STAGE_UNKNOWN, pb.SEED_STAGE_DORMANT):
        assert proposal.blueprint_index >= 0
    if chosen.stage == pb.SEED_STAGE_TRAINING:
        assert told.get("blend_allowed", 1.0) != 0.0
    if chosen.stage == pb.SEED_STAGE_BLENDING and told.get("alpha_total_steps", 0.0):
        assert told.get("alpha_steps", 0.0) >= told["alpha_total_steps"]
    if chosen.stage == pb.SEED_STAGE_PROBATIONARY and "risk_tolerance" in told:
        assert chosen.risk_score <= told["risk_tolerance"]
