"""Submissions that can be repeated, and an index of the scans that failed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_FAILED = sa.text("failure_kind IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "submission_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_submission_keys_job_id_jobs"),
    )
    op.create_index(
        "ix_scans_job_id_failure_kind",
        "scans",
        ["job_id", "failure_kind"],
        sqlite_where=_FAILED,
        postgresql_where=_FAILED,
    )


def downgrade() -> None:
    op.drop_index("ix_scans_job_id_failure_kind", "scans")
    op.drop_table("submission_keys")
