"""The baseline beside real seeds: its manager refuses nothing that it proposes."""

from dataclasses import replace

from graph.sketch import INITIAL, blueprint, host
from hypothesis import given, settings
from hypothesis import strategies as st
from kasmina_rig import Rig

from tamiyo.core.lifecycle import OPERATION_BY_STAGE
from tamiyo.core.limits import Limits
from tamiyo.core.norms import PRIORS
from tamiyo.core.observation import read_packet
from tamiyo.core.proposal import argmax
from tamiyo.graph import BlueprintInput, GraphBuilder
from tamiyo.integrations.kasmina import Pace
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.policy.baseline import CULL, OPTIMIZER, SEED, BaselinePolicy

PACES = st.builds(
    Pace,
    training_steps=st.integers(0, 12),
    blending_steps=st.integers(1, 12),
    shadowing_steps=st.integers(0, 12),
    probation_steps=st.integers(0, 12),
    embargo_steps=st.integers(1, 4),
)
IMPATIENT = dict.fromkeys(OPERATION_BY_STAGE, 1)
"""A dwell of one step: whatever waits, waits because its manager says so."""


@settings(max_examples=8)
@given(PACES, st.integers(0, 40))
def test_no_manager_refuses_what_the_baseline_proposes(pace: Pace, opened_at: int) -> None:
    rig, builder, policy = Rig(pace=pace), GraphBuilder(), BaselinePolicy(dwell_steps=IMPATIENT)
    offered = (BlueprintInput(blueprint("conv-residual", "d-graft"), {}), host(layers=2))
    operations = set()
    for step in range(60):
        if step in (opened_at, opened_at + 8):
            rig.breaker(pb.CIRCUIT_STATE_OPEN if step == opened_at else pb.CIRCUIT_STATE_CLOSED)
        loss = float(rig.step())
        packet = pb.SystemStatePacket(
            training_run_id="run-1", global_step=step, seed_states=rig.manager.export_seed_states(),
            training_metrics={"loss": min(loss, 0.8)},
        )  # fmt: skip
        observation = read_packet(packet.SerializeToString(), Limits())
        graph = builder.build(observation, norms=PRIORS, registries=INITIAL, blueprints=offered)
        if not graph.candidates:
            continue
        proposal = policy.propose(graph)
        chosen, action = observation.seeds[proposal.seed_index], argmax(proposal.action)
        assert action in {SEED, CULL, OPTIMIZER}
        if action == OPTIMIZER:
            continue
        operation = pb.SEED_OP_CULL if action == CULL else OPERATION_BY_STAGE[chosen.stage]
        applied = rig.order(
            operation,
            chosen.seed_id,
            offered[proposal.blueprint_index].blueprint.blueprint_id,
            blending_method_index=float(argmax(proposal.blending_method)),
        )
        assert applied.outcome == "applied", f"step {step}: {applied.detail}"
        operations.add(operation)
    assert pb.SEED_OP_GERMINATE in operations


def test_seeds_come_all_the_way_when_nothing_holds_them() -> None:
    """The property above would hold of a policy that proposes nothing."""
    rig, policy = Rig(), BaselinePolicy(dwell_steps=IMPATIENT)
    rig.manager.settings = replace(rig.manager.settings, risk_tolerance=1.0)
    offered = (BlueprintInput(blueprint("conv-residual", "d-graft"), {}),)
    for step in range(40):
        rig.step()
        packet = pb.SystemStatePacket(
            training_run_id="run-1", global_step=step, seed_states=rig.manager.export_seed_states(),
            training_metrics={"loss": 0.8},
        )  # fmt: skip
        observation = read_packet(packet.SerializeToString(), Limits())
        graph = GraphBuilder().build(observation, norms=PRIORS, registries=INITIAL, blueprints=offered)
        if not graph.candidates:
            break
        proposal = policy.propose(graph)
        chosen = observation.seeds[proposal.seed_index]
        if argmax(proposal.action) == SEED:
            assert rig.order(OPERATION_BY_STAGE[chosen.stage], chosen.seed_id).outcome == "applied"
    assert {state.stage for state in rig.manager.export_seed_states()} == {pb.SEED_STAGE_FOSSILIZED}
