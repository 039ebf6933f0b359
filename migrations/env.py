"""Alembic's entry: runs the revisions on the connection that `tamiyo.projections.migrate` hands over.

The caller owns the transaction, so a migration and the rows that follow it commit together or not at all.
"""

from alembic import context

from tamiyo.projections.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table by making it again
)
with context.begin_transaction():
    context.run_migrations()
