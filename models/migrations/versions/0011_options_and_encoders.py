"""What a job was asked for with, so that it can be run again; the encoders that a worker has."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("options", sa.JSON(), nullable=True))
    op.add_column("workers", sa.Column("encoders", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("workers", "encoders")
    op.drop_column("jobs", "options")
