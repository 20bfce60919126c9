"""The first tables.

Written out, not created from `tables.py`: a migration must do the same thing for ever.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("root", sa.Text, nullable=False),
        sa.Column("report_folder", sa.Text, nullable=False),
        sa.Column("encoder", sa.JSON, nullable=False),
        sa.Column("encoder_key", sa.Text, nullable=False),
        sa.Column("notes", sa.JSON, nullable=False),
        sa.Column("scans", sa.Integer, nullable=False),
        sa.Column("normal", sa.Integer, nullable=False),
        sa.Column("anomaly", sa.Integer, nullable=False),
        sa.Column("ignored", sa.Integer, nullable=False),
        sa.Column("created_at", _TIME, nullable=False, index=True),
        sa.Column("finished_at", _TIME),
        sa.Column("error", sa.Text),
        sa.Column("result", sa.JSON),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("scans", sa.Integer, nullable=False),
        sa.Column("embedded", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("encoded", sa.Integer, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
    )
    op.create_index(op.f("ix_batches_job_id_state"), "batches", ["job_id", "state"])
    op.create_table(
        "scans",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("batch_id", sa.Integer, sa.ForeignKey("batches.id"), nullable=False, index=True),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("label", sa.String(16)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("failure_kind", sa.String(32)),
        sa.Column("failure_detail", sa.Text),
        sa.Column("score", sa.Float),
        sa.Column("score_in_sample", sa.Float),
    )
    op.create_index(op.f("ix_scans_job_id_id"), "scans", ["job_id", "id"])
    op.create_index(op.f("ix_scans_job_id_state"), "scans", ["job_id", "state"])
    op.create_table(
        "ignored_files",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id"), nullable=False, index=True),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "embeddings",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("encoder_key", sa.String(200), primary_key=True),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    for table in ("embeddings", "ignored_files", "scans", "batches", "jobs"):
        op.drop_table(table)
