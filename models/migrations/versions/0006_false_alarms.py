"""Jobs that say how many normal scans may be called anomalies."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("false_alarm_rate", sa.Float, nullable=False, server_default="0.05"))


def downgrade() -> None:
    op.drop_column("jobs", "false_alarm_rate")
