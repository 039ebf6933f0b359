"""Field reports and deliveries, the log's own upkeep, and what stands when the beginning of a log is gone.

Types are written out as they were, not imported: a revision says what the database was, whatever the code is now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

STATUS = (
    "CASE WHEN dropped_lsn IS NOT NULL THEN 'dropped' "
    "WHEN attempt_lsn IS NOT NULL AND succeeded THEN 'published' "
    "WHEN attempt_lsn IS NOT NULL THEN 'retrying' "
    "WHEN superseded_lsn IS NOT NULL THEN 'superseded' "
    "ELSE 'pending' END"
)

NEW_TABLES = (
    "policies", "released_pauses", "unrecorded_steps", "field_reports", "deliveries", "directives", "breakers",
    "controller", "bases", "snapshots", "retention_runs", "pruned_segments",
)  # fmt: skip


def _key(name: str = "lsn") -> sa.Column[int]:
    return sa.Column(name, COUNT, primary_key=True, autoincrement=False)


def _count(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, COUNT, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _short(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _flag(name: str, *, nullable: bool = False) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=nullable)


def upgrade() -> None:
    """Add what a step's observations left, and the new tables. Every row is made anew: the projectors changed."""
    _drop_rows()
    with op.batch_alter_table("applied") as table:
        table.add_column(_count("folded_lsn"))
        table.add_column(_count("first_lsn"))
    for name in ("decisions", "undecided_steps"):
        with op.batch_alter_table(name) as table:
            table.alter_column("step_index", existing_type=COUNT, nullable=True)
            if name == "decisions":
                table.add_column(_count("superseded_lsn", nullable=True))
                table.add_column(sa.Column("loss_delta", sa.Double()))
            else:
                table.alter_column("received_unix_ns", existing_type=COUNT, nullable=True)
            table.add_column(_count("graph_lsn", nullable=True))
            table.add_column(_short("inference", nullable=True))
            table.add_column(_count("inference_lsn", nullable=True))
            table.add_column(_count("inference_elapsed_ns", nullable=True))
            table.add_column(_short("policy_id", nullable=True))
    _make_history()
    _make_reports()
    _make_upkeep()
    _make_standing()


def downgrade() -> None:
    """Bring the tables back to the first ones, without rows: their projectors were others."""
    _drop_rows()
    for name in NEW_TABLES:
        op.drop_table(name)
    for name in ("decisions", "undecided_steps"):
        with op.batch_alter_table(name) as table:
            for column in ("graph_lsn", "inference", "inference_lsn", "inference_elapsed_ns", "policy_id"):
                table.drop_column(column)
            if name == "decisions":
                table.drop_column("superseded_lsn")
                table.drop_column("loss_delta")
            else:
                table.alter_column("received_unix_ns", existing_type=COUNT, nullable=False)
            table.alter_column("step_index", existing_type=COUNT, nullable=False)
    with op.batch_alter_table("applied") as table:
        table.drop_column("folded_lsn")
        table.drop_column("first_lsn")


def _drop_rows() -> None:
    for name in ("applied", "decisions", "undecided_steps"):
        op.execute(sa.delete(sa.table(name)))


def _make_history() -> None:
    op.create_table(
        "policies",
        sa.Column("id", sa.String(), primary_key=True),
        _text("version"),
        _text("architecture"),
        _text("engine"),
        _text("checkpoint_digest"),
    )
    op.create_table(
        "released_pauses",
        _key(),
        _count("step_lsn"),
        _count("decision_lsn", nullable=True),
        _text("command_id"),
        _text("cause"),
        _count("event_time_ns"),
    )
    op.create_table(
        "unrecorded_steps",
        _key(),
        _count("first_step_index"),
        _count("last_step_index"),
        _text("cause"),
        _count("event_time_ns"),
    )
    op.create_table(
        "directives",
        _key(),
        _text("directive"),
        _text("operator"),
        _text("reason"),
        _text("request_id"),
        _count("event_time_ns"),
    )


def _make_reports() -> None:
    op.create_table(
        "field_reports",
        _key(),
        _count("step_lsn"),
        _text("report_id"),
        _text("command_id"),
        _text("training_run_id"),
        _text("seed_id"),
        _text("blueprint_id"),
        _text("policy_version"),
        _integer("outcome"),
        _count("observation_window"),
        _flag("synthesised"),
        _count("issued_unix_ns"),
        _text("metrics"),
        _text("notes"),
        _count("attempt_lsn", nullable=True),
        _count("attempts", nullable=True),
        _flag("succeeded", nullable=True),
        _text("cause", nullable=True),
        _count("attempted_at_ns", nullable=True),
        _count("dropped_lsn", nullable=True),
        _count("superseded_lsn", nullable=True),
        sa.Column("status", sa.Text(), sa.Computed(STATUS, persisted=True), nullable=False),
    )
    op.create_table(
        "deliveries", _key(), _text("command_id"), _text("outcome"), _text("detail"), _count("event_time_ns")
    )


def _make_upkeep() -> None:
    op.create_table("bases", _key(), _count("at_lsn"), _count("needs_lsn"), _text("digest"), _count("event_time_ns"))
    op.create_table("snapshots", _key(), _count("at_lsn"), _text("digest"), _flag("stored"), _count("event_time_ns"))
    op.create_table(
        "retention_runs",
        _key(),
        _text("run_id"),
        _count("event_time_ns"),
        _count("prune_before_lsn"),
        _count("base_lsn"),
        _text("payloads"),
        _text("archive"),
        _count("completed_lsn", nullable=True),
        _count("completed_at_ns", nullable=True),
        _count("first_lsn", nullable=True),
        _count("freed_bytes", nullable=True),
        _count("payloads_redacted", nullable=True),
        _count("digest_lsn", nullable=True),
        _text("digest", nullable=True),
        _flag("resumed", nullable=True),
    )
    op.create_table(
        "pruned_segments",
        _key(),
        _key("segment"),
        _text("run_id"),
        _count("first_lsn"),
        _count("last_lsn"),
        _count("size_bytes"),
        _text("archived_as"),
        _text("archived_sha256"),
    )


def _make_standing() -> None:
    op.create_table("breakers", sa.Column("name", sa.Text(), primary_key=True), _integer("state"))
    op.create_table(
        "controller",
        _key("id"),
        _count("decisions"),
        _count("commits_late"),
        _text("policy_version"),
        _flag("conservative"),
        _text("conservative_reason"),
    )
