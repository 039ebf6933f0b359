"""Events to log, and a log to project: what the tests of this folder share."""

from contextlib import contextmanager

import wal
from tamiyo.core import journal_pb2 as journal
from tamiyo.core.events import encode
from tamiyo.leyline import leyline_pb2 as pb
from tamiyo.projections import Projection

SEGMENT_BYTES = 2**20


def open_log(directory):
    return wal.Log.open(directory / "wal", segment_bytes=SEGMENT_BYTES)


def write_log(directory, *batches):
    """Append each batch of events to the log of `directory`, and close it."""
    with open_log(directory) as log:
        append(log, *batches)


def append(log, *batches):
    for batch in batches:
        log.append([encode(event) for event in batch])


@contextmanager
def projected(directory):
    """The projection of `directory`, caught up with its log."""
    with Projection.open(directory) as projection:
        projection.catch_up(directory / "wal")
        yield projection


def made_new(directory):
    """The rows that the log alone gives."""
    with Projection.in_memory() as projection:
        projection.catch_up(directory / "wal")
        return projection.contents()


def opened(policy_version="baseline-1", event_time_ns=1):
    return journal.ServiceOpened(
        event_time_ns=event_time_ns, opened_unix_ns=7, policy_version=policy_version, code_fingerprint="f"
    )


def received(step_index=1, event_time_ns=2):
    return journal.StepReceived(
        step_index=step_index, event_time_ns=event_time_ns, received_unix_ns=1_000 + step_index, call="step"
    )


def layout(features):
    names = [journal.FeatureName(family="node.seed", feature=f"f{number}") for number in range(features)]
    return journal.GraphLayoutObserved(features=names)


def observed(step_lsn, norm_inputs=(), counts=((1, 2), (2, 2)), layout_lsn=0):
    return journal.GraphObserved(
        step_lsn=step_lsn,
        layout_lsn=layout_lsn,
        norm_inputs=[journal.NormInput(index=index, value=value) for index, value in norm_inputs],
        present=[present for present, _ in counts],
        total=[total for _, total in counts],
    )


def command(command_type=pb.COMMAND_PAUSE, **annotations):
    made = pb.AdaptationCommand(version=1, command_id="c-1", command_type=command_type)
    made.annotations.update(annotations)
    return made


def decided(step_lsn, made=None, reason="policy", event_time_ns=3):
    return journal.DecisionMade(
        step_lsn=step_lsn,
        event_time_ns=event_time_ns,
        command=(made or command()).SerializeToString(deterministic=True),
        risk_reason=reason,
        training_run_id="run-1",
        loss_delta=0.25,
        timings=journal.StageTimings(receive_ns=1, blueprints_ns=2, graph_ns=3, inference_ns=4),
    )


def step(step_lsn, step_index):
    """A whole step whose StepReceived lies at `step_lsn`: three records."""
    return [received(step_index), observed(step_lsn), decided(step_lsn)]


def history(steps, policy_version="baseline-1"):
    """An opening and `steps` whole steps, a batch each: 1 + 3 x steps records."""
    return [[opened(policy_version)], *(step(2 + 3 * number, number + 1) for number in range(steps))]
