"""Workers with heartbeats, calls that can be missed, priorities."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_ONCE = datetime(2000, 1, 1, tzinfo=UTC)


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("device", sa.String(32), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("beat_at", _TIME, nullable=False, index=True),
        sa.Column("stopped_at", _TIME),
    )
    duties = op.create_table(
        "duties",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("taken_at", _TIME, nullable=False),
    )
    op.bulk_insert(duties, [{"name": "reconcile", "taken_at": _ONCE}])
    # Column by column: to rebuild a table that others refer to would take SQLite's foreign keys off.
    op.add_column("jobs", sa.Column("priority", sa.String(16), nullable=False, server_default="normal"))
    # Jobs of before followed every link.
    op.add_column("jobs", sa.Column("follow_links", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("jobs", sa.Column("worker", sa.String(100)))
    op.add_column("jobs", sa.Column("queued_at", _TIME))
    op.add_column("jobs", sa.Column("deaths", sa.Integer, nullable=False, server_default="0"))
    op.add_column("batches", sa.Column("worker", sa.String(100)))
    op.add_column("batches", sa.Column("queued_at", _TIME))
    op.execute("ALTER TABLE batches RENAME COLUMN attempts TO deaths")
    # Nobody holds what was running before: workers of that version do not run beside this one.
    op.execute("UPDATE batches SET state = 'pending', deaths = 0 WHERE state <> 'done'")
    op.create_index(op.f("ix_batches_state_worker"), "batches", ["state", "worker"])


def downgrade() -> None:
    op.execute("UPDATE jobs SET state = 'embedding' WHERE state = 'paused'")
    op.execute("UPDATE batches SET state = 'pending' WHERE state <> 'done'")
    op.drop_index("ix_batches_state_worker", "batches")
    op.execute("ALTER TABLE batches RENAME COLUMN deaths TO attempts")
    for column in ("queued_at", "worker"):
        op.drop_column("batches", column)
    for column in ("deaths", "queued_at", "worker", "follow_links", "priority"):
        op.drop_column("jobs", column)
    op.drop_table("duties")
    op.drop_table("workers")
