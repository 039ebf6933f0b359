"""The first tables: what was decided, by what policy, and the registries, norms and modes of the state.

Types are written out as they were, not imported: a revision says what the database was, whatever the code is now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _lsn_key(name: str = "lsn") -> sa.Column[int]:
    return sa.Column(name, COUNT, primary_key=True, autoincrement=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, COUNT, nullable=False)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _short(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def upgrade() -> None:
    """Make every table."""
    _make_position()
    _make_history()
    _make_state()


def downgrade() -> None:
    """Drop every table."""
    for name in (
        "norms",
        "registries",
        "conservative_changes",
        "breaker_moves",
        "decisions",
        "undecided_steps",
        "openings",
        "applied",
    ):
        op.drop_table(name)


def _make_position() -> None:
    op.create_table(
        "applied", _lsn_key("id"), _count("lsn"), _short("log_id"), _short("record_digest"), _count("projectors")
    )


def _make_history() -> None:
    op.create_table(
        "openings", _lsn_key(), _count("opened_unix_ns"), _text("policy_version"), _text("code_fingerprint")
    )
    op.create_table(
        "undecided_steps",
        _lsn_key(),
        _count("step_index"),
        _count("received_unix_ns"),
        sa.Column("coverage", sa.Double()),
    )
    op.create_table(
        "decisions",
        _lsn_key(),
        _count("step_lsn"),
        _count("step_index"),
        _count("event_time_ns"),
        _count("issued_unix_ns"),
        _text("command_id"),
        _integer("command_type"),
        _integer("seed_operation"),
        _text("risk_reason"),
        _text("policy_version"),
        _text("training_run_id"),
        _text("seed_id"),
        _text("blueprint_id"),
        sa.Column("coverage", sa.Double()),
        _count("receive_ns"),
        _count("blueprints_ns"),
        _count("graph_ns"),
        _count("inference_ns"),
        _text("superseded_by", nullable=True),
        _text("superseded_cause", nullable=True),
    )
    op.create_table(
        "breaker_moves",
        _lsn_key(),
        _text("breaker"),
        _integer("from_state"),
        _integer("to_state"),
        _text("cause"),
        _count("event_time_ns"),
        _count("step_lsn"),
    )
    op.create_table(
        "conservative_changes",
        _lsn_key(),
        sa.Column("active", sa.Boolean(), nullable=False),
        _text("reason"),
        _count("event_time_ns"),
        _count("step_lsn"),
    )


def _make_state() -> None:
    op.create_table(
        "registries",
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        _integer("index"),
        sa.UniqueConstraint("kind", "index", name="uq_registries_kind_index"),
    )
    op.create_table(
        "norms",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("mean", sa.Double()),
        sa.Column("variance", sa.Double()),
    )
