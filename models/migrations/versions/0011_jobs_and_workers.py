"""What a job was asked for with and what is being done for it; which encoders a worker has, and why it stopped."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("options", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("stage", sa.Text(), nullable=True))
    op.add_column("workers", sa.Column("encoders", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("workers", sa.Column("stop_reason", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "stop_reason")
    op.drop_column("workers", "encoders")
    op.drop_column("jobs", "stage")
    op.drop_column("jobs", "options")
