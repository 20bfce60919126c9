"""What is known of a content beside its embedding: traits and patches; and groups of scans."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "contents",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("format", sa.String(16), nullable=False),
        sa.Column("file_bytes", sa.BigInteger, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("grey_mean", sa.Float, nullable=False),
        sa.Column("grey_spread", sa.Float, nullable=False),
        sa.Column("border_share", sa.Float, nullable=False),
        sa.Column("perceptual_hash", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "patches",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("patches_key", sa.String(200), primary_key=True),
        sa.Column("patches", sa.LargeBinary, nullable=False),
    )
    op.add_column("scans", sa.Column("group_name", sa.Text))
    op.add_column("scores", sa.Column("score_copies_out", sa.Float))


def downgrade() -> None:
    op.drop_column("scores", "score_copies_out")
    op.drop_column("scans", "group_name")
    op.drop_table("patches")
    op.drop_table("contents")
