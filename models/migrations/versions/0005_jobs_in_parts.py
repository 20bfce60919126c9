"""Jobs that come in parts: when their submitter beat last."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Jobs of before are whole.
    op.add_column("jobs", sa.Column("submitter_beat_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    # What is not whole would be scored.
    op.execute(
        "UPDATE jobs SET state = 'failed', error = 'the store was taken back to an older version before it was "
        "whole; submit it again' WHERE submitter_beat_at IS NOT NULL AND state IN ('embedding', 'paused')"
    )
    op.drop_column("jobs", "submitter_beat_at")
