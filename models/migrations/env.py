"""Alembic's entry: runs the migrations in the transaction that `models/schema.py` has opened."""

from alembic import context

from scanomaly.models.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
