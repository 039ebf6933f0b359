"""What one decision reads, put together from journal events: the same way live and in an audit."""

from collections.abc import Sequence
from typing import NamedTuple, cast, get_args

from tamiyo.core import journal_pb2 as journal
from tamiyo.core.choice import Choice, choice_of
from tamiyo.core.events import Event
from tamiyo.core.limits import UNLIMITED
from tamiyo.core.observation import Observation, read_packet
from tamiyo.core.proposal import PolicyIdentity, Proposal, malformation

__all__ = ["Inference", "Inputs", "identity_message", "inference_message", "proposal_of", "require_fit", "step_inputs"]

Inference = journal.InferenceObserved | journal.InferenceTimedOut | journal.InferenceFailed | journal.InferenceSkipped
MetadataFault = journal.MetadataTimedOut | journal.MetadataFailed
_INFERENCES = frozenset(get_args(Inference))
_METADATA_FAULTS = frozenset(get_args(MetadataFault))


class Inputs(NamedTuple):
    """The recorded facts of one step. `proposal` is None unless the policy answered, in time and well-formed."""

    step_lsn: int
    received: journal.StepReceived
    observation: Observation
    graph: journal.GraphObserved
    inference: Inference
    policy_version: str
    proposal: Proposal | None
    choice: Choice | None  # what the proposal comes to
    metadata_faults: tuple[MetadataFault, ...]
    event_time_ns: int
    timings: journal.StageTimings


def step_inputs(
    step_lsn: int,
    received: journal.StepReceived,
    observed: Sequence[Event],
    *,
    event_time_ns: int,
    timings: journal.StageTimings,
    observation: Observation | None = None,
) -> Inputs:
    """Gather the events of one step. `observation` saves parsing the packet again where that was just done.

    Raises:
        ValueError: the step has not exactly one graph and one inference event.
    """
    observation = observation or read_packet(received.packet, UNLIMITED)
    graphs = [event for event in observed if type(event) is journal.GraphObserved]
    inferences = [event for event in observed if type(event) in _INFERENCES]
    if len(graphs) != 1 or len(inferences) != 1:
        raise ValueError(
            f"step {step_lsn} has {len(graphs)} graph and {len(inferences)} inference events, not one of each"
        )
    graph, inference = graphs[0], cast("Inference", inferences[0])
    faults = [cast("MetadataFault", event) for event in observed if type(event) in _METADATA_FAULTS]
    proposal = proposal_of(inference) if isinstance(inference, journal.InferenceObserved) else None
    return Inputs(
        step_lsn=step_lsn,
        received=received,
        observation=observation,
        graph=graph,
        inference=inference,
        policy_version=inference.identity.version,
        proposal=proposal,
        choice=choice_of(proposal) if proposal is not None else None,
        metadata_faults=tuple(faults),
        event_time_ns=event_time_ns,
        timings=timings,
    )


def inference_message(
    step_lsn: int,
    identity: PolicyIdentity,
    proposal: object,
    *,
    observation: Observation,
    blueprints: int,
    elapsed_ns: int = 0,
) -> journal.InferenceObserved | journal.InferenceFailed:
    """The event for a policy's answer: what it proposed, or that the proposal is malformed."""
    wrong = malformation(proposal, observation, blueprints)
    if wrong is not None or not isinstance(proposal, Proposal):
        return journal.InferenceFailed(
            step_lsn=step_lsn, identity=identity_message(identity), error=f"malformed proposal: {wrong}",
            elapsed_ns=elapsed_ns, attempted=True,
        )  # fmt: skip
    return journal.InferenceObserved(
        step_lsn=step_lsn,
        identity=identity_message(identity),
        elapsed_ns=elapsed_ns,
        action=proposal.action,
        risk=proposal.risk,
        value=proposal.value,
        param_deltas=proposal.param_deltas,
        blending_method=proposal.blending_method,
        schedule=proposal.schedule,
        seed_index=proposal.seed_index,
        seed_score=proposal.seed_score,
        blueprint_index=proposal.blueprint_index,
        breaker_scores=proposal.breaker_scores,
    )


def require_fit(inputs: Inputs) -> None:
    """A recorded proposal must fit its packet and graph; live it was checked before it was recorded.

    Raises:
        ValueError: it does not.
    """
    if inputs.proposal is not None:
        wrong = malformation(inputs.proposal, inputs.observation, len(inputs.graph.blueprints))
        if wrong is not None:
            raise ValueError(f"the recorded proposal does not fit its step: {wrong}")


def identity_message(identity: PolicyIdentity) -> journal.PolicyIdentity:
    """A policy's identity as it is journaled."""
    return journal.PolicyIdentity(
        version=identity.version,
        architecture=identity.architecture,
        engine=identity.engine,
        checkpoint_digest=identity.checkpoint_digest,
        compiled=identity.is_compiled,
        compile_fallbacks=identity.compile_fallbacks,
        compile_warm_ms=identity.compile_warm_ms,
    )


def proposal_of(event: journal.InferenceObserved) -> Proposal:
    """The proposal that an event records."""
    return Proposal(
        action=tuple(event.action[:]),  # a slice is copied at once, and twice as fast as what is iterated over
        risk=tuple(event.risk[:]),
        value=event.value,
        param_deltas=tuple(event.param_deltas[:]),
        blending_method=tuple(event.blending_method[:]),
        schedule=tuple(event.schedule[:]),
        seed_index=event.seed_index,
        seed_score=event.seed_score,
        blueprint_index=event.blueprint_index,
        breaker_scores=tuple(event.breaker_scores[:]),
    )
