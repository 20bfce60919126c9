"""Volumes, skipped slices, and how values become grey; paths that are hidden."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("intensity", sa.Text(), nullable=False, server_default="auto"))
    op.add_column("jobs", sa.Column("path_key", sa.Text(), nullable=True))
    op.add_column("batches", sa.Column("skipped", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("scans", sa.Column("volume_name", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("scans", "volume_name")
    op.drop_column("batches", "skipped")
    op.drop_column("jobs", "path_key")
    op.drop_column("jobs", "intensity")
