"""Policies that were installed, refused or rolled back.

Types are written out as they were, not imported: a revision says what the database was, whatever the code is now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXTS = ("version", "checkpoint_digest", "policy_id", "reason", "detail", "operator")


def upgrade() -> None:
    """The one new table; whoever opens the database makes the rows anew, because the projectors are newer too."""
    op.create_table(
        "policy_updates",
        sa.Column("lsn", COUNT, primary_key=True, autoincrement=False),
        sa.Column("what", sa.String(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in TEXTS),
        sa.Column("event_time_ns", COUNT, nullable=False),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("policy_updates")
