"""Shared by the tests: steps made from plain values, without a service, a graph or a log."""

from dataclasses import replace
from uuid import UUID

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.behaviour import CURRENT
from tamiyo.core.blueprint import content_digest
from tamiyo.core.decide import Decision, decide
from tamiyo.core.evolve import evolve
from tamiyo.core.inputs import Inputs, inference_message, step_inputs
from tamiyo.core.layout import GraphLayout
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.observation import read_packet
from tamiyo.core.options import Options
from tamiyo.core.proposal import PolicyIdentity, Proposal
from tamiyo.core.state import State
from tamiyo.core.thresholds import Thresholds
from tamiyo.leyline import leyline_pb2 as pb

IDENTITY = PolicyIdentity("test-v1", "fixed", "python")
SECRET = b"0123456789abcdef-test"
DECISION_ID = "6f1c1d6e-52a1-4a44-9f3a-6a2d3b1f0c11"
WALL_NS = 1_700_000_000_000_000_000
LAYOUT = GraphLayout((("node.global", "loss"),), (), ())
FULL_COVERAGE = (1, 1)
"""(present, total) of the one feature of `LAYOUT`."""


def packet(stage: int = pb.SEED_STAGE_TRAINING, seeds: int = 1, **fields: object) -> pb.SystemStatePacket:
    """A packet with `seeds` seeds in one stage; `fields` are the packet's own."""
    made = pb.SystemStatePacket(training_run_id="run-1", packet_id="packet-1", **fields)
    for index in range(seeds):
        made.seed_states.add(seed_id=f"seed-{index}", stage=stage)
    return made


def proposal(action: int = 0, *, risk: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 0.0), blueprint_index: int = 0,
             param_deltas: tuple[float, ...] = (0.2, 0.1, 0.0, 0.0)) -> Proposal:  # fmt: skip
    """A well-formed proposal for the first seed."""
    one_hot = tuple(1.0 if index == action else 0.0 for index in range(32))
    return Proposal(
        action=one_hot,
        risk=risk,
        value=0.5,
        param_deltas=param_deltas,
        blending_method=(0.0, 1.0, 0.0, 0.0),
        schedule=(0.5, -0.5),
        seed_index=0,
        seed_score=1.0,
        blueprint_index=blueprint_index,
        breaker_scores=(0.0, 0.0),
    )


class Bench:
    """A state that steps can be decided on, one event after the other."""

    def __init__(self, thresholds: Thresholds | None = None, **options: object) -> None:
        self.state = State()
        opened = journal.ServiceOpened(
            event_time_ns=1, thresholds=(thresholds or Thresholds()).as_map(), policy_version=IDENTITY.version,
            behaviour_flags=CURRENT, options=Options(**options).message(),
        )  # fmt: skip
        self.fold(opened)
        self.fold(LAYOUT.event())
        self.layout_lsn = self.state.last_lsn

    def fold(self, event: object) -> None:
        self.state = evolve(self.state, self.state.last_lsn + 1, event)

    def observe(self, blueprint_id: str = "bp-1", *, sheet: pb.BSDS | None = None, **descriptor: object) -> None:
        """The library knows a blueprint."""
        described = pb.BlueprintDescriptor(blueprint_id=blueprint_id, **descriptor)
        content = journal.BlueprintContent(
            descriptor=described.SerializeToString(), safety_sheet=sheet.SerializeToString() if sheet else b""
        )
        self.fold(
            journal.BlueprintObserved(
                blueprint_id=blueprint_id,
                digest=content_digest(content),
                event_time_ns=self.state.event_time_ns + 1,
                content=content.SerializeToString(),
            )
        )

    def inputs(
        self,
        made: pb.SystemStatePacket,
        answer: Proposal | object | None = None,
        *,
        faults: tuple[object, ...] = (),
        coverage: tuple[int, int] = FULL_COVERAGE,
        blueprints: tuple[str, ...] = ("bp-1",),
        elapsed_s: float = 0.001,
    ) -> Inputs:
        """Receive the packet and gather the step's inputs. `answer` is a proposal or an inference event."""
        received = journal.StepReceived(
            step_index=self.state.steps_received + 1,
            event_time_ns=self.state.event_time_ns + int(elapsed_s * 1e9),
            received_unix_ns=WALL_NS,
            decision_id=str(UUID(int=UUID(DECISION_ID).int + self.state.steps_received)),
            call="step",
            budget_ms=5,
            packet=made.SerializeToString(),
        )
        self.fold(received)
        lsn = self.state.last_lsn
        observation = read_packet(received.packet, UNLIMITED)
        if answer is None or isinstance(answer, Proposal):
            answer = inference_message(
                lsn, IDENTITY, answer or proposal(), elapsed_ns=1, observation=observation, blueprints=len(blueprints)
            )
        graph = journal.GraphObserved(
            step_lsn=lsn,
            layout_lsn=self.layout_lsn,
            present=[coverage[0]],
            total=[coverage[1]],
            host_blueprint_id="run-1",
            blueprints=[journal.BlueprintUse(blueprint_id=name) for name in blueprints],
        )
        for event in (answer, *faults):
            event.step_lsn = lsn
        return step_inputs(
            lsn, received, [graph, answer, *faults],
            event_time_ns=received.event_time_ns + 1_000, timings=journal.StageTimings(),
        )  # fmt: skip

    def decide(self, inputs: Inputs) -> Decision:
        """Decide without folding."""
        return decide(self.state, inputs)

    def step(self, made: pb.SystemStatePacket, answer: object | None = None, **how: object) -> Decision:
        """Decide and fold: one whole step."""
        decision = self.decide(self.inputs(made, answer, **how))
        for event in decision.events:
            self.fold(event)
        return decision


def identity_message() -> journal.PolicyIdentity:
    return journal.PolicyIdentity(version=IDENTITY.version, architecture=IDENTITY.architecture, engine=IDENTITY.engine)


def timed_out() -> journal.InferenceTimedOut:
    return journal.InferenceTimedOut(identity=identity_message(), budget_ms=5, elapsed_ns=6_000_000)


def failed() -> journal.InferenceFailed:
    return journal.InferenceFailed(identity=identity_message(), error="RuntimeError: no", attempted=True)


def skipped(cause: str) -> journal.InferenceSkipped:
    return journal.InferenceSkipped(identity=identity_message(), cause=cause)


def with_thresholds(**changed: float) -> Thresholds:
    return replace(Thresholds(), **changed)
