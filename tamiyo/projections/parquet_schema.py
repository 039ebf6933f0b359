"""The columns of the Parquet files, as a table: what each holds, in what type and unit, and where it comes from.

`docs/exports.md` shows this table; `python -m tamiyo.projections.parquet_schema` prints it. Columns are added, never
changed: who reads by name goes on reading.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

__all__ = ["FILES", "SCHEMA_VERSION", "Column", "enum_name", "markdown"]

SCHEMA_VERSION = "1"
"""In each file's metadata; goes up when a column of this name would mean something else."""

LSN, COUNT, TEXT, REAL, FLAG, TIME, METRICS = "uint64", "int64", "string", "double", "bool", "timestamp[ns, UTC]", (
    "map<string, double>"
)  # fmt: skip
"""Types, by their names in Arrow."""


class Column(NamedTuple):
    """One column. `unit` is "" for what has none; `required` columns are never null."""

    name: str
    type: str
    unit: str
    required: bool
    meaning: str


def enum_name(names: EnumTypeWrapper, number: int) -> str:
    """Leyline's name without its family: COMMAND_PAUSE is PAUSE. A number that has none stays a number."""
    descriptor = names.DESCRIPTOR.values_by_number.get(number)
    if descriptor is None:
        return str(number)
    return str(descriptor.name).removeprefix(_FAMILIES[names.DESCRIPTOR.name])


_FAMILIES = {
    "CommandType": "COMMAND_", "SeedOperation": "SEED_OP_", "FieldReportOutcome": "FIELD_REPORT_OUTCOME_",
    "CircuitBreakerState": "CIRCUIT_STATE_",
}  # fmt: skip

STEPS = (
    Column("lsn", LSN, "", True, "of the StepReceived; `decisions.step_lsn` refers to it"),
    Column("step_index", COUNT, "steps", True, "counts from 1 over the life of the log"),
    Column("event_time", TIME, "", True, "the log's own time of arrival; only moves forward"),
    Column("received_at", TIME, "", True, "the wall clock's"),
    Column("decision_id", TEXT, "", True, "UUID; the id of the command that answers the step"),
    Column("call", TEXT, "", True, '"step" or "epoch"'),
    Column("budget_ms", COUNT, "ms", True, "what the policy was given"),
    Column("training_run_id", TEXT, "", True, "the packet's own words from here on; 0 and empty mean absent"),
    Column("packet_id", TEXT, "", True, ""),
    Column("experiment_name", TEXT, "", True, ""),
    Column("source_subsystem", TEXT, "", True, ""),
    Column("current_epoch", COUNT, "epochs", True, ""),
    Column("global_step", LSN, "steps", True, "the trainer's"),
    Column("training_loss", REAL, "", True, ""),
    Column("validation_loss", REAL, "", True, ""),
    Column("validation_accuracy", REAL, "", True, ""),
    Column("seeds", COUNT, "", True, "how many seeds the packet shows"),
    Column("training_metrics", METRICS, "by name", True, "as the packet has them"),
)

DECISIONS = (
    Column("lsn", LSN, "", True, "of the DecisionMade"),
    Column("step_lsn", LSN, "", True, "of the step that it answers"),
    Column("step_index", COUNT, "steps", False, "null where the step is gone from the log"),
    Column("event_time", TIME, "", True, "the log's own; only moves forward"),
    Column("issued_at", TIME, "", True, "the command's, by the wall clock"),
    Column("command_id", TEXT, "", True, ""),
    Column("command_type", TEXT, "", True, "Leyline's CommandType: SEED, OPTIMIZER, PAUSE, ..."),
    Column("seed_operation", TEXT, "", False, "Leyline's SeedOperation, of a SEED command"),
    Column("risk_reason", TEXT, "", True, "the row that decided, or `policy`"),
    Column("policy_version", TEXT, "", True, ""),
    Column("policy_architecture", TEXT, "", False, "null where no inference was recorded"),
    Column("policy_engine", TEXT, "", False, ""),
    Column("policy_checkpoint_digest", TEXT, "", False, "SHA-256, hex; empty where no checkpoint is involved"),
    Column("training_run_id", TEXT, "", True, ""),
    Column("seed_id", TEXT, "", True, "what the policy selected; empty for none"),
    Column("blueprint_id", TEXT, "", True, "what the policy selected; empty for none"),
    Column("coverage", REAL, "fraction", False, "of the features that apply; null where no graph was recorded"),
    Column("loss_delta", REAL, "", False, "null stands for NaN"),
    Column("inference", TEXT, "", False, "observed, timed_out, failed or skipped"),
    Column("inference_elapsed_ns", COUNT, "ns", False, "in the policy itself"),
    Column("receive_ns", COUNT, "ns", True, "stage: decode, validate, stage the packet"),
    Column("blueprints_ns", COUNT, "ns", True, "stage: look up blueprints"),
    Column("graph_ns", COUNT, "ns", True, "stage: build the graph"),
    Column("inference_ns", COUNT, "ns", True, "stage: wait for the policy"),
    Column("superseded_by", TEXT, "", False, "the safe PAUSE that was released in its place, its commit being late"),
    Column("superseded_cause", TEXT, "", False, ""),
)

FIELD_REPORTS = (
    Column("lsn", LSN, "", True, "of the FieldReportIssued"),
    Column("step_lsn", LSN, "", True, "of the step that it was issued in"),
    Column("report_id", TEXT, "", True, ""),
    Column("command_id", TEXT, "", True, "the command that it reports"),
    Column("training_run_id", TEXT, "", True, ""),
    Column("seed_id", TEXT, "", True, ""),
    Column("blueprint_id", TEXT, "", True, ""),
    Column("policy_version", TEXT, "", True, ""),
    Column("outcome", TEXT, "", True, "Leyline's FieldReportOutcome: SUCCESS, NEUTRAL, REGRESSION, ..."),
    Column("observation_window", COUNT, "decisions", True, ""),
    Column("synthesised", FLAG, "", True, "of an observation window that ended, not of the step's own decision"),
    Column("issued_at", TIME, "", True, "by the wall clock"),
    Column("metrics", METRICS, "by name", True, "null stands for NaN and the infinities"),
    Column("notes", TEXT, "", True, ""),
    Column("status", TEXT, "", True, "pending, published, retrying, dropped or superseded"),
    Column("attempts", COUNT, "", False, "to publish it, up to the last one that the log speaks of"),
    Column("cause", TEXT, "", False, "of that attempt's failure"),
    Column("attempted_at", TIME, "", False, "the log's own time of that attempt"),
)

FILES: Mapping[str, Sequence[Column]] = MappingProxyType(
    {"decisions": DECISIONS, "steps": STEPS, "field_reports": FIELD_REPORTS}
)
"""The columns of `<name>.parquet`, in their order."""


def markdown() -> str:
    """The tables for people."""
    return "\n".join(f"### {name}.parquet\n\n{_table(columns)}" for name, columns in FILES.items())


def _table(columns: Sequence[Column]) -> str:
    head = "| column | type | unit | null | |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| `{name}` | {kind} | {unit} | {'' if required else 'yes'} | {meaning} |\n"
        for name, kind, unit, required, meaning in columns
    )


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201  printing is what it is run for
